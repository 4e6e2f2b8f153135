"""The walk along a decision boundary to the point of it that is nearest to the clean input."""

from __future__ import annotations

import torch
from torch import Tensor

from robustode.attacks.norms import per_sample, steepest
from robustode.attacks.search import Plane, Search

FIRST_SHARE = 0.7  # of the tangential step, before curvature is known
SHARES = (0.05, 2.0)  # least and largest
MEMORY = {"l2": 0.0, "linf": 0.8, "l1": 0.8}  # share of the past in the normal of the boundary
KINKED = 0.8  # the same in a targeted search, whose nearest points lie where several classes tie
LONGEST = 0.3  # longest tangential step, as a share of ‖x − x₀‖₂ (L2 and L1; L∞ steps go from corner to corner)
ARRIVED = 3e-3  # a tangential residual below this share of ‖x − x₀‖₂ is an arrival


class Walk:
    """Points of the rows of a search on their way along the boundary.

    At a point x the linear model gives two steps: n = −(g + tol) G / ‖G‖², which leads back to the boundary, and t =
    p − x − n, which leads along it to p, the clean input's projection. The walk goes x ← x + n + α t. The share α is
    that of Barzilai and Borwein: with s = α₋ t₋ the last tangential step and r = t₋ − t the change of the residual,
    α = ⟨s, s⟩ / ⟨s, r⟩ and ⟨s, r⟩ / ⟨r, r⟩ in turn, so that the curvature of the boundary is felt without a further
    pass. A fixed point, t = 0 and g = −tol, is a KKT point of the minimal-norm problem.

    Attributes:
        x: (rows, *input_shape).
        reach: (rows,) float64, distance from the clean input to the boundary as seen last: ‖x + n − x₀‖.
        kkt: (rows,) float64, 1 − ‖p − x₀‖ / ‖x + n − x₀‖ at the last linearisation.
        done: (rows,) bool, arrived.

    Source: Barzilai and Borwein 1988, IMA J. Numer. Anal. 8, 141 (step length).
    """

    def __init__(self, search: Search, x: Tensor, reach: Tensor) -> None:
        rows = len(x)
        self.search, self.x, self.reach = search, x, reach
        self.kkt = torch.full_like(reach, torch.inf)
        self.done = torch.zeros(rows, dtype=torch.bool, device=x.device)
        self._residual, self._step, self._mean = (torch.zeros_like(x) for _ in range(3))
        self._share = torch.full((rows,), FIRST_SHARE, dtype=x.dtype, device=x.device)
        self._count = torch.zeros(rows, dtype=torch.int64, device=x.device)

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but some; nothing is walked after that."""
        self.x, self.reach, self.kkt, self.done = self.x[rows], self.reach[rows], self.kkt[rows], self.done[rows]

    def advance(self, rows: Tensor, steps: int) -> None:
        """Take steps with those of the rows that have not arrived; one forward and one reverse row each."""
        for _ in range(steps):
            rows = rows[~self.done[rows]]
            if len(rows) == 0:
                return
            self._advance(rows, self.search.plane(rows, self.x[rows]))

    def _advance(self, rows: Tensor, plane: Plane) -> None:
        search, x = self.search, self.x[rows]
        length, plane = plane.length, self._steadied(rows, x, plane)
        lo, hi = search.model.bounds
        tiny = torch.finfo(x.dtype).tiny
        unit = steepest(plane.gradient, "l2")
        slope = (unit * plane.gradient).flatten(1).sum(1)  # ‖G‖₂
        back = -per_sample((plane.value + plane.tolerance) / slope.clamp_min(tiny), x) * unit
        back = back.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        residual = plane.point - x - back
        size = (x - search.x0[rows]).flatten(1).norm(dim=1).clamp_min(tiny)
        relative = residual.flatten(1).norm(dim=1) / size
        share = self._share_of(rows, residual)
        if search.norm != "linf":
            share = torch.minimum(share, LONGEST / relative.clamp_min(1e-12))
        step = per_sample(share, x) * residual
        self._share[rows], self._residual[rows], self._step[rows] = share, residual, step
        self._count[rows] += 1
        self.x[rows] = (x + back + step).clamp(lo, hi)
        reach = search.distance(rows, (x + back).clamp(lo, hi))
        self.reach[rows] = torch.where(slope > 0, reach, torch.inf)  # a flat point says nothing of a boundary
        self.kkt[rows] = (1 - length / self.reach[rows].clamp_min(1e-300)).clamp_min(0)
        near = plane.value.abs() <= 5 * plane.tolerance + 2e-3 * size * slope
        self.done[rows] = (relative < ARRIVED) & near & (slope > 0)

    def _steadied(self, rows: Tensor, x: Tensor, plane: Plane) -> Plane:
        """Return the plane with a running mean of the rows' unit gradients for its normal.

        The L∞ and L1 projections hang on signs and on the largest coordinates alone, which jump from point to point
        where the network is piecewise linear; the mean settles there, and at a kink it is the convex combination of
        gradients that optimality asks for.
        """
        memory = MEMORY[self.search.norm] if self.search.target is None else KINKED
        if memory == 0:
            return plane
        unit = steepest(plane.gradient, "l2")
        size = (unit * plane.gradient).flatten(1).sum(1)
        past = per_sample(memory * (self._count[rows] > 0).to(x), x)
        self._mean[rows] = past * self._mean[rows] + (1 - past) * unit
        return self.search.project(rows, x, plane.value, per_sample(size, x) * self._mean[rows], plane.tolerance)

    def _share_of(self, rows: Tensor, residual: Tensor) -> Tensor:
        step = self._step[rows].flatten(1)
        change = (self._residual[rows] - residual).flatten(1)
        along = (step * change).sum(1)
        tiny = torch.finfo(residual.dtype).tiny
        odd = self._count[rows] % 2 == 1
        long, short = step.square().sum(1) / along.clamp_min(tiny), along / change.square().sum(1).clamp_min(tiny)
        share = torch.where(along > 0, torch.where(odd, long, short), 1.5 * self._share[rows])
        return torch.where(self._count[rows] > 0, share, self._share[rows]).clamp(*SHARES)
