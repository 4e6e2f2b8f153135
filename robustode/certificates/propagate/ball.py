"""The input set: a ball around every sample, and the least of a linear function over it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustode.certificates.propagate.nodes import Range, dot
from robustode.certificates.propagate.roundoff import Roundoff
from robustode.sensitivity.norms import dual


@dataclass(frozen=True, kw_only=True, eq=False)
class Ball:
    """‖x' − x‖ ≤ ε, not cut by the box of valid inputs, each x' as the deployed model's numbers round it.

    Attributes:
        x: (batch, *input_shape) float64.
        eps: (batch,).
        norm: "l1", "l2" or "linf".
        roundoff: the allowances.
    """

    x: Tensor
    eps: Tensor
    norm: str
    roundoff: Roundoff

    @property
    def spread(self) -> Tensor:
        """ε, to broadcast against x."""
        return self.eps.reshape(-1, *([1] * (self.x.dim() - 1)))

    @property
    def range(self) -> Range:
        """The smallest box around the ball."""
        spread = self.spread
        size = self.x.abs() + spread
        error = size * (self.roundoff.unit + self.roundoff.of_own)
        return Range(low=self.x - spread - error, high=self.x + spread + error, error=error)

    def least(self, rows: Tensor) -> Tensor:
        """Return ⟨A, x⟩ − ε ‖A‖_* less the allowances, for A (batch or 1, rows, *input_shape): (batch, rows)."""
        steep = dual(rows.flatten(2), self.norm) * self.eps[:, None]
        error = dot(rows.abs(), self.range.error)
        return dot(rows, self.x) - steep * (1 + self.roundoff.of_own) - error
