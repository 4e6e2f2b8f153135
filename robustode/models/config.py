"""Validation of configurations and headers, with every problem in one error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from robustode.errors import ModelError

Schema = TypeVar("Schema", bound=BaseModel)


def validated(schema: type[Schema], values: Mapping[str, Any], *, what: str) -> Schema:
    """Build a pydantic `schema` from `values`.

    Raises:
        ModelError: with the name and the complaint of every value that does not fit.
    """
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        problems = "; ".join(_say(problem) for problem in error.errors(include_url=False))
        raise ModelError(f"{what} is not valid: {problems}") from None


def _say(problem: Mapping[str, Any]) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:  # of the whole; the message names the values
        return message
    got = repr(problem["input"])
    place = ".".join(map(str, problem["loc"]))
    return f"{place}: {message} (got {got if len(got) <= 60 else got[:57] + '...'})"
