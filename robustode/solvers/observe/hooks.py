"""Hooks in the places that every solve passes: torchdiffeq's table of solvers, torchode's solve.

`from torchdiffeq import odeint` binds the function early, so that replacing it would miss most callers; the table of
solvers that it looks into is the same for all of them.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from robustode.solvers.observe.solve import Observed

Listener = Callable[[Observed], None]


@contextmanager
def observing() -> Iterator[list[Observed]]:
    """Yield a list that every solve inside the block is added to, in the order in which they end.

    Both libraries are as they were after the block, whatever happens in it.
    """
    seen: list[Observed] = []
    with ExitStack() as stack:
        if installed("torchdiffeq"):
            stack.enter_context(torchdiffeq_table(lambda name, make: _watched(name, make, seen.append)))
            stack.enter_context(adjoint_forward(_flagged))
        if installed("torchode"):
            stack.enter_context(torchode_solve(lambda solve: _watched_torchode(solve, seen.append)))
        yield seen


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


@contextmanager
def torchdiffeq_table(change: Callable[[str, Any], Any]) -> Iterator[None]:
    """Replace every solver of torchdiffeq's table by `change(name, solver)` inside the block."""
    table: dict[str, Any] = importlib.import_module("torchdiffeq._impl.odeint").SOLVERS
    kept = dict(table)
    try:
        for name, make in kept.items():
            table[name] = change(name, make)
        yield
    finally:
        table.update(kept)


@contextmanager
def adjoint_forward(change: Callable[[Any], Any]) -> Iterator[None]:
    """Replace the autograd function of `odeint_adjoint` by an object whose `apply` is `change(apply)` in the block."""
    module = importlib.import_module("torchdiffeq._impl.adjoint")
    kept: Any = module.OdeintAdjointMethod

    class Changed:
        apply = staticmethod(change(kept.apply))

    try:
        module.OdeintAdjointMethod = Changed  # type: ignore[attr-defined]
        yield
    finally:
        module.OdeintAdjointMethod = kept  # type: ignore[attr-defined]


@contextmanager
def torchode_solve(change: Callable[[Any], Any]) -> Iterator[None]:
    """Replace the `solve` of torchode's adjoints by `change(solve)` inside the block."""
    library: Any = importlib.import_module("torchode")
    classes = [library.AutoDiffAdjoint, library.BacksolveAdjoint, library.JointBacksolveAdjoint]
    kept = [vars(one).get("solve") for one in classes]
    try:
        for one, solve in zip(classes, kept, strict=True):
            if solve is not None:
                one.solve = change(solve)
        yield
    finally:
        for one, solve in zip(classes, kept, strict=True):
            if solve is not None:
                one.solve = solve


def original(make: Any) -> Any:
    """Return the solver of torchdiffeq behind what a block has put in its place."""
    return getattr(make, "original", make)


def fixed_step(make: Any) -> bool:
    """Whether a solver of torchdiffeq's table steps on a grid that does not depend on the state."""
    return hasattr(original(make), "_step_func")


class Wrapped:
    """The right-hand side that a solver sees: counts, and passes the callbacks on.

    Attributes:
        func: the original, with its callbacks.
    """

    def __init__(self, func: Any, seen: Observed) -> None:
        self.func, self._seen = func, seen
        self._pending: tuple[Any, Any, Any] | None = None

    def __call__(self, *args: Any, **options: Any) -> Any:
        self._seen.evaluations += 1
        return self.func(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.func, name)

    def callback_step(self, t: Any, x: Any, h: Any) -> None:
        """A step is tried, (depth, state, length)."""
        if not self._seen.adaptive:
            self._accept(t, x, h)
        self.func.callback_step(t, x, h)

    def callback_accept_step(self, t: Any, x: Any, h: Any) -> None:
        """It is accepted."""
        self._accept(t, x, h)
        self.func.callback_accept_step(t, x, h)

    def callback_reject_step(self, t: Any, x: Any, h: Any) -> None:
        """It is rejected."""
        self._seen.rejected += 1
        self.func.callback_reject_step(t, x, h)

    def _accept(self, t: Any, x: Any, h: Any) -> None:
        self._seen.accepted += 1
        self._seen.steps.append(tuple(torch.as_tensor(value).detach().clone() for value in (t, x, h)))  # type: ignore[arg-type]


_IN_ADJOINT = [False]


def _flagged(apply: Any) -> Any:
    def flagged(*args: Any) -> Any:
        _IN_ADJOINT[0] = True
        try:
            return apply(*args)
        finally:
            _IN_ADJOINT[0] = False

    return flagged


def _watched(name: str, make: Any, tell: Listener) -> Any:
    """A maker of solvers that tells of each solve."""

    class Watched:
        valid_callbacks = staticmethod(make.valid_callbacks)

        def __new__(cls, func: Any, y0: Any, **options: Any) -> Any:
            adaptive = not fixed_step(make) and "rtol" in options
            seen = Observed(
                backend="torchdiffeq",
                method=getattr(make, "name", name),  # a replay inside the block has a name of its own
                rtol=_number(options.get("rtol")) if adaptive else None,
                atol=_number(options.get("atol")) if adaptive else None,
                adaptive=adaptive,
                adjoint=_IN_ADJOINT[0],
                batch=tuple(y0.shape),
                function=func,
            )
            solver = make(func=Wrapped(func, seen), y0=y0, **options)
            integrate = solver.integrate

            def told_of_event(until: Any) -> Any:
                def run(t0: Any, event_fn: Any) -> Any:
                    seen.event = True
                    try:
                        end, solution = until(t0, event_fn)
                        seen.depths = (float(t0), float(end.detach()))
                        return end, solution
                    finally:
                        tell(seen)

                return run

            def told(t: Any) -> Any:
                seen.depths, seen.outputs = (float(t[0]), float(t[-1])), len(t)
                try:
                    return integrate(t)
                finally:
                    tell(seen)

            solver.integrate = told
            if until := getattr(solver, "integrate_until_event", None):
                solver.integrate_until_event = told_of_event(until)
            return solver

    Watched.original = original(make)  # type: ignore[attr-defined]
    return Watched


def _watched_torchode(solve: Any, tell: Listener) -> Any:
    def told(self: Any, problem: Any, term: Any = None, dt0: Any = None, args: Any = None) -> Any:
        found = solve(self, problem, term, dt0, args)
        controller, stats = self.step_size_controller, found.stats
        adaptive = hasattr(controller, "rtol")
        steps, accepted = (float(stats[key].double().mean()) for key in ("n_steps", "n_accepted"))
        evaluations = stats.get("n_f_evals")
        stages = getattr(getattr(self.step_method, "tableau", None), "n_stages", 1)
        tell(
            Observed(
                backend="torchode",
                method=type(self.step_method).__name__.lower(),
                rtol=_number(controller.rtol) if adaptive else None,
                atol=_number(controller.atol) if adaptive else None,
                adaptive=adaptive,
                adjoint=type(self).__name__ != "AutoDiffAdjoint",
                depths=(float(problem.t_start.min()), float(problem.t_end.max())),
                outputs=0 if problem.t_eval is None else int(problem.t_eval.shape[-1]),
                batch=tuple(problem.y0.shape),
                evaluations=stages * steps if evaluations is None else float(evaluations.double().mean()),
                accepted=accepted,
                rejected=steps - accepted,
            )
        )
        return found

    return told


def _number(value: Any) -> float | None:
    """A tolerance as a number; the smallest of several."""
    return None if value is None else float(torch.as_tensor(value, dtype=torch.float64).min())
