"""The linearised problem inside the box, solved exactly, batched, for the L2, L∞ and L1 norms: the smallest step to the
linearised boundary, and the step within a budget that goes furthest beyond it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.attacks.norms import check_norm


@dataclass(frozen=True)
class Projection:
    """The smallest step of each row to its half-space inside the box.

    Attributes:
        delta: (rows, d), the step; where the half-space misses the box, the step to the point of the box nearest to it.
        feasible: (rows,) bool, whether the half-space meets the box.
    """

    delta: Tensor
    feasible: Tensor


def project(normal: Tensor, offset: Tensor, x: Tensor, bounds: tuple[float, float], norm: str) -> Projection:
    """Solve min ‖δ‖ subject to ⟨w, δ⟩ ≥ c and lo ≤ x + δ ≤ hi for every row.

    With room u_i = hi − x_i or x_i − lo in the direction of w_i, the solutions are δ_i = sign(w_i) min(ν |w_i|, u_i)
    for L2, δ_i = sign(w_i) min(ν, u_i) for L∞, and the largest |w_i| first for L1. In each case ⟨w, δ⟩ is a piecewise
    linear nondecreasing function of one number, whose root is found exactly by sorting its breakpoints.

    Args:
        normal: w, (rows, d).
        offset: c, (rows,); rows with c ≤ 0 get δ = 0.
        x: (rows, d), inside the bounds.
        bounds: (lo, hi).
        norm: "l2", "linf" or "l1".
    """
    lo, hi = bounds
    scale = normal.abs().amax(1, keepdim=True).nan_to_num(nan=0.0)  # squares of tiny normals would underflow
    scale = torch.where((scale > 0) & torch.isfinite(scale), scale, torch.ones_like(scale))
    normal, offset = normal / scale, offset / scale.squeeze(1)
    size, sign = normal.abs(), normal.sign()
    room = torch.where(normal > 0, hi - x, x - lo).clamp_min(0)
    cap = size * room  # the most that coordinate i can add to ⟨w, δ⟩
    reach = cap.sum(1)
    feasible = (reach >= offset) & torch.isfinite(offset) & torch.isfinite(reach)
    need = torch.minimum(offset.nan_to_num(nan=0.0).clamp_min(0), reach)
    if check_norm(norm) == "l1":
        step = _largest_first(size, cap, room, need)
    else:
        slope = size.square() if norm == "l2" else size
        level = _fill(slope, cap, need)[:, None]
        step = torch.minimum(level * size if norm == "l2" else level.expand_as(room), room)
        step = torch.where(size > 0, step, torch.zeros_like(step))
    return Projection(sign * step, feasible)


def furthest(normal: Tensor, eps: float | Tensor, x: Tensor, bounds: tuple[float, float], norm: str) -> Tensor:
    """Solve max ⟨w, δ⟩ subject to ‖δ‖ ≤ ε and lo ≤ x + δ ≤ hi for every row; δ_i = 0 where w_i = 0.

    The solutions lie on the same path as those of `project`, which is its converse: δ_i = sign(w_i) min(ε, u_i) for L∞,
    δ_i = sign(w_i) min(ν |w_i|, u_i) with ν from ‖δ‖₂ = ε for L2, and the largest |w_i| first for L1. Where the box
    ends before the ball, δ is the step to its corner.

    Args:
        normal: w, (rows, d).
        eps: ε > 0, one or (rows,).
        x: (rows, d), inside the bounds.
        bounds: (lo, hi).
        norm: "l2", "linf" or "l1".

    Returns:
        δ, (rows, d).
    """
    lo, hi = bounds
    scale = normal.abs().amax(1, keepdim=True).clamp_min(torch.finfo(normal.dtype).tiny)
    size, sign = (normal / scale).abs(), normal.sign()
    room = torch.where(normal > 0, hi - x, x - lo).clamp_min(0)
    room = torch.where(size > 0, room, torch.zeros_like(room))
    radius = torch.as_tensor(eps, dtype=room.dtype, device=room.device).expand(len(room))[:, None]
    if check_norm(norm) == "linf":
        step = torch.minimum(room, radius)
    elif norm == "l2":
        cap = room.square()
        level = _fill(size.square(), cap, torch.minimum(cap.sum(1), radius.square().squeeze(1)))[:, None]
        step = torch.minimum(level.sqrt() * size, room)
    else:
        order = size.argsort(1, descending=True)
        ordered = room.gather(1, order)
        left = (radius - (ordered.cumsum(1) - ordered)).clamp_min(0)
        step = torch.zeros_like(room).scatter(1, order, torch.minimum(left, ordered))
    return sign * step


def _fill(slope: Tensor, cap: Tensor, need: Tensor) -> Tensor:
    """Return the smallest ν ≥ 0 with Σ_i min(ν slope_i, cap_i) = need, for 0 ≤ need ≤ Σ cap; shape (rows,)."""
    breakpoint = torch.where(slope > 0, cap / slope.clamp_min(torch.finfo(slope.dtype).tiny), torch.zeros_like(cap))
    order = breakpoint.argsort(1)
    at = breakpoint.gather(1, order)
    full = cap.gather(1, order).cumsum(1)  # total of the coordinates that are full at each breakpoint
    rising = slope.gather(1, order).flip(1).cumsum(1).flip(1)  # total slope just before each breakpoint
    before = torch.cat([torch.zeros_like(full[:, :1]), full[:, :-1]], 1)
    value = before + at * rising  # Σ min(ν slope, cap) at each breakpoint
    j = torch.searchsorted(value, need[:, None]).clamp_max(value.shape[1] - 1)
    rate = rising.gather(1, j)
    level = (need[:, None] - before.gather(1, j)) / rate.clamp_min(torch.finfo(slope.dtype).tiny)
    return torch.where(rate > 0, level, at.gather(1, j)).clamp_min(0).squeeze(1)


def _largest_first(size: Tensor, cap: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """Return the L1 step: coordinates in order of |w_i|, each filled to its room until `need` is met."""
    order = size.argsort(1, descending=True)
    ordered = cap.gather(1, order)
    left = (need[:, None] - (ordered.cumsum(1) - ordered)).clamp_min(0)
    largest = size.gather(1, order).clamp_min(torch.finfo(size.dtype).tiny)
    step = torch.minimum(left / largest, room.gather(1, order))
    step = torch.where(size.gather(1, order) > 0, step, torch.zeros_like(step))
    return torch.zeros_like(step).scatter(1, order, step)
