"""A parabola near σ on an interval, and rigorous bounds of what is left between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.certificates.slopes import curvature_range
from robustode.solvers.activations import Activation

PIECES = 6  # of each side of an interval, on which what is left is bounded
CHEBYSHEV = 0.75  # of the way from the tangent to the chord: where a cubic is left with the least on both sides
JOINT = 0.2  # how much of Σ ½ |c| G² its Frobenius norm leaves, nearly: decides between parabola and line
NARROW = 1e-4  # least half width that is fitted; below it differences lose their digits
ROUNDING = 4e-15  # of σ and the sums, relative to 1 + |a|


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """σ(a + Δ) ≈ σ(a) + offset + slope Δ + ½ curvature Δ², each (batch, features).

    Attributes:
        pre: a.
        slope, curvature, offset: the coefficients. One of curvature and offset is 0 in each component: what bends is
            kept as a parabola, whose effect is bounded jointly, or half of its rise is put into the offset.
    """

    pre: Tensor
    slope: Tensor
    curvature: Tensor
    offset: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Left:
    """What is left of σ over −down ≤ Δ ≤ up: t = σ(a + Δ) − σ(a) − slope Δ − ½ curvature Δ², (batch, features) each.

    Attributes:
        low, high: of t.
        rate: of |t| / |Δ|.
    """

    low: Tensor
    high: Tensor
    rate: Tensor


def fit(sigma: Activation, pre: Tensor, forms: Tensor, error: Tensor) -> Fit:
    """Return the fit for Δ = G δ + e, |G δ| ≤ forms, |e| ≤ error: a parabola where e is small, a line elsewhere."""
    width = (forms + error).clamp(min=NARROW)
    value, up, down = sigma.apply(pre), sigma.apply(pre + width), sigma.apply(pre - width)
    tangent = sigma.slope(value)
    slope = tangent + CHEBYSHEV * ((up - down) / (2 * width) - tangent)
    curvature = (up + down - 2 * value) / width.square()
    parabola = Fit(pre=pre, slope=slope, curvature=curvature, offset=torch.zeros_like(pre))
    line = Fit(pre=pre, slope=slope, curvature=torch.zeros_like(pre), offset=torch.zeros_like(pre))
    bent, straight = left(sigma, parabola, width, width), left(sigma, line, width, width)
    joint = curvature.abs() * (JOINT * forms.square() / 2 + forms * error + error.square() / 2)
    better = torch.maximum(bent.high, -bent.low) + joint < (straight.high - straight.low) / 2
    return Fit(
        pre=pre,
        slope=slope,
        curvature=torch.where(better, curvature, 0.0),
        offset=torch.where(better, 0.0, (straight.high + straight.low) / 2),
    )


def left(sigma: Activation, fitted: Fit, down: Tensor, up: Tensor) -> Left:
    """Return bounds of t over −down ≤ Δ ≤ up, down, up ≥ 0.

    Between neighbours of a grid t differs from the chord by at most (gap² / 8) sup |σ'' − curvature|; on the pieces
    beside 0, |t| ≤ |σ'(a) − slope| |Δ| + ½ sup |σ'' − curvature| Δ².
    """
    grid = torch.linspace(0, 1, PIECES + 1, dtype=up.dtype, device=up.device)
    reach = torch.stack([-down, up])[..., None]  # (2, batch, features, 1)
    delta = reach * grid
    at = fitted.pre[..., None] + delta
    value = sigma.apply(fitted.pre)
    slope, curvature = fitted.slope[..., None], fitted.curvature[..., None]
    t = sigma.apply(at) - value[..., None] - slope * delta - curvature * delta.square() / 2
    ends = at[..., :-1], at[..., 1:]
    least, most = curvature_range(sigma.name, torch.minimum(*ends), torch.maximum(*ends))
    bend = torch.maximum(most - curvature, curvature - least).clamp(min=0)
    gap = reach.abs() / PIECES
    spare = bend * gap.square() / 8 + ROUNDING * (1 + torch.maximum(*(end.abs() for end in ends)))
    high = torch.maximum(t[..., :-1], t[..., 1:]) + spare
    low = torch.minimum(t[..., :-1], t[..., 1:]) - spare
    first = (sigma.slope(value) - fitted.slope).abs() + (bend[..., 0] * gap[..., 0]).amax(0) / 2
    start = gap * torch.arange(1, PIECES, device=up.device)
    size = torch.where(start > 0, torch.maximum(high, -low)[..., 1:] / start.clamp(min=1e-300), 0.0)
    return Left(
        low=low.amin(-1).amin(0),
        high=high.amax(-1).amax(0),
        rate=torch.maximum(first, size.amax(-1).amax(0)),
    )
