"""Checking the values of a file or of flags against a pydantic model: every mistake at once, each with its line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from robustode.errors import RobustODEError, unknown
from robustode.toml_lines import Key, line_of

M = TypeVar("M", bound=BaseModel)
_PLAIN = {
    "greater than or equal to ": "a number ≥ ",
    "greater than ": "a number > ",
    "less than or equal to ": "a number ≤ ",
    "less than ": "a number < ",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "a text",
    "a valid boolean": "true or false",
    "a valid dictionary": "a table",
    "a valid list": "a list",
    "a valid tuple": "a list",
}  # pydantic's words in those of this package
SHOWN = 60  # characters of a wrong value that a message shows


def validated(
    kind: type[M],
    values: Mapping[str, Any],
    *,
    what: str,
    path: Path | None = None,
    error: type[RobustODEError],
    tables: Mapping[str, type[BaseModel]] | None = None,
    hidden: tuple[str, ...] = (),
) -> M:
    """Return `kind` made of the values.

    Args:
        kind: model that forbids extra keys.
        values: as tomllib read them, or made from flags.
        what: names the whole in a message ("protocol", "attack card").
        path: file that the values are from; its lines are named.
        error: class of the error.
        tables: models of the tables inside, by key, for the nearest names of their unknown keys.
        hidden: keys that are not a user's to set, and not suggested.

    Raises:
        error: all that is wrong: "FILE, line N: KEY: expected ..., got ...", several a line each.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as wrong:
        models = {"": kind, **(tables or {})}
        found = [_mistake(one, what, models, hidden) for one in wrong.errors()]
    raise _joined(dict.fromkeys(found), what, path, error)


def as_value_error(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a check that raises this package's errors as one that pydantic collects, without what is wrong: pydantic
    knows the key."""

    def collected(value: Any) -> Any:
        try:
            return check(value)
        except RobustODEError as error:
            raise ValueError(str(error).removeprefix(f"{error.what}: ")) from None

    return collected


def _mistake(
    one: Mapping[str, Any], what: str, models: Mapping[str, type[BaseModel]], hidden: tuple[str, ...]
) -> tuple[Key, str]:
    """Return the key of one mistake and the text that says what it is."""
    key: Key = tuple(part for part in one["loc"] if part != "[key]")
    if one["type"] == "extra_forbidden":
        table = str(key[0]) if len(key) > 1 else ""
        names = set(models[table].model_fields) - set(hidden) if table in models else ()
        return key, str(unknown(f"key of {table or what}", str(one["loc"][-1]), names))
    name = ".".join(map(str, key))
    if one["type"] == "missing":
        return key, f"{name}: expected a value, got none"
    text = str(one["msg"]).removeprefix("Value error, ")
    if text.startswith("Input should be "):
        expected = text.removeprefix("Input should be ")
        if one["type"] != "literal_error":
            expected = expected.partition(", ")[0]  # then comes why it could not be read
        for theirs, ours in _PLAIN.items():
            expected = expected.replace(theirs, ours)
        got = repr(one["input"])
        text = f"expected {expected}, got {got if len(got) <= SHOWN else got[:SHOWN] + '...'}"
    return key, f"{name}: {text}" if name else text


def _joined(
    found: Mapping[tuple[Key, str], None], what: str, path: Path | None, error: type[RobustODEError]
) -> RobustODEError:
    """Return one error for all mistakes, in the order of the lines."""
    rows = []
    for key, text in found:
        line = line_of(path, key) if path is not None else None
        place = "" if path is None and text.startswith("unknown") else f"{path or what}"
        rows.append((line or 0, f"{place}{f', line {line}' if line else ''}{': ' if place else ''}{text}"))
    rows.sort(key=lambda row: row[0])
    if len(rows) == 1:
        return error(rows[0][1])
    return error("\n  ".join([f"{len(rows)} mistakes", *(text for _, text in rows)]))
