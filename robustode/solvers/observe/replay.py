"""The same model with its solves done otherwise: tighter, on a frozen grid, or with another gradient."""

from __future__ import annotations

import copy
import importlib
import inspect
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustode.errors import OptionError, unknown
from robustode.solvers.observe.hooks import (
    adjoint_forward,
    fixed_step,
    installed,
    original,
    torchdiffeq_table,
    torchode_solve,
)
from robustode.solvers.observe.torchode_replay import frozen_steps, tighter

GRADIENTS = ("as deployed", "discrete", "continuous")
FIXED = ("euler", "midpoint", "rk4")
MOST = 10_000  # steps of a tightened solve, whatever the model allows itself
_KEPT = ("norm", "dtype", "step_t", "jump_t")  # options of an adaptive solver that another adaptive one takes, too


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How solves are done instead.

    Attributes:
        method: of torchdiffeq; None for the model's own. torchode keeps its own method, on the fixed grid if `steps`.
        tolerance: rtol = atol of adaptive solves, > 0; None for the model's own.
        steps: steps of a fixed grid between two output depths, ≥ 1; needs a fixed-step `method`.
        refine: factor, 2 or 1/2, by which the grid of fixed-step solves is refined.
        gradient: "as deployed", "discrete" (through the steps) or "continuous" (the adjoint equation).

    Raises:
        OptionError: a value out of its range.
    """

    method: str | None = None
    tolerance: float | None = None
    steps: int | None = None
    refine: float | None = None
    gradient: str = "as deployed"

    def __post_init__(self) -> None:
        if self.gradient not in GRADIENTS:
            raise unknown("gradient of a replay", self.gradient, GRADIENTS, OptionError)
        if self.tolerance is not None and not 0 < self.tolerance < math.inf:
            raise OptionError("tolerance of a replay", expected="a number > 0", got=self.tolerance)
        if self.steps is not None and (self.steps < 1 or self.method not in FIXED):
            got = f"{self.steps} steps of {self.method}"
            raise OptionError("steps of a replay", expected=f"steps ≥ 1 of {', '.join(FIXED)}", got=got)
        if self.refine not in (None, 2, 0.5):
            raise OptionError("refine", expected="2 or 0.5", got=self.refine)


@contextmanager
def replaying(how: Replay) -> Iterator[None]:
    """Do every solve inside the block as `how` says; both libraries are as they were after it."""
    with ExitStack() as stack:
        if installed("torchdiffeq"):
            table = dict(importlib.import_module("torchdiffeq._impl.odeint").SOLVERS)
            stack.enter_context(torchdiffeq_table(lambda name, make: _Maker(name, make, how, table)))
            if how.gradient == "discrete":
                stack.enter_context(adjoint_forward(_through_the_steps))
        if installed("torchode"):
            if (tolerance := how.tolerance) is not None:
                stack.enter_context(torchode_solve(lambda solve: tighter(solve, tolerance)))
            if (steps := how.steps) is not None:
                stack.enter_context(torchode_solve(lambda solve: frozen_steps(solve, steps)))
        yield


class _Maker:
    """Makes another solver than the one asked for."""

    def __init__(self, name: str, make: Any, how: Replay, table: dict[str, Any]) -> None:
        self._name, self._how = name, how
        self._make = table[how.method] if how.method else make
        self.name = how.method or getattr(make, "name", name)
        self.original = original(self._make)
        self._was_fixed = fixed_step(make)
        self.valid_callbacks = make.valid_callbacks

    def __call__(self, func: Any, y0: Any, **options: Any) -> Any:
        how = self._how
        if how.tolerance is not None:
            options |= {"rtol": how.tolerance, "atol": how.tolerance}
            if how.method is None and "max_num_steps" in inspect.signature(self.original.__init__).parameters:
                options["max_num_steps"] = MOST
        if how.method and not self._was_fixed:
            own = {key: value for key, value in options.items() if key in (*_KEPT, "rtol", "atol")}
            options = own if how.steps is None else _fixed_options(own, how.steps)
        elif how.method:
            options = {key: options[key] for key in ("rtol", "atol", "norm") if key in options}
            options = options if how.steps is None else _fixed_options(options, how.steps)
        solver = self._make(func=func, y0=y0, **options)
        if how.refine is not None and hasattr(solver, "grid_constructor"):
            solver.grid_constructor = _refined(solver.grid_constructor, how.refine)
        if how.gradient == "continuous" and torch.is_grad_enabled():
            return _Continuous(solver, func, y0, how.method or self._name, options)
        return solver


def _fixed_options(options: dict[str, Any], steps: int) -> dict[str, Any]:
    """Options of a fixed-step solver whose grid also has the depths at which an adaptive one had to stop."""
    stops = options.get("step_t")

    def grid(func: Any, y0: Any, t: Tensor) -> Tensor:
        share = torch.linspace(0, 1, steps + 1, dtype=t.dtype, device=t.device)[:-1]
        inner = t[:-1, None] + share * (t[1:] - t[:-1])[:, None]
        nodes = torch.cat([inner.reshape(-1), t[-1:]])
        if stops is not None:
            lo, hi = sorted((float(t[0]), float(t[-1])))
            extra = stops.to(t)[(stops > lo) & (stops < hi)]
            nodes = torch.unique(torch.cat([nodes, extra]))
            nodes = nodes if t[-1] > t[0] else nodes.flip(0)
        return nodes

    return {"atol": options.get("atol"), "rtol": options.get("rtol"), "grid_constructor": grid}


def _refined(grid: Any, factor: float) -> Any:
    def refined(func: Any, y0: Any, t: Tensor) -> Tensor:
        nodes = grid(func, y0, t)
        if factor < 1:
            return torch.cat([nodes[:-1:2], nodes[-1:]])
        middles = (nodes[1:] + nodes[:-1]) / 2
        return torch.cat([torch.stack([nodes[:-1], middles], 1).reshape(-1), nodes[-1:]])

    return refined


class _Continuous:
    """A solver whose gradient with respect to the initial state is that of the adjoint equation."""

    def __init__(self, solver: Any, func: Any, y0: Any, method: str, options: dict[str, Any]) -> None:
        self._solver, self._func, self._y0, self._method, self._options = solver, func, y0, method, options

    def integrate_until_event(self, t0: Tensor, event_fn: Any) -> Any:
        return self._solver.integrate_until_event(t0, event_fn)  # torchdiffeq has its own rule for the depth

    def integrate(self, t: Tensor) -> Tensor:
        module: Any = importlib.import_module("torchdiffeq._impl.adjoint")
        rtol, atol = self._options.get("rtol"), self._options.get("atol")
        forward = {key: value for key, value in self._options.items() if key not in ("rtol", "atol")}
        backward: dict[str, Any] = {}
        module.handle_adjoint_norm_(backward, None, _rms)
        return module.OdeintAdjointMethod.apply(
            None, self._func, self._y0, t, rtol, atol, self._method, forward, None, rtol, atol, self._method, backward,
            False,
        )  # fmt: skip


def _rms(x: Tensor) -> Tensor:
    return x.abs().pow(2).mean().sqrt()


def _through_the_steps(apply: Any) -> Any:
    """The forward solve of `odeint_adjoint` done by `odeint`, whose gradient goes through the steps."""

    def plain(*args: Any) -> Any:
        _, func, y0, t, rtol, atol, method, options, event_fn = args[:9]
        odeint: Any = importlib.import_module("torchdiffeq._impl.odeint").odeint
        return odeint(func, y0, t, rtol=rtol, atol=atol, method=method, options=options, event_fn=event_fn)

    return plain


class Replayed(nn.Module):
    """A classifier whose solves are done as `how` says, in float64 where the module converts.

    Args:
        model: any classifier; it is not changed.
        how: the replay.
        double: convert a copy to float64; the logits come back in the dtype of the input.
    """

    def __init__(self, model: Any, how: Replay, *, double: bool = False) -> None:
        super().__init__()
        self.bounds, self.classes, self.input_shape = model.bounds, model.classes, model.input_shape
        self.how, self.double_precision = how, double
        self._inner: Any = copy.deepcopy(model).double().eval() if double else model

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        with replaying(self.how):
            return self._inner(x.double() if self.double_precision else x).to(x.dtype)


class DeployedForward(nn.Module):
    """The deployed classifier's logits with the gradient of another version of it, that nothing hides.

    Args:
        model: whose logits are returned.
        fine: whose gradient is.
    """

    def __init__(self, model: Any, fine: nn.Module) -> None:
        super().__init__()
        self.bounds, self.classes, self.input_shape = model.bounds, model.classes, model.input_shape
        self._model, self._fine = model, fine

    def forward(self, x: Tensor) -> Tensor:
        """Return z_deployed, with ∂z_fine/∂x as its derivative."""
        with torch.no_grad():
            deployed = self._model(x)
        if not torch.is_grad_enabled():
            return deployed
        fine = self._fine(x)
        return fine + (deployed - fine).detach()
