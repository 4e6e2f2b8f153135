"""A stored pass: what the sensitivity problem and the adjoint need of the direct problem."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TAPE_BYTES = 256 * 2**20  # largest stored pass; beyond it, segments are recomputed in the reverse sweep
# Batches are filled up to a multiple of this. Matrix products and vectorised functions treat the last few rows of a
# batch by other code with other rounding, which a nonlinear attack amplifies; with full blocks a sample's numbers
# hardly depend on its batch (seen with MKL on x86: not by a bit, for an even number of features).
ROWS = 16


def filled(x: Tensor, rows: int | None = None) -> Tensor:
    """Return `x` with zero rows appended, up to `rows` or the next multiple of `ROWS`; always a new tensor."""
    missing = (-len(x) % ROWS) if rows is None else rows - len(x)
    return torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x.clone()


@dataclass(frozen=True)
class Stage:
    """What the other sweeps need of one stage: σ'(a), and the stage's input where weights are concerned."""

    slope: Tensor
    input: Tensor | None


@dataclass(frozen=True)
class Tape:
    """A stored pass: the state at the start of each segment, and all stages of the last segment (of all, if there is
    one).

    Memory is bounded by `TAPE_BYTES`: with more steps than fit, the reverse sweep recomputes one segment at a time from
    its starting state, at the cost of one more forward pass.
    """

    starts: tuple[Tensor, ...]
    segment: int
    stages: tuple[tuple[Stage, ...], ...]
    inputs: bool

    @property
    def rows(self) -> int:
        """Rows of the stored pass, those that fill the batch up included."""
        return len(self.starts[0])
