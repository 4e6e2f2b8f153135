"""torchode: every sample of a batch with steps of its own, from knot to knot."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torchode
from torch import Tensor

from robustode.errors import SolverError
from robustode.solvers import adaptive
from robustode.solvers.adaptive import AdaptiveSolver, Solution
from robustode.solvers.field import Field
from robustode.solvers.tape import ROWS

METHODS: dict[str, Any] = {"dopri5": torchode.Dopri5, "tsit5": torchode.Tsit5, "heun": torchode.Heun}
REACHED_MAX_STEPS, INFINITE_NORM = torchode.Status.REACHED_MAX_STEPS.value, torchode.Status.INFINITE_NORM.value
FIRST_STEP = 2  # evaluations that choose it


class _OwnController(torchode.IntegralController):
    """Step control in which a sample that is not finite ends its own solve, where torchode would end everybody's.

    Attributes:
        broken: (batch,) bool, samples whose error estimate was not finite.
    """

    broken: Tensor

    def adapt_step_size(self, t0: Any, dt: Any, y0: Any, step_result: Any, state: Any, stats: Any) -> Any:
        accept, following, state, status = super().adapt_step_size(t0, dt, y0, step_result, state, stats)
        now = status == INFINITE_NORM
        self.broken = self.broken | now
        # Accepted, and on to T in one step: torchode cuts it to what is left.
        return accept | now, torch.where(now, torch.inf, following), state, None


def solve(solver: AdaptiveSolver, field: Field, x: Tensor) -> Solution:
    """Return x(T) and the evaluations of each sample; see `AdaptiveSolver.solve`.

    The batch is filled up to a multiple of `ROWS` with copies of its first sample, which take the same steps: then
    rounding hardly depends on the size of the batch. A sample that has arrived at a knot waits for the others and is
    evaluated with them; that is not counted, so the count is what it would be alone.
    """
    batch = len(x)
    state = torch.cat([x, x[:1].expand(-batch % ROWS, -1)])
    walk = _Walk(solver, field, state)
    for segment in range(len(field.segments)):
        state = walk.advance(segment, state, batch)
    return Solution(torch.where(walk.broken[:, None], torch.nan, state)[:batch], walk.nfe[:batch].cpu())


class _Walk:
    """The solves from knot to knot of one batch: first steps, evaluations and samples that are not finite."""

    def __init__(self, solver: AdaptiveSolver, field: Field, x: Tensor) -> None:
        self._solver, self._field = solver, field
        self._depth_type = torch.float32 if x.device.type == "mps" else torch.float64
        self._step: Any = None
        self.nfe = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def advance(self, segment: int, x: Tensor, batch: int) -> Tensor:
        """Return the state at the end of a segment, whose first step is twice as long as those of the one before, or
        as long where that one rejected some."""
        lo, hi = self._field.segments[segment]
        term: Any = torchode.ODETerm(partial(self._field.each, segment), with_stats=False)  # type: ignore[arg-type]
        method = METHODS[self._solver.method](term)
        controller: Any = _OwnController(self._solver.atol, self._solver.rtol, term=term).to(x.device)
        controller.broken = self.broken
        loop = torchode.AutoDiffAdjoint(
            method, controller, max_steps=adaptive.MAX_STEPS, backprop_through_step_size_control=False
        )
        start = torch.full((len(x),), lo, dtype=self._depth_type, device=x.device)
        problem = torchode.InitialValueProblem(x, start, torch.full_like(start, hi))  # type: ignore[arg-type]
        found: Any = loop.solve(problem, dt0=self._step)
        late = int((found.status[:batch] == REACHED_MAX_STEPS).sum())
        if late:
            raise SolverError(
                f"{self._solver} of {late} of {batch} samples",
                expected=f"at most {adaptive.MAX_STEPS} steps between two knots",
                got="more",
                fix="Loosen the tolerances, choose a method of higher order, or use float64.",
            )
        fsal = bool(method.tableau.fsal)
        first = FIRST_STEP if self._step is None else int(fsal)
        self.nfe += first + (method.tableau.n_stages - int(fsal)) * found.stats["n_steps"]
        accepted = found.stats["n_accepted"].clamp(min=1)
        growth = 1 + (found.stats["n_steps"] == accepted).to(self._depth_type)
        self._step = growth * (hi - lo) / accepted
        self.broken = controller.broken
        return found.ys[:, -1]
