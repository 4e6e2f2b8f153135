"""How far rounding can move a node: that of the deployed model, and that of the bound's own arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

DOUBLE = 2.0**-53  # unit roundoff of the bound's own arithmetic
UNDERFLOW = 1e-30  # far above what is lost where float32 underflows
CURVE = 16  # roundings of an activation's value as the deployed model computes it


@dataclass(frozen=True, kw_only=True)
class Roundoff:
    """Allowances that make a bound hold for the deployed model, whose every node is off by a little.

    A sum of n products, in any order and with any fused operation, is off by at most γ_n Σ|w||x| with
    γ_n = n u / (1 − n u), and bounds are found of *all* maps whose nodes are off by no more: the exact and the deployed
    one are among them. Twice n + 8 is taken for n, which leaves room for weights and scalars that were rounded
    themselves. The second part, with the roundoff of float64, covers the bound's own products with transposed weights:
    they are of the form coefficients × K × state, too.

    Attributes:
        unit: u of the deployed model.
        own: of the longest chain of float64 operations that one bound is made of.

    Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1.
    """

    unit: float
    own: int

    def of_sum(self, terms: int, size: Tensor) -> Tensor:
        """Return the allowance for sums of `terms` products whose sizes |w||x| add up to `size`; 0 terms: exact."""
        if not terms:
            return size * self.of_own
        return size * (gamma(2 * (terms + 8), self.unit) + self.of_own) + UNDERFLOW * terms

    def of_value(self, size: Tensor) -> Tensor:
        """Return the allowance for the value of an activation no larger than `size`."""
        return (1 + size) * (CURVE * self.unit)

    @property
    def of_own(self) -> float:
        """γ of the bound's own arithmetic, relative to the sum of the sizes."""
        return gamma(2 * self.own, DOUBLE)


def gamma(n: int, unit: float) -> float:
    """Return γ_n = n u / (1 − n u), inf where n u ≥ 1."""
    return n * unit / (1 - n * unit) if n * unit < 1 else float("inf")
