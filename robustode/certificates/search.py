"""The largest ball that a bound certifies, where the bound depends on the ball: a search for all samples at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

TINY = 1e-300

Certified = Callable[[Tensor], Tensor]


class _Ball(NamedTuple):
    """Radii ε and the logarithms of what balls of them certify, (batch,) each."""

    eps: Tensor
    log: Tensor


def largest_radii(certified: Certified, batch: Tensor, rounds: int) -> Tensor:
    """Return the largest radii found for every sample and class, (batch, classes).

    A ball of radius ε within which class k needs a distance q_k(ε), not rising with ε, certifies min(ε, q_k(ε)); the
    best for the nearest class has ε = min_k q_k(ε). log q falls ever more steeply, so that its chord from a ball that
    certifies itself to one that does not meets log ε before it does: the ball there certifies itself.

    Args:
        certified: of radii (batch,), returns q, (batch, classes).
        batch: (batch,), of the type of the radii.
        rounds: balls tried besides that of radius 0.
    """
    zero = torch.zeros_like(batch)
    found = certified(zero)
    before = left = _Ball(zero, _log(found.amin(1)))
    right = _Ball(torch.full_like(batch, torch.inf), zero)
    best, eps = torch.zeros_like(found), found.amin(1).clamp(max=1 / TINY) / 4
    for _ in range(rounds):
        found = certified(eps)
        best = torch.maximum(best, torch.minimum(eps[:, None], found))
        tried = _Ball(eps, _log(found.amin(1)))
        holds = found.amin(1) >= eps
        before, left, right = _either(holds, left, before), _either(holds, tried, left), _either(holds, right, tried)
        open_ended = right.eps.isinf()
        eps = _meeting(_either(open_ended, before, left), _either(open_ended, left, right))
    return best


def _meeting(first: _Ball, second: _Ball) -> Tensor:
    """Return ε where the line through two points (ε, log q) meets log ε, by Newton's method from the left."""
    fall = ((first.log - second.log) / (second.eps - first.eps).clamp(min=TINY)).clamp(min=0, max=1 / TINY)
    top = first.log + fall * first.eps
    eps = torch.minimum(top.exp(), second.eps).clamp(min=TINY)
    for _ in range(30):
        eps = (eps * (1 + top - eps.log()) / (1 + fall * eps)).clamp(min=TINY, max=1 / TINY)
    return eps


def _log(found: Tensor) -> Tensor:
    return found.clamp(min=TINY, max=1 / TINY).log()


def _either(where: Tensor, first: _Ball, second: _Ball) -> _Ball:
    return _Ball(*(torch.where(where, a, b) for a, b in zip(first, second, strict=True)))
