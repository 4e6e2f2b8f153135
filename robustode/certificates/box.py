"""How far a linear form moves over a ball around a sample, where the box of valid inputs stops some directions."""

from __future__ import annotations

import torch
from torch import Tensor

from robustode.sensitivity.norms import dual


def support(rows: Tensor, low: Tensor, high: Tensor, norm: str) -> Tensor:
    """Return s with g·δ ≤ s ε for every row g, all ε ≥ 0 and all ‖δ‖ ≤ ε with low ≤ δ ≤ high: (batch, rows).

    s is the dual norm of what is left of g when coordinates at their bound, where g points out of the box, are left
    out; the dual norm of g where the sample is in the interior.

    Args:
        rows: (batch, rows, d).
        low, high: (batch, d), low ≤ 0 ≤ high: the room of each coordinate.
        norm: "l1", "l2" or "linf".
    """
    free = torch.where(rows > 0, (high > 0)[:, None], (low < 0)[:, None])
    return dual(rows * free, norm)
