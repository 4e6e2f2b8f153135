"""Adaptive solvers as the deployed forward pass: which there are, their tolerances, and what a solve returns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustode.errors import MissingDependency, ModelError, unknown
from robustode.solvers.field import Field
from robustode.solvers.tableau import TABLEAUX

BACKENDS: dict[str, tuple[str, ...]] = {
    "torchode": ("dopri5", "tsit5", "heun"),
    "torchdiffeq": ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"),
}
ADAPTIVE = tuple(dict.fromkeys(method for methods in BACKENDS.values() for method in methods))
DEFAULT_BACKEND, DEFAULT_TOLERANCE = "torchode", 1e-5
MAX_STEPS = 5_000  # between two knots, rejected ones included


@dataclass(frozen=True)
class Solution:
    """What a solve returns.

    Attributes:
        state: x(T), (batch, features); NaN for samples whose solution is not finite.
        nfe: (batch,) int64 on the CPU, evaluations of the right-hand side: those that the sample itself needed
            (torchode), or those of the whole batch, the same for every sample (torchdiffeq).
    """

    state: Tensor
    nfe: Tensor


@dataclass(frozen=True, kw_only=True)
class AdaptiveSolver:
    """x' = σ(W(t) x + b(t)) from 0 to T by an embedded Runge–Kutta method with step control.

    A step is accepted if its estimated error, componentwise over atol + rtol · max(|x|, |x⁺|), has a root mean square
    below 1. torchode takes the mean over the features of each sample, which then has steps of its own and does not
    depend on its batch-mates; torchdiffeq takes it over the whole batch, so that it does.

    Steps end at the knots, between which θ is smooth: the error estimate does not see a kink inside a step (on the
    bundled digits sNODE a dopri5 that steps over its 10 knots is, for as many evaluations, 10 to 300 times less
    accurate). A solve therefore takes at least knots + 1 steps.

    Gradients are those of the discrete solve (discretise, then optimise), with the step sizes held fixed: they are
    within the order of the tolerances of the exact flow's.

    Args:
        method: of `BACKENDS[backend]`.
        rtol, atol: relative and absolute tolerance, > 0; the latter in units of the encoded state.
        backend: "torchode" or "torchdiffeq".

    Raises:
        ModelError: a value out of its range, or a method that the backend lacks.

    Source: Hairer, Nørsett, Wanner, Solving Ordinary Differential Equations I, II.4.
    """

    method: str = "dopri5"
    rtol: float = DEFAULT_TOLERANCE
    atol: float = DEFAULT_TOLERANCE
    backend: str = DEFAULT_BACKEND

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise unknown("backend", self.backend, BACKENDS, ModelError)
        if self.method not in ADAPTIVE:
            raise unknown("adaptive solver", self.method, BACKENDS[self.backend], ModelError)
        if self.method not in BACKENDS[self.backend]:
            has = next(name for name, methods in BACKENDS.items() if self.method in methods)
            note = " (there a sample's steps depend on its batch)" if has == "torchdiffeq" else ""
            expected, fix = f"one of {', '.join(BACKENDS[self.backend])}", f"The backend '{has}' has it{note}."
            raise ModelError(f"method of {self.backend}", expected=expected, got=f"'{self.method}'", fix=fix)
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ModelError(name, expected="a finite number > 0", got=value)

    def solve(self, field: Field, x: Tensor) -> Solution:
        """Return x(T) for x(0) of shape (batch, features), with a graph where gradients are on.

        Raises:
            MissingDependency: the backend is not installed.
            SolverError: more than `MAX_STEPS` steps, or a step below the resolution of depth.
        """
        if len(x) == 0:
            return Solution(x.clone(), torch.zeros(0, dtype=torch.int64))
        if self.backend == "torchdiffeq":
            from robustode.solvers import torchdiffeq_backend as backend
        else:
            try:
                from robustode.solvers import torchode_backend as backend
            except ModuleNotFoundError:
                raise MissingDependency("torchode", "torchode") from None
        return backend.solve(self, field, x)

    def __str__(self) -> str:
        return f"{self.method} ({self.backend}), rtol {self.rtol:g}, atol {self.atol:g}"


def chosen_solver(
    method: str, rtol: float | None = None, atol: float | None = None, backend: str | None = None
) -> AdaptiveSolver | None:
    """Return the adaptive solver that a configuration names, with defaults for what it leaves out; None for a
    fixed-step method.

    Raises:
        ModelError: an unknown method, a value out of its range, or one that a fixed-step method does not have.
    """
    given = {k: v for k, v in {"rtol": rtol, "atol": atol, "backend": backend}.items() if v is not None}
    if method in TABLEAUX:
        if given:
            fix = f"Leave it out, or choose an adaptive method: {', '.join(ADAPTIVE)}."
            raise ModelError(f"{' and '.join(given)} of the fixed-step method '{method}'", expected="none", fix=fix)
        return None
    if method not in ADAPTIVE:
        raise unknown("solver", method, {*TABLEAUX, *ADAPTIVE}, ModelError)
    return AdaptiveSolver(method=method, **given)


def changed_solver(
    config: Any,
    *,
    method: str | None,
    steps: int | None,
    rtol: float | None,
    atol: float | None,
    backend: str | None,
) -> dict[str, Any]:
    """Return the fields of a configuration under another solver: method, steps, rtol, atol and backend.

    Args:
        config: an object with these five attributes; what is None here keeps its value where the method has it.
        method, steps, rtol, atol, backend: as in `SNODE.with_solver`.

    Raises:
        ModelError: an unknown method, a value out of its range, or one that the method does not have.
    """
    name = method or config.method
    kept = config if name in ADAPTIVE and config.method in ADAPTIVE else None
    given = {"rtol": rtol, "atol": atol, "backend": backend}
    if kept is not None:
        given = {key: getattr(kept, key) if value is None else value for key, value in given.items()}
    solver = chosen_solver(name, **given)
    if steps is not None and solver is not None:
        fix = f"Leave it out, or choose a fixed-step method: {', '.join(TABLEAUX)}."
        raise ModelError(f"steps of the adaptive method '{name}'", expected="none", got=steps, fix=fix)
    if steps is not None and steps < 1:
        raise ModelError("steps", expected="at least 1 step", got=steps)
    own = {key: None if solver is None else getattr(solver, key) for key in given}
    return {"method": name, "steps": config.steps if steps is None else int(steps), **own}
