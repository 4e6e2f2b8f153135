"""One short name for exactly this model: its configuration and every value in it."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from typing import Any

import torch
from torch import Tensor, nn

from robustode.models.registry import is_own

PLAIN = (bool, int, float, str, type(None))


def model_hash(model: nn.Module) -> str:
    """Return the first 16 hex digits of SHA-256 over configuration and state dict, the same on every device.

    The configuration of a RobustODE model is its `config`; that of any other module is its class, the source of the
    class where it is the user's own, and the plain attributes (numbers, strings, tuples of them) of it and all its
    parts, such as a stride, a tolerance or a solver's name. Tensors enter in the order of their names, with dtype,
    shape and bytes.
    """
    digest = hashlib.sha256(json.dumps(_configuration(model), sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"\0{name} {value.dtype} {tuple(value.shape)}\0".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _configuration(model: Any) -> Any:
    if is_own(model):
        return [model.arch, model.config]
    return {
        name: [
            type(part).__qualname__,
            _source(type(part)),
            {key: repr(value) for key, value in vars(part).items() if _is_plain(key, value)},
        ]
        for name, part in model.named_modules()
    }


@functools.cache
def _source(cls: type) -> str:
    """Source of a class of the user's own, so that an edited `forward` is another model; "" for a library's."""
    if cls.__module__.partition(".")[0] in ("torch", "robustode"):
        return ""
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):  # made in an interactive session
        return ""


def _is_plain(name: str, value: object) -> bool:
    if name.startswith("_") or name in ("training", "notes"):
        return False
    return isinstance(value, PLAIN) or (isinstance(value, tuple) and all(isinstance(item, PLAIN) for item in value))
