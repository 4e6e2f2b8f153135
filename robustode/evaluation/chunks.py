"""Attacks on few samples at a time: what the parts found put together, and how it is seen that memory ran out."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from robustode.attacks.base import AttackResult

# How torch says on a CPU that the system gives no more memory; on a GPU it has an exception of its own.
_NO_MEMORY = ("not enough memory", "can't allocate memory", "Cannot allocate memory", "out of memory")


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What an attack returned for some samples.

    Attributes:
        x_adv: its points, not judged yet.
        result: all that it said; None for stored points and where there was nothing to attack.
        forwards, backwards: (batch,) float64, passes for each sample.
        nfe: (batch,) float64, evaluations of the right-hand side, where the model says.
    """

    x_adv: Tensor
    result: AttackResult | None
    forwards: Tensor
    backwards: Tensor
    nfe: Tensor | None


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory does not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def release() -> None:
    """Give back what an attack that ran out of memory still holds."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def joined(parts: Sequence[Searched]) -> Searched:
    """Put parts together, in order; a field that one of them does not have is None."""
    if len(parts) == 1:
        return parts[0]
    results = [part.result for part in parts if part.result is not None]
    together = _joined(results) if len(results) == len(parts) else {}
    return Searched(**_joined(parts, without="result"), result=AttackResult(**together) if together else None)


def _joined(parts: Sequence[Any], without: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in (field.name for field in fields(parts[0]) if field.name != without):
        values = [getattr(part, name) for part in parts]
        if any(value is None for value in values):
            out[name] = None
        elif isinstance(values[0], tuple):
            out[name] = sum(values, ())
        else:
            out[name] = torch.cat(values)
    return out
