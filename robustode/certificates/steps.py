"""Lipschitz constants of the steps of the deployed discrete map, for given or for all slopes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robustode.certificates.balance import best_scales
from robustode.certificates.linear import Linear, linear
from robustode.certificates.slopes import slope_range
from robustode.certificates.spectral import Form, largest, spectral_norm
from robustode.sensitivity.norms import check_norm
from robustode.solvers.flow import Flow

Slopes = tuple[Tensor, Tensor]
SlopesOf = Callable[[int, Tensor], Slopes]  # of a stage and how much its input may differ, for a unit at the step's


def all_slopes(flow: Flow, state: tuple[int, ...]) -> Slopes:
    """Return (inf σ', sup σ') over all reals, each shaped as a state."""
    ends = flow.weight.new_full(state, torch.inf, dtype=torch.float64)
    return slope_range(flow.activation.name, -ends, ends)


def step_constants(flow: Flow, norm: str, state: tuple[int, ...] | None = None) -> Tensor:
    """Return a Lipschitz constant of every step x_n ↦ x_{n+1} of the discrete map, for all states, (steps,) float64.

    Args:
        flow: in float64.
        norm: of states before and after, "l1", "l2" or "linf".
        state: shape of a state; None where the operator is a matrix.

    Raises:
        BudgetError: an unknown norm.

    Source: `step_constant`.
    """
    slopes = all_slopes(flow, (flow.weight.shape[-1],) if state is None else state)
    known: dict[tuple[tuple[int, float], ...], Tensor] = {}
    for n, positions in enumerate(map(tuple, flow.positions)):
        if positions not in known:
            known[positions] = step_constant(flow, n, norm, lambda i, growth: slopes)
    return torch.stack([known[tuple(positions)] for positions in flow.positions])


def step_constant(
    flow: Flow,
    n: int,
    norm: str,
    slopes: SlopesOf,
    scales: Sequence[Tensor | None] | None = None,
    *,
    eigen: bool = True,
) -> Tensor:
    """Return a Lipschitz constant of step n where the slopes of its stages lie in boxes, (...).

    With J_i = diag(s_i) K_i, and weights b_i ≥ 0 that sum to 1, a difference d before the step is afterwards

        d⁺ = Σ_i b_i (I + h J_i) d + h² Σ_i b_i J_i Σ_j a_ij J_j d_j,   d_i = d + h Σ_j a_ij J_j d_j,

    so that ‖d⁺‖ ≤ Σ b_i ‖I + h J_i‖ ‖d‖ + ... by the triangle inequality. For Euler it is ‖I + h J‖ itself; for other
    methods the terms in h² make it looser.

    Args:
        flow: in float64.
        n: number of the step.
        norm: "l1", "l2" or "linf".
        slopes: called with a stage's number and ‖d_i‖ / ‖d‖; returns the ranges of its slopes, (..., *state).
        scales: Λ of every stage for L2, see `euler_norm`.
        eigen: whether eigenproblems are solved; without, L2 is √(L1 · L∞).
    """
    h, sizes, growths = flow.step, [], []
    total = torch.zeros((), dtype=torch.float64, device=flow.weight.device)
    for i in range(flow.tableau.stages):
        part = linear(flow, n, i)
        inner = sum((abs(a) * k * g for a, k, g in zip(flow.tableau.a[i], sizes, growths, strict=True) if a), 0 * total)
        growths.append(1 + h * inner)
        low, high = slopes(i, growths[i])
        sizes.append(slope_norm(part, low, high, norm, eigen=eigen) if flow.tableau.stages > 1 else total)
        if b := flow.tableau.b[i]:
            own = euler_norm(part, low, high, h, norm, None if scales is None else scales[i], eigen=eigen)
            total = total + b * (own + h * h * sizes[i] * inner)
    return total * (1 + 2.0**-48)


def moved_step(flow: Flow, n: int, size: Tensor, slopes: SlopesOf) -> Tensor:
    """Return how far step n takes states apart, componentwise and at least, (..., *state), as in `step_constant`.

    It is the best L∞ norm with weights that change from step to step: |d⁺| ≤ sup |I + h J| |d|.

    Args:
        flow: in float64.
        n: number of the step.
        size: |d| before the step, (..., *state).
        slopes: called with a stage's number and |d_i|, (..., *state).
    """
    h, values, total = flow.step, [], torch.zeros_like(size)
    for i in range(flow.tableau.stages):
        part = linear(flow, n, i)
        inner = torch.zeros_like(size)
        for a, value in zip(flow.tableau.a[i], values, strict=True):
            inner = inner + h * abs(a) * value
        low, high = slopes(i, size + inner)
        most = torch.maximum(low.abs(), high.abs()) * (1 + part.slack)
        values.append(most * (part.rows(size + inner) + part.diagonal.abs() * (size + inner)))
        if b := flow.tableau.b[i]:
            total = total + b * moved(part, size, low, high, h)
            if i:
                total = total + h * b * most * (part.rows(inner) + part.diagonal.abs() * inner)
    return total * (1 + 2.0**-48)


def slope_norm(part: Linear, low: Tensor, high: Tensor, norm: str, *, eigen: bool = True) -> Tensor:
    """Return sup ‖diag(s) K‖ over low ≤ s ≤ high, (...): the largest slopes attain it."""
    most = torch.maximum(low.abs(), high.abs())
    rows = (part.rows(torch.ones_like(most)) + part.diagonal.abs()) * most
    columns = part.columns(most) + most * part.diagonal.abs()
    rows, columns = (v.flatten(-part.operator.dims).amax(-1) * (1 + part.slack) for v in (rows, columns))
    if check_norm(norm) == "linf":
        return rows
    if norm == "l1":
        return columns
    both = (rows * columns).sqrt() * (1 + 2.0**-50)
    if not part.dense or not eigen:
        return both
    zero = torch.zeros_like(most)
    square = largest(Form(own=zero, cross=zero, square=most.square()), part.weight)
    return torch.minimum(both, square.clamp(min=0).sqrt() * (1 + 2.0**-50))


def euler_norm(
    part: Linear, low: Tensor, high: Tensor, h: float, norm: str, scales: Tensor | None = None, *, eigen: bool = True
) -> Tensor:
    """Return an upper bound of ‖I + h diag(s) K‖ over all s with low ≤ s ≤ high, (...).

    L∞ and L1 are exact up to rounding. For L2, ‖(I + h diag(s) K) x‖² ≤ Σ_i (1 + h r_i λ_i) (x_i + h c_i (K x)_i)² +
    (h r_i / λ_i + h² r_i²) (K x)_i² with centres c, radii r and any Λ > 0; ‖I + h C K‖ + h ‖R K‖ and √(L1 · L∞) are
    taken where they are less.

    Args:
        part: K.
        low, high: (..., *state), the ranges of the slopes.
        h: factor of K.
        norm: "l1", "l2" or "linf".
        scales: Λ, (n,) or (..., n), and no other bound is tried but √(L1 · L∞); None optimises it where there is one
            box.
        eigen: whether eigenproblems are solved; without, L2 is √(L1 · L∞).
    """
    if check_norm(norm) == "linf":
        return euler_rows(part, low, high, h)
    if norm == "l1":
        return euler_columns(part, low, high, h)
    both = (euler_rows(part, low, high, h) * euler_columns(part, low, high, h)).sqrt() * (1 + 2.0**-50)
    if not part.dense or not eigen:
        return both
    return torch.minimum(both, euclidean_euler_norm(part.weight, low, high, h, scales))


def euler_rows(part: Linear, low: Tensor, high: Tensor, h: float) -> Tensor:
    """Return max_i sup_s |1 + h s_i K_ii| + h |s_i| Σ_{j≠i} |K_ij|, (...)."""
    return moved(part, torch.ones_like(low), low, high, h).flatten(-part.operator.dims).amax(-1)


def moved(part: Linear, size: Tensor, low: Tensor, high: Tensor, h: float) -> Tensor:
    """Return sup |I + h diag(s) K| v for v ≥ 0, componentwise and at least, (..., *state)."""
    beside = part.rows(size)
    ends = ((1 + h * s * part.diagonal).abs() * size + h * s.abs() * beside for s in (low, high))
    return torch.maximum(*ends) * (1 + part.slack) + part.slack * size


def euler_columns(part: Linear, low: Tensor, high: Tensor, h: float) -> Tensor:
    """Return max_j sup_s |1 + h s_j K_jj| + h Σ_{i≠j} |s_i K_ij|, (...)."""
    most = torch.maximum(low.abs(), high.abs())
    own = torch.maximum(*((1 + h * s * part.diagonal).abs() for s in (low, high)))
    sums = (own + h * part.columns(most)) * (1 + part.slack) + part.slack
    return sums.flatten(-part.operator.dims).amax(-1)


def euclidean_euler_norm(weight: Tensor, low: Tensor, high: Tensor, h: float, scales: Tensor | None = None) -> Tensor:
    """Return the L2 bound of `euler_norm` for a matrix W, (n, n), and boxes (..., n)."""
    centre, radius = (low + high) / 2, (high - low) / 2 + 2.0**-52 * (low.abs() + high.abs())
    eye = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    moving = eye + h * centre[..., None] * weight
    if scales is None and low.dim() == 1:
        young = best_scales(weight, lambda lam: euler_form(centre, radius, h, lam), moving)[0]
    else:
        lam = torch.linalg.vector_norm(weight, dim=-1).clamp(min=1e-300) if scales is None else scales
        young = largest(euler_form(centre, radius, h, lam), weight)
    root = young.clamp(min=0).sqrt() * (1 + 2.0**-50)
    if scales is not None:
        return root
    return torch.minimum(root, spectral_norm(moving) + h * spectral_norm(radius[..., None] * weight))


def euler_form(centre: Tensor, radius: Tensor, h: float, scales: Tensor) -> Form:
    """Return the form that bounds ‖(I + h diag(s) W) x‖² for all slopes within `radius` of `centre`."""
    reach = h * radius
    stretch = 1 + reach * scales
    return Form(
        own=stretch,
        cross=h * centre * stretch,
        square=(h * centre).square() * stretch + reach / scales + reach.square(),
    )
