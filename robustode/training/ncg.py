"""Nonlinear conjugate gradients for sNODE: Sobolev gradient in depth, step length from the sensitivity problem."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from robustode.errors import TrainingError, unknown
from robustode.models.snode import SNODE
from robustode.solvers.flow import Tape
from robustode.training.checks import check_names, check_number
from robustode.training.cost import Cost, Terms, terms
from robustode.training.directions import Previous, direction, gamma
from robustode.training.measure import correct_count, rest_point
from robustode.training.sobolev import Sobolev
from robustode.training.steplength import LinearisedCost, Outcome, backtrack, minimise
from robustode.training.trainer import BatchReport

LINE_SEARCHES = ("accepted", "linearised")


@dataclass(frozen=True, kw_only=True)
class NCGConfig:
    """How an sNODE is trained by nonlinear conjugate gradients.

    Args:
        epochs: passes over the data, ≥ 1.
        batch: samples of a mini-batch, ≥ 1; the method restarts on each.
        iterations: NCG iterations on a mini-batch, ≥ 1.
        length: ℓ ≥ 0 of the Sobolev gradient, in units of depth.
        direction: formula for γ, a key of `robustode.training.directions.DIRECTIONS`.
        line_search: "accepted" halves the step of the linearised output until the true mini-batch cost falls;
            "linearised" takes it as it is (the paper).
        averaging: time constant of the running mean of the weights, in epochs; 0 keeps the last weights.
        cost: the cost.

    Raises:
        TrainingError: a value out of its range.
    """

    epochs: int = 6
    batch: int = 1000
    iterations: int = 3
    length: float = 1.0
    direction: str = "polak-ribiere+"
    line_search: str = "accepted"
    averaging: float = 1.0
    cost: Cost = field(default_factory=Cost)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "iterations"):
            check_number(name, getattr(self, name), whole=True, least=1)
        check_number("length", self.length)
        check_number("averaging", self.averaging)
        gamma(self.direction)
        if self.line_search not in LINE_SEARCHES:
            raise unknown("line search", self.line_search, LINE_SEARCHES, TrainingError)

    @property
    def name(self) -> str:
        """Name of the method."""
        return "ncg"

    def replace(self, **changes: Any) -> NCGConfig:
        """Return a copy with other values; raise `TrainingError` for an unknown name."""
        check_names(changes, (f.name for f in fields(self)))
        return replace(self, **changes)

    def trainer(self, model: nn.Module, batches: int) -> NCG:
        """Start training an sNODE (or layered model) by `batches` mini-batches in all."""
        if not isinstance(model, SNODE):
            fix = "Train it with SGDConfig."
            raise TrainingError("NCG", expected="an sNODE or layered model", got=type(model).__name__, fix=fix)
        if model.solver is not None:
            fix = "Train on a fixed grid (method euler, midpoint or rk4), then: robustode deploy."
            raise TrainingError("NCG", expected="a fixed-step method", got=f"{model.solver}", fix=fix)
        return NCG(model, self, batches)


@dataclass(frozen=True)
class Point:
    """The direct problem solved for one mini-batch with one set of weights: x(T), the stored pass, the cost."""

    state: Tensor
    tape: Tape
    terms: Terms


class NCG:
    """Nonlinear conjugate gradients at work on one model: on each mini-batch d = −v + γ d₋ with v the Sobolev gradient,
    and θ ← θ + η d with η the minimiser of the cost of the linearised output.

    Weight and bias travel as one path (knots, features² + features), in one inner product: that of `Sobolev`.

    Source: Jaroudi et al., arXiv 2205.13933, section 4.
    """

    def __init__(self, model: SNODE, config: NCGConfig, batches: int) -> None:
        self._model, self._config, self._cost = model, config, config.cost
        self._sobolev = Sobolev(len(model.bias), model.horizon, config.length, like=model.weight.detach())
        self._rest = rest_point(model)
        per_epoch = max(1, batches // config.epochs)
        self._keep = math.exp(-1 / (config.averaging * per_epoch)) if config.averaging else 0.0
        self._mean = self.path()
        self._share = 0.0  # Σ of the factors in the running mean; 0 while it is still the initial path

    @torch.no_grad()
    def step(self, x: Tensor, y: Tensor) -> BatchReport:
        """Do `iterations` of NCG on one mini-batch; restart with steepest descent where d does not descend."""
        x0 = self._model.encode(x)
        first = point = self.at(x0, y)
        previous: Previous | None = None
        if not math.isfinite(first.terms.total):
            return BatchReport(terms=first.terms, correct=0, final=first.terms.total)
        for _ in range(self._config.iterations):
            v = self._sobolev.gradient(self.gradient(point, y))
            d = direction(self._config.direction, v, previous, self._sobolev.inner)
            moved = self._search(point, d, x0, y)
            if moved is None and previous is not None:
                d = -v
                moved = self._search(point, d, x0, y)
            if moved is None:
                break
            point, previous = moved, Previous(v, d)
        if math.isfinite(point.terms.total):
            self._mean.mul_(self._keep if self._share else 0.0).add_(self.path(), alpha=1 - self._keep)
            self._share = self._keep * self._share + 1 - self._keep
        correct = correct_count(self._model, first.state, y)
        return BatchReport(terms=first.terms, correct=correct, final=point.terms.total)

    def export(self) -> dict[str, Tensor]:
        """Return a copy of the state dict, with the weights averaged over all complete mini-batches (the initial ones
        before the first)."""
        state = {name: value.detach().clone() for name, value in self._model.state_dict().items()}
        state["weight"], state["bias"] = (part.clone() for part in self._split(self._mean / (self._share or 1.0)))
        return state

    def path(self) -> Tensor:
        """Return a copy of the weights as one path, (knots, features² + features)."""
        return torch.cat([self._model.weight.detach().flatten(1), self._model.bias.detach()], dim=1)

    @torch.no_grad()
    def move(self, path: Tensor) -> None:
        """Give the model the weights of a path."""
        weight, bias = self._split(path)
        self._model.weight.copy_(weight)
        self._model.bias.copy_(bias)

    @torch.no_grad()
    def at(self, x0: Tensor, y: Tensor) -> Point:
        """Solve the direct problem for encoded inputs x(0), (batch, features), and keep the pass."""
        model = self._model
        state, tape = model.flow.record(x0, inputs=True)
        terminal = self._cost.terminal(state, y, classes=model.classes, rest=self._rest)
        return Point(state, tape, terms(terminal, self._cost.path(model.weight, model.bias, horizon=model.horizon)))

    @torch.no_grad()
    def gradient(self, point: Point, y: Tensor) -> Tensor:
        """Return the Euclidean gradient of the cost with respect to the knots, shaped as `path`."""
        model = self._model
        final = self._cost.terminal_gradient(point.state, y, classes=model.classes, rest=self._rest)
        gradient = self._cost.path_gradient(self.path(), horizon=model.horizon)
        model.flow.adjoint(point.tape, final, self._split(gradient))
        return gradient

    @torch.no_grad()
    def line(self, point: Point, d: Tensor, y: Tensor) -> LinearisedCost:
        """Solve the sensitivity problem for the direction d, shaped as `path`: the cost of x(T) + η ξ(T)."""
        model, spacing = self._model, self._model.horizon / len(d)
        start = torch.zeros_like(point.state)
        tangent = model.flow.tangent(point.tape, start, *self._split(d))
        products = (spacing * float((self.path() * d).sum()), spacing * float(d.square().sum()))
        return LinearisedCost(
            self._cost, point.state, tangent, y, classes=model.classes, rest=self._rest, path=products
        )

    def _search(self, point: Point, d: Tensor, x0: Tensor, y: Tensor) -> Point | None:
        """Move along d and return the point reached; None, and the weights unmoved, if d does not descend."""
        step = minimise(self.line(point, d, y))
        if step.outcome is Outcome.NON_FINITE:
            raise FloatingPointError("a slope that is not finite")
        if step.outcome is Outcome.ASCENT:
            return None
        start = self.path()
        trial = partial(self._trial, start, d, x0, y)
        if self._config.line_search == "linearised":
            return trial(step.eta)[1]
        accepted = backtrack(trial, step, point.terms.total)
        if accepted is None:
            self.move(start)
            return None
        return accepted.point

    def _trial(self, start: Tensor, d: Tensor, x0: Tensor, y: Tensor, eta: float) -> tuple[float, Point]:
        self.move(torch.add(start, d, alpha=eta))
        point = self.at(x0, y)
        return point.terms.total, point

    def _split(self, path: Tensor) -> tuple[Tensor, Tensor]:
        features = self._model.bias.shape[1]
        return path[:, :-features].unflatten(1, (features, features)), path[:, -features:]
