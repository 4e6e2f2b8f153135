"""Two lines that enclose an activation over an interval, for any slopes, with intercepts that are proved."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.certificates.propagate.curves import Curve

HALVINGS = 16  # of the search for a tangent: it decides how tight a line is, not whether it holds
NARROW = 1e-6  # relative width below which the secant's slope is taken to be that of the middle
SLACK = 2.0**-48  # 32 roundings of float64, of the numbers that an intercept is made of
GRID = 64  # points at which a σ without a formula for σ' = α is looked at


@dataclass(frozen=True, kw_only=True, eq=False)
class Lines:
    """α a + β ≤ σ(a) ≤ α' a + β' for all a in [low, high], elementwise.

    Attributes:
        lower_slope, lower: α and β.
        upper_slope, upper: α' and β'.
    """

    lower_slope: Tensor
    lower: Tensor
    upper_slope: Tensor
    upper: Tensor


def lines(curve: Curve, low: Tensor, high: Tensor) -> Lines:
    """Return lines below and above σ over [low, high], elementwise in float64.

    The slopes are those of the least area between the lines: the lower one supports the convex envelope of σ at the
    middle of the interval, the upper one the concave envelope. Each intercept is the extremum of σ(a) − α a, which
    lies at an end of the interval, at a kink or where σ' = α, less 32 roundings; it is found for whatever slope the
    search has given, so that an inexact tangent costs tightness only. Ends that are not finite give NaN.

    Source: Zhang et al., Efficient neural network robustness certification with general activation functions,
    arXiv 1811.00866 (CROWN), section 3.2.
    """
    middle = low + (high - low) / 2
    secant = _secant(curve, low, high, middle)
    if curve.curvature is not None:
        below = above = secant
    elif curve.bend is None:
        below, above = curve.slope(middle), secant
    else:
        touch, beyond = _tangent(curve, low, high, 1.0)
        above = torch.where(beyond, secant, curve.slope(torch.maximum(middle, touch)))
        touch, beyond = _tangent(curve, high, low, -1.0)
        below = torch.where(beyond, secant, curve.slope(torch.minimum(middle, touch)))
    lower, _ = remainder(curve, below, low, high)
    _, upper = remainder(curve, above, low, high)
    return Lines(lower_slope=below, lower=lower, upper_slope=above, upper=upper)


def value_range(curve: Curve, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return (min σ, max σ) over [low, high], elementwise, wider than the true range by at most 32 roundings."""
    if not curve.rises:
        return remainder(curve, torch.zeros_like(low), low, high)
    least, most = curve.value(low), curve.value(high)
    return least - SLACK * (1 + least.abs()), most + SLACK * (1 + most.abs())


def remainder(curve: Curve, alpha: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return bounds below and above of σ(a) − α a over [low, high], elementwise; NaN where an end is not finite."""
    reach = torch.maximum(low.abs(), high.abs())
    points = [low, high, *(low.new_tensor(kink).expand_as(low) for kink in curve.kinks)]
    sag = torch.zeros_like(low)
    if curve.curvature is None:
        points += [torch.where(point.isnan(), low, point) for point in curve.level(alpha)]
    else:
        first, last = low.clamp(-curve.flat, curve.flat), high.clamp(-curve.flat, curve.flat)
        points += [first + (last - first) * (i / GRID) for i in range(GRID + 1)]
        sag = curve.curvature * ((last - first) / GRID) ** 2 / 8 + 1e-12 * (reach > curve.flat)
    least = torch.full_like(low, torch.inf)
    most = -least
    size = torch.zeros_like(low)
    for point in points:
        at = torch.minimum(torch.maximum(point, low), high)
        value = curve.value(at)
        least, most = torch.minimum(least, value - alpha * at), torch.maximum(most, value - alpha * at)
        size = torch.maximum(size, value.abs())
    slack = SLACK * (1 + size + alpha.abs() * reach) + sag
    known = low.isfinite() & high.isfinite()
    return torch.where(known, least - slack, torch.nan), torch.where(known, most + slack, torch.nan)


def _secant(curve: Curve, low: Tensor, high: Tensor, middle: Tensor) -> Tensor:
    width = high - low
    narrow = width <= NARROW * (1 + middle.abs())
    slope = (curve.value(high) - curve.value(low)) / torch.where(narrow, 1.0, width)
    return torch.where(narrow, curve.slope(middle), slope if not curve.rises else slope.clamp(0, 1))


def _tangent(curve: Curve, start: Tensor, end: Tensor, side: float) -> tuple[Tensor, Tensor]:
    """Return where the line through (start, σ(start)) touches σ beyond its bend, and whether only beyond `end`.

    `side` is 1 for a line above σ, from the left end, and −1 for one below it, from the right end.
    """
    assert curve.bend is not None
    value = curve.value(start)

    def before(point: Tensor) -> Tensor:
        """Whether the tangent at `point` still passes σ(start) on the far side."""
        return side * (curve.value(point) - value - curve.slope(point) * (point - start)) <= 0

    bend = torch.full_like(start, curve.bend)
    bend = torch.minimum(torch.maximum(bend, torch.minimum(start, end)), torch.maximum(start, end))
    near, far = bend, end
    for _ in range(HALVINGS):
        between = (near + far) / 2
        inside = before(between)
        near, far = torch.where(inside, between, near), torch.where(inside, far, between)
    return near, before(end) & (side * (end - curve.bend) >= 0) | (side * (end - curve.bend) <= 0)
