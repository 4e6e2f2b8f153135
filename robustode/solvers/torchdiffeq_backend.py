"""torchdiffeq's adaptive methods: one step size for the whole batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torchdiffeq import odeint

from robustode.errors import SolverError
from robustode.solvers import adaptive
from robustode.solvers.adaptive import AdaptiveSolver, Solution
from robustode.solvers.field import Field

RightHandSide = Callable[[Tensor, Tensor], Tensor]


def solve(solver: AdaptiveSolver, field: Field, x: Tensor) -> Solution:
    """Return x(T) and the evaluations of the batch, the same for every sample; see `AdaptiveSolver.solve`.

    torchdiffeq gives up on the whole batch where one sample is not finite; that sample becomes NaN, and the others are
    solved without it.
    """
    count, last = 0, x.detach()

    def rhs(t: Tensor, state: Tensor) -> Tensor:
        nonlocal count, last
        count += 1
        value = field.shared(t, state)
        last = value.detach()
        return value

    state, first_step = x, None
    try:
        for segment in field.segments:
            state, first_step = _cross(rhs, state, segment, first_step, solver)
    except AssertionError as reason:  # torchdiffeq's way to say that it cannot go on
        finite = x.detach().isfinite().all(1)
        finite = last.isfinite().all(1) if bool(finite.all()) else finite
        if bool(finite.all()):
            fix = "Loosen the tolerances, choose a method of higher order, or use float64."
            raise SolverError(f"{solver} cannot finish: {reason}", fix=fix) from None
        state, nfe = torch.full_like(x, torch.nan), torch.full((len(x),), count)
        if bool(finite.any()):
            rest = solve(solver, field, x[finite])
            state[finite] = rest.state
            nfe[finite.cpu()] = rest.nfe
        return Solution(state, nfe)
    return Solution(state, torch.full((len(x),), count))


class _Counted:
    """A right-hand side that counts the steps that torchdiffeq accepts and rejects."""

    def __init__(self, rhs: RightHandSide) -> None:
        self._rhs, self.accepted, self.rejected = rhs, 0, 0

    def __call__(self, t: Tensor, state: Tensor) -> Tensor:
        return self._rhs(t, state)

    def callback_accept_step(self, t: Tensor, state: Tensor, step: Tensor) -> None:
        self.accepted += 1

    def callback_reject_step(self, t: Tensor, state: Tensor, step: Tensor) -> None:
        self.rejected += 1


def _cross(
    rhs: RightHandSide, x: Tensor, ends: tuple[float, float], first_step: float | None, solver: AdaptiveSolver
) -> tuple[Tensor, float]:
    """Return the state at the end of a segment and the first step of the next: twice as long as those of this one, or
    as long where this one rejected some.

    Every segment is a solve of its own, whose last step ends at its end: torchdiffeq would step beyond it and
    interpolate, by a quartic whose error it does not control. Given all knots at once as `step_t`, it takes no heed of
    those that follow one at which a step happens to end by itself.
    """
    lo, hi = ends
    counted = _Counted(rhs)
    options: dict[str, Any] = {"max_num_steps": adaptive.MAX_STEPS}
    if first_step is not None:
        options["first_step"] = first_step
    state = integrate(counted, x, ends, solver, options)
    growth = 1 if counted.rejected else 2
    return state, growth * (hi - lo) / counted.accepted


def integrate(
    rhs: RightHandSide, x: Tensor, ends: tuple[float, float], solver: AdaptiveSolver, options: Mapping[str, Any]
) -> Tensor:
    """Return the state at the later of two depths, at which the last step ends, by `torchdiffeq.odeint` with `options`.

    Raises:
        SolverError: an option that torchdiffeq does not know, of which it would only warn.
    """
    depth_type = torch.float32 if x.device.type == "mps" else torch.float64
    depths = torch.tensor(ends, dtype=depth_type, device=x.device)
    settings = {"dtype": depth_type, "step_t": depths[1:], **options}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*Unexpected arguments")
        try:
            path: Any = odeint(
                rhs, x, depths, rtol=solver.rtol, atol=solver.atol, method=solver.method, options=settings
            )
        except UserWarning as warning:
            raise SolverError("options of torchdiffeq", expected="options that it knows", got=str(warning)) from None
    return path[-1]
