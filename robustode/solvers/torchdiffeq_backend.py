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

    # The last step ends at T: torchdiffeq would step beyond it and interpolate, by a quartic whose error it does not
    # control.
    ends = torch.tensor([end for _, end in field.segments], device=x.device)
    options = {"max_num_steps": adaptive.MAX_STEPS, "step_t": ends}
    try:
        state = integrate(rhs, x, field.horizon, solver, options)
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


def integrate(
    rhs: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    horizon: float,
    solver: AdaptiveSolver,
    options: Mapping[str, Any],
) -> Tensor:
    """Return x(T) by `torchdiffeq.odeint` with its `options`.

    Raises:
        SolverError: an option that torchdiffeq does not know, of which it would only warn.
    """
    depth_type = torch.float32 if x.device.type == "mps" else torch.float64
    depths = torch.tensor([0.0, horizon], dtype=depth_type, device=x.device)
    settings = {"dtype": depth_type, **options}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*Unexpected arguments")
        try:
            path: Any = odeint(
                rhs, x, depths, rtol=solver.rtol, atol=solver.atol, method=solver.method, options=settings
            )
        except UserWarning as warning:
            raise SolverError("options of torchdiffeq", expected="options that it knows", got=str(warning)) from None
    return path[-1]
