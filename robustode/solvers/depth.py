"""Weights in depth: θ(t), piecewise linear through knots at t_k = (k + ½) T / knots, constant beyond the outer two."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def knot_position(fraction: float, knots: int) -> tuple[int, float]:
    """Return (k, w) such that θ(t) = (1 − w) θ_k + w θ_{k+1} at t = fraction · T, with 0 ≤ w < 1.

    Positions within 1e-9 of a knot are taken to be that knot, so that `knots == steps` with Euler uses each knot as it
    is.
    """
    position = min(max(fraction * knots - 0.5, 0.0), knots - 1.0)
    nearest = round(position)
    if abs(position - nearest) < 1e-9:
        return int(nearest), 0.0
    k = math.floor(position)
    return k, position - k


def knot_depths(knots: int, horizon: float) -> Tensor:
    """Return the depths t_k = (k + ½) T / knots of the knots, float64, shape (knots,)."""
    return (torch.arange(knots, dtype=torch.float64) + 0.5) * (horizon / knots)


def interpolate(values: Tensor, depth: float, horizon: float) -> Tensor:
    """Return θ(depth) of the piecewise linear path through `values` of shape (knots, ...)."""
    k, w = knot_position(depth / horizon, len(values))
    return values[k] if w == 0.0 else torch.lerp(values[k], values[k + 1], w)


def smoothness(values: Tensor, horizon: float) -> Tensor:
    """Return ∫‖θ'(t)‖² dt over [0, T] of the piecewise linear path, exactly: Σ_k ‖θ_{k+1} − θ_k‖² / (T / knots).

    It is 0 for a path that is constant in depth, and for one knot; a scalar, differentiable.

    Args:
        values: (knots, ...), θ at the knots.
        horizon: final depth T > 0.
    """
    return values.diff(dim=0).square().sum() * (len(values) / horizon)
