"""A user's plain state dict, read without ever running code that a file holds."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from robustode.errors import ModelError
from robustode.models.tensors import existing_file, load_strict, read_safetensors

NESTED = ("state_dict", "model", "model_state_dict", "ema")
PREFIXES = ("module.", "_orig_mod.", "model.")
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
SAVE_THE_WEIGHTS = "Save the weights alone: torch.save(model.state_dict(), 'FILE.pt')"


def load_state(module: nn.Module, path: str | Path) -> tuple[str, ...]:
    """Load a file's state dict into `module`, strictly, and return what was done to make it fit, one note each.

    Dicts nested under `NESTED` are taken out, `PREFIXES` that the module does not have are taken off.

    Args:
        module: built by the user's factory; its tensors keep their dtype.
        path: a .pt, .pth, .bin or .ckpt file of torch.save, else safetensors.

    Raises:
        ModelError: the file is missing, damaged, holds anything but tensors, or does not fit the module.
    """
    path = existing_file(path)
    stored = _read_torch(path) if path.suffix in TORCH_SUFFIXES else read_safetensors(path)[1]
    tensors, notes = _unnest(stored, path)
    tensors, stripped = _strip(tensors, set(module.state_dict()))
    notes += stripped
    own = module.state_dict()
    changed = {
        (value.dtype, own[name].dtype)
        for name, value in tensors.items()
        if name in own and isinstance(own[name], Tensor) and value.dtype != own[name].dtype
    }
    load_strict(module, tensors, source=path, infinite_buffers=True)
    notes += [f"converted {a} tensors to the module's {b}" for a, b in sorted(changed, key=str)]
    return tuple(notes)


def _read_torch(path: Path) -> Any:
    what = f"model file '{path}'"
    if _is_torchscript(path):
        raise ModelError(what, expected="a state dict", got="a TorchScript module", fix=SAVE_THE_WEIGHTS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on the pickle protocol
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as reason:
        names = sorted(set(re.findall(r"GLOBAL (\S+)", str(reason)))) if isinstance(reason, UnpicklingError) else []
        if names:
            whole = any(name.startswith("torch.nn.modules") for name in names)
            got = f"{'a whole pickled module' if whole else 'pickled code'} ({', '.join(names)}), which was not run"
            raise ModelError(what, expected="tensors only", got=got, fix=SAVE_THE_WEIGHTS) from None
        got = f"one that is truncated, damaged or holds more than tensors ({type(reason).__name__})"
        raise ModelError(what, expected="a state dict of torch.save", got=got, fix=SAVE_THE_WEIGHTS) from None


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _unnest(stored: Any, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Return the innermost dict of tensors, and what was taken to get there."""
    notes: list[str] = []
    while isinstance(stored, Mapping):
        found = [key for key in NESTED if isinstance(stored.get(key), Mapping)]
        if not found:
            break
        others = f" (not '{', '.join(found[1:])}')" if found[1:] else ""
        notes.append(f"took the state dict under '{found[0]}'{others}")
        stored = stored[found[0]]
    what = f"model file '{path}'"
    if not isinstance(stored, Mapping):
        raise ModelError(what, expected="a state dict", got=f"a {type(stored).__name__}", fix=SAVE_THE_WEIGHTS)
    wrong = [f"{key}: {type(value).__name__}" for key, value in stored.items() if not isinstance(value, Tensor)]
    if wrong or not stored:
        got = f"entries {', '.join(wrong[:5])}" if wrong else "an empty dict"
        expected = f"a dict of tensors, plain or under {', '.join(NESTED)}"
        raise ModelError(what, expected=expected, got=got, fix=SAVE_THE_WEIGHTS)
    return {str(key): value for key, value in stored.items()}, notes


def _strip(tensors: dict[str, Tensor], wanted: set[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Take off prefixes that all names have and the module's names have not."""
    notes: list[str] = []
    averaged = {name: value for name, value in tensors.items() if name.startswith("module.")}
    if averaged and set(tensors) - set(averaged) == {"n_averaged"} and "n_averaged" not in wanted:
        tensors = averaged
        notes.append("left out 'n_averaged', the counter of an averaged model")
    while set(tensors) != wanted:
        prefix = next(
            (p for p in PREFIXES if all(n.startswith(p) for n in tensors) and not all(n.startswith(p) for n in wanted)),
            None,
        )
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
        notes.append(f"took the prefix '{prefix}' off {len(tensors)} names")
    return tensors, notes
