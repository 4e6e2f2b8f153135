"""How far the value of an activation deviates from its tangent over a ball, and how that arrives further on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustode.certificates.expansion import Expansion, Group
from robustode.certificates.slopes import mean_curvature_range


@dataclass(frozen=True, kw_only=True, eq=False)
class Deviation:
    """Bounds of q at one site over the ball: q = τ ∘ (G δ) + u + ½ σ'' (G δ)².

    Attributes:
        total: of |q|, (batch, features).
        third: of |τ ∘ (G δ) + u|.
        factor: of |τ|.
        rest: of |u|.
        error: of |Δ − G δ|.
    """

    total: Tensor
    third: Tensor
    factor: Tensor
    rest: Tensor
    error: Tensor

    def with_error(self, error: Tensor) -> Deviation:
        """Return the deviation with that of something else, bounded by `error`, added to it."""
        added = {name: getattr(self, name) + error for name in ("total", "third", "rest")}
        return replace(self, **added)


@dataclass(frozen=True, kw_only=True, eq=False)
class Carried:
    """The deviations of a group as they arrive at its end, (batch, features) each."""

    total: Tensor
    third: Tensor
    square: Tensor  # Σ (v_m ‖G_m‖ r |τ_m|)², times the number of sites
    beside: Tensor  # what `square` does not cover


def deviation(name: str, pre: Tensor, curvature: Tensor, up: Tensor, down: Tensor, error: Tensor) -> Deviation:
    """Bound q = ½ c Δ² with Δ = G δ + e, −down ≤ G δ ≤ up, |e| ≤ error, c the mean curvature."""
    linear = torch.maximum(up, down)
    least, most = mean_curvature_range(name, pre, down + error, up + error)
    away = torch.maximum(most - curvature, curvature - least).clamp(min=0)
    bend = torch.maximum(least.abs(), most.abs())
    factor, rest = away / 2 * linear + bend * error, bend / 2 * error.square()
    total = bend / 2 * (linear + error).square()
    return Deviation(total=total, third=factor * linear + rest, factor=factor, rest=rest, error=error)


def carry(expansion: Expansion, group: Group, deviations: Sequence[Deviation], radius: Tensor) -> Carried:
    """Return the deviations of the sites of a group as they arrive at its end, for ‖δ‖₂ ≤ radius, (batch,)."""
    total: Tensor | float = 0.0
    third: Tensor | float = 0.0
    square: Tensor | float = 0.0
    beside: Tensor | float = 0.0
    for m, reach, weight, rest in zip(group.sites, group.reach, group.weights, group.rest, strict=True):
        found, size = deviations[m], expansion.sites[m].size
        factor = found.factor * (abs(weight) * size * radius)[:, None]
        square = square + len(group.sites) * factor.square()
        total, third = total + _times(reach, found.total), third + _times(reach, found.third)
        beside = beside + _times(reach, found.rest)
        if rest is not None:
            beside = beside + _times(rest, found.third)
    return Carried(total=total, third=third, square=square, beside=beside)  # type: ignore[arg-type]


def _times(matrix: Tensor | None, vector: Tensor) -> Tensor:
    return vector if matrix is None else (matrix @ vector[:, :, None])[:, :, 0]
