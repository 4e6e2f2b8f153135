"""The file in which an unfinished training waits to be resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustode.data.dataset import Data
from robustode.errors import TrainingError
from robustode.files import atomic
from robustode.versions import versions

SCHEMA = 1


def partial_path(out: Path) -> Path:
    """Return where the unfinished training of a checkpoint `out` is kept: FILE.partial.pt beside it."""
    return out.with_suffix(".partial.pt")


def conditions(model: nn.Module, data: Data, validation: Data | None, **options: Any) -> dict[str, str]:
    """Return what must not change between the parts of one training, each as a short text."""
    out = {"model": f"{type(model).__name__} {getattr(model, 'config', '')}", "data": _name(data)}
    out["validation data"] = "none" if validation is None else _name(validation)
    for name, value in options.items():
        out[name] = _text(value)
    return out | {"library versions": json.dumps(versions(("robustode", "torch", "numpy")))}


def save_partial(path: Path, was: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Write the state of a training after a complete epoch, all of it or nothing."""
    with atomic(path) as temporary:
        torch.save({"schema": SCHEMA, "conditions": dict(was), **state}, temporary)


def load_partial(path: Path, now: Mapping[str, str]) -> dict[str, Any]:
    """Return the state that `save_partial` wrote.

    Raises:
        TrainingError: the file is missing or damaged, or a condition of the training has changed (which, from what to
            what).
    """
    what = f"unfinished training '{path}'"
    if not path.is_file():
        fix = "Start it without --resume."
        raise TrainingError(what, expected="the file that a stopped training left", got="no such file", fix=fix)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        was = state["conditions"] if state["schema"] == SCHEMA else None
    except Exception as reason:
        fix = "Delete it and start without --resume."
        raise TrainingError(what, expected="a file written by training", got=type(reason).__name__, fix=fix) from None
    for name, value in now.items():
        if was is None or was.get(name) != value:
            got = "another version" if was is None else f"{_short(value)} in place of {_short(was.get(name, 'none'))}"
            fix = "Repeat the command that started it, or delete the file and start without --resume."
            raise TrainingError(what, expected=f"the {name} that it was started with", got=got, fix=fix)
    return state


def _name(data: Data) -> str:
    return f"{data.name}, {len(data):,} samples, {data.fingerprint[:16]}"


def _text(value: Any) -> str:
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__} {json.dumps(asdict(value), sort_keys=True)}"
    return str(value)


def _short(text: str) -> str:
    return text if len(text) <= 300 else text[:297] + "..."
