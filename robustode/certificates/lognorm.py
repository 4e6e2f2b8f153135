"""Logarithmic norms of diag(s) K over all slopes s of a box: how fast trajectories of x' = σ(K x + b) can part."""

from __future__ import annotations

import torch
from torch import Tensor

from robustode.certificates.balance import best_scales
from robustode.certificates.linear import Linear
from robustode.certificates.spectral import Form, largest, spectral_norm
from robustode.sensitivity.norms import check_norm


def log_norm(
    part: Linear, low: Tensor, high: Tensor, norm: str, scales: Tensor | None = None, *, eigen: bool = True
) -> Tensor:
    """Return an upper bound of μ(diag(s) K) over all s with low ≤ s ≤ high, for every box of slopes.

    L∞ and L1 are exact up to rounding: the bound of a row or column is convex in each slope, so an end of its range
    attains it. For L2 it is the least of

        ½ λmax(C K + Kᵀ C + R Λ + Kᵀ R Λ⁻¹ K),   C = (low + high)/2, R = (high − low)/2,

    over the row norms, ‖K‖ I and optimised scales Λ, the centre-radius bound λmax(sym(C K)) + ‖R K‖, and (μ₁ + μ_∞)/2.

    Args:
        part: K.
        low, high: (..., *state), the ranges of the slopes.
        norm: "l1", "l2" or "linf".
        scales: Λ for L2, (n,), and the centre-radius bound is not tried; None optimises them where there is one box.
        eigen: whether eigenproblems are solved; without, L2 is (μ₁ + μ_∞)/2.

    Returns:
        (...), in units of K.

    Raises:
        BudgetError: an unknown norm.

    Source: Söderlind, BIT 46 (2006), section 2; the relaxation of R Δ K is Young's inequality row by row.
    """
    if check_norm(norm) == "linf":
        return rows_log_norm(part, low, high)
    if norm == "l1":
        return columns_log_norm(part, low, high)
    bound = (rows_log_norm(part, low, high) + columns_log_norm(part, low, high)) / 2
    return torch.minimum(bound, euclidean_log_norm(part.weight, low, high, scales)) if part.dense and eigen else bound


def rows_log_norm(part: Linear, low: Tensor, high: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return max_i sup_s (s_i K_ii + |s_i| Σ_{j≠i} |K_ij| d_j / d_i), the L∞ log norm where ‖x‖ = max |x_i| / d_i.

    Args:
        part: K.
        low, high: (..., *state), the ranges of the slopes.
        weights: d > 0, shaped as a state; None is 1 throughout.
    """
    d = torch.ones_like(low[(0,) * (low.dim() - part.operator.dims)]) if weights is None else weights
    sums = part.rows(d) / d
    ends = torch.stack([s * part.diagonal + s.abs() * sums for s in (low, high)]).amax(0)
    size = torch.maximum(low.abs(), high.abs()) * (part.diagonal.abs() + sums)
    return _over(ends + part.slack * size, part).amax(-1)


def columns_log_norm(part: Linear, low: Tensor, high: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return max_j sup_s (s_j K_jj + Σ_{i≠j} |s_i K_ij| d_i / d_j), the L1 log norm where ‖x‖ = Σ d_i |x_i|.

    Arguments as for `rows_log_norm`.
    """
    most = torch.maximum(low.abs(), high.abs())
    d = 1.0 if weights is None else weights
    sums = part.columns(most * d) / d
    own = torch.maximum(low * part.diagonal, high * part.diagonal)
    return _over(own + sums + part.slack * (most * part.diagonal.abs() + sums), part).amax(-1)


def euclidean_log_norm(weight: Tensor, low: Tensor, high: Tensor, scales: Tensor | None = None) -> Tensor:
    """Return the least of the L2 bounds of `log_norm` for a matrix W, (n, n), and boxes (..., n)."""
    centre, radius = (low + high) / 2, (high - low) / 2
    radius = radius + 2.0**-52 * (low.abs() + high.abs())
    if scales is None and low.dim() == 1:
        own = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
        young = best_scales(weight, lambda lam: _young(centre, radius, lam), own)[0]
    else:
        lam = torch.linalg.vector_norm(weight, dim=-1).clamp(min=1e-300) if scales is None else scales
        young = largest(_young(centre, radius, lam), weight)
    if scales is not None:
        return young / 2
    zero = torch.zeros_like(centre)
    parted = largest(Form(own=zero, cross=centre, square=zero), weight) / 2
    return torch.minimum(young / 2, parted + spectral_norm(radius[..., None] * weight))


def _young(centre: Tensor, radius: Tensor, scales: Tensor) -> Form:
    return Form(own=radius * scales, cross=centre, square=radius / scales)


def _over(values: Tensor, part: Linear) -> Tensor:
    return values.flatten(-part.operator.dims)
