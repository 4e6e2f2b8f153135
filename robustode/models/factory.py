"""The user's own code by name: `python:FILE.py:factory` and `python:package.module:factory`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from robustode.errors import ModelError, RobustODEError

PREFIX = "python:"


def load_factory(
    spec: str,
    *,
    what: str = "model factory",
    error: type[RobustODEError] = ModelError,
    base: str | Path | None = None,
) -> Callable[..., Any]:
    """Import the callable that `spec` names; the current directory is put on `sys.path`, as Python does for a script.

    Args:
        spec: `python:FILE.py:NAME` or `python:package.module:NAME`. NAME may be dotted (`Net.small`).
        what: what the callable is for, in the words of the message.
        error: class of the error raised.
        base: directory that a relative FILE.py starts from; the current directory if None.

    Raises:
        `error`: unreadable spec, missing file or module, code that raises when imported, missing or uncallable NAME.
    """
    place, separator, name = spec.removeprefix(PREFIX).rpartition(":")
    if not spec.startswith(PREFIX) or not separator or not place or not name:
        raise error(f"{what} '{spec}'", expected="python:FILE.py:NAME or python:package.module:NAME")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = _from_file(place, base) if place.endswith(".py") else _from_name(place)
    except FileNotFoundError as missing:
        if missing.filename != place:  # raised by the user's code, not by us
            raise error(f"{what} '{spec}'", got=f"an error on import: {_say(missing)}") from missing
        where = Path(base or here).resolve()
        raise error(
            f"{what} '{spec}'",
            expected=f"a file {place} in {where}",
            got="no such file",
            fix="Give the path relative to the current directory." if base is None else None,
        ) from None
    except (Exception, SystemExit) as reason:
        raise error(f"{what} '{spec}'", got=f"an error on import: {_say(reason)}") from reason
    return _attribute(module, name, f"{what} '{spec}'", error)


def _from_file(place: str, base: str | Path | None) -> ModuleType:
    """Execute a file as a module named after its path and content, so that an edited file is a new module."""
    path = (Path(base or Path.cwd()) / Path(place).expanduser()).resolve()
    if not path.is_file():
        raise FileNotFoundError(2, "no such file", place)
    digest = hashlib.sha256(str(path).encode() + b"\0" + path.read_bytes()).hexdigest()[:16]
    name = f"robustode_user_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before execution: dataclasses and pickle look the module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _from_name(place: str) -> ModuleType:
    importlib.invalidate_caches()
    return importlib.import_module(place)


def _attribute(module: ModuleType, name: str, what: str, error: type[RobustODEError]) -> Callable[..., Any]:
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            defined = sorted(key for key, item in vars(module).items() if callable(item) and not key.startswith("_"))
            raise error(what, expected=f"one of {', '.join(defined) or '(nothing callable)'}", got=f"no '{name}' there")
        value = getattr(value, part)
    if not callable(value):
        raise error(what, expected="something callable", got=f"{type(value).__name__} {value!r}")
    return value


def _say(reason: BaseException) -> str:
    return f"{type(reason).__name__}: {reason}"
