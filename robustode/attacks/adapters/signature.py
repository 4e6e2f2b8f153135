"""Parameters of a card checked against the signature of what they will be passed to, before any model is there."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from robustode.errors import AttackError, unknown

_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text", types.NoneType: "nothing"}


def accepted_parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the named parameters of a function or of a class's constructor, without *args and **kwargs."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {key: p for key, p in inspect.signature(function).parameters.items() if p.kind not in variadic}


def takes_anything(function: Callable[..., Any]) -> bool:
    """Return whether a function has **kwargs."""
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def check_parameters(
    function: Callable[..., Any],
    params: Mapping[str, Any],
    *,
    what: str,
    reserved: Mapping[str, str] | None = None,
    real: Collection[str] = (),
) -> None:
    """Raise unless `params` can be passed to `function`: names known, none missing, values of the right basic type.

    The type is the annotation, or else that of the default: true or false, integer, number, text, list.

    Args:
        function: function or class that will be called.
        params: parameters by name, as a card writes them.
        what: name of the function in messages ("torchattacks attack PGD").
        reserved: parameters that are set for the user, and the sentence that says by what.
        real: parameters that take any number although their default is an integer.

    Raises:
        AttackError: a parameter is reserved, unknown, missing or of the wrong type.
    """
    reserved = reserved or {}
    accepted = {key: p for key, p in accepted_parameters(function).items() if key not in reserved}
    hints = _hints(function)
    for key, value in params.items():
        if key in reserved:
            raise AttackError(f"parameter '{key}' of {what}", got=repr(value), fix=reserved[key])
        if key not in accepted:
            if takes_anything(function):
                continue
            raise unknown(f"parameter of {what}", key, accepted, AttackError)
        hint = hints.get(key, _hint_of_default(accepted[key], real))
        if not _fits(value, hint):
            raise AttackError(f"parameter '{key}' of {what}", expected=_say(hint), got=repr(value))
    missing = [key for key, p in accepted.items() if p.default is inspect.Parameter.empty and key not in params]
    if missing:
        raise AttackError(f"parameters of {what}", expected=f"a value for {', '.join(missing)}", got="none")


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except (NameError, TypeError, AttributeError):  # annotations that only a type checker can resolve
        return {}


def _hint_of_default(parameter: inspect.Parameter, real: Collection[str]) -> Any:
    default = parameter.default
    if parameter.name in real:
        return float
    return type(default) if isinstance(default, bool | int | float | str | tuple | list) else Any


def _fits(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is Literal:
        return any(type(value) is type(arg) and value == arg for arg in args)
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    if (origin or hint) in (tuple, list):
        return isinstance(value, tuple | list)
    if hint in (bool, str, types.NoneType):
        return isinstance(value, hint)
    return True


def _say(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_say(arg) for arg in args if arg is not types.NoneType)
    if origin is Literal:
        return " or ".join(repr(arg) for arg in args)
    return "a list" if (origin or hint) in (tuple, list) else _WORDS.get(hint, str(hint))
