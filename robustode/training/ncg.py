"""Nonlinear conjugate gradients for sNODE: Sobolev gradient, step length from the sensitivity problem."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from robustode.errors import TrainingError, unknown
from robustode.models.snode import SNODE
from robustode.solvers.tape import Tape
from robustode.training.adversarial import Adversary, check_adversary
from robustode.training.average import Average
from robustode.training.checks import check_depth, check_names, check_number
from robustode.training.cost import Cost, Terms, terms
from robustode.training.directions import Previous, direction, gamma
from robustode.training.log_norm import DepthLogNorm, LogNorms, line_products
from robustode.training.measure import correct_count, rest_point
from robustode.training.metric import Metric
from robustode.training.schedule import schedule
from robustode.training.sobolev import Sobolev
from robustode.training.steplength import LinearisedCost, Outcome, backtrack, minimise
from robustode.training.trainer import BatchReport

LINE_SEARCHES = ("accepted", "linearised")
OBSERVED = 6  # depths at which the metric sees the states of a mini-batch


@dataclass(frozen=True, kw_only=True)
class NCGConfig:
    """How an sNODE is trained by nonlinear conjugate gradients.

    Args:
        epochs: passes over the data, ≥ 1.
        batch: samples of a mini-batch, ≥ 1; the method restarts on each.
        iterations: NCG iterations on a mini-batch, ≥ 1.
        length: ℓ ≥ 0 of the Sobolev gradient, in units of depth.
        whitening: ω in [0, 1) of the metric in the inputs of W and b (`robustode.training.metric`); 0 is the paper's.
        direction: formula for γ, a key of `robustode.training.directions.DIRECTIONS`.
        line_search: "accepted" halves the step of the linearised output until the true mini-batch cost falls;
            "linearised" takes it as it is (the paper).
        damping: factor in depth of training on the step length, "cosine" (from 1 to 0 over all mini-batches, so that
            the noise of the last ones is averaged out) or "constant" (1, the paper).
        averaging: time constant of the running mean of the weights, in epochs; 0 keeps the last weights.
        cost: the cost.
        adversary: what every mini-batch is attacked by, once, before the iterations on it; None for clean data.

    Raises:
        TrainingError: a value out of its range.
    """

    epochs: int = 6
    batch: int = 1000
    iterations: int = 3
    length: float = 1.0
    whitening: float = 0.9
    direction: str = "polak-ribiere+"
    line_search: str = "accepted"
    damping: str = "cosine"
    averaging: float = 1.0
    cost: Cost = field(default_factory=Cost)
    adversary: Adversary | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "iterations"):
            check_number(name, getattr(self, name), whole=True, least=1)
        check_number("length", self.length)
        check_number("averaging", self.averaging)
        check_number("whitening", self.whitening, below=1.0)
        check_adversary(self.adversary)
        gamma(self.direction)
        schedule(self.damping)
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
        check_depth(model, self.cost)
        return NCG(model, self, batches)


@dataclass(frozen=True)
class Point:
    """One mini-batch solved with one set of weights: x(T) as read, the stored pass, the cost, and its log norms."""

    state: Tensor
    tape: Tape
    terms: Terms
    log_norms: LogNorms | None


class NCG:
    """Nonlinear conjugate gradients at work on one model: on each mini-batch d = −v + γ d₋ with v the gradient in the
    inner product of `Metric`, and θ ← θ + ρ η d with η the minimiser of the cost of the linearised output, ρ the
    damping.

    Weight and bias travel as one path, (knots, features² + features) where W is dense. The state of the cost is what
    the model reads of x(T).

    Source: Jaroudi et al., arXiv 2205.13933, section 4; metric in the inputs and damping added.
    """

    def __init__(self, model: SNODE, config: NCGConfig, batches: int) -> None:
        self._model, self._config, self._cost, self._batches = model, config, config.cost, batches
        sobolev = Sobolev(len(model.bias), model.horizon, config.length, like=model.weight.detach())
        self._metric = Metric(sobolev, model.bias.shape[1], config.whitening)
        self._rest = rest_point(model)
        self._log_norm = DepthLogNorm(model.config["activation"])
        self._average = Average(model, config.averaging * max(1, batches // config.epochs))
        self._done = 0  # mini-batches

    @torch.no_grad()
    def step(self, x: Tensor, y: Tensor) -> BatchReport:
        """Do `iterations` of NCG on one mini-batch; restart with steepest descent where d does not descend."""
        x0 = self._model.encode(x)
        first = point = self.at(x0, y)
        previous: Previous | None = None
        if not math.isfinite(first.terms.total):
            return BatchReport(terms=first.terms, correct=0, final=first.terms.total)
        self._observe(point)
        for _ in range(self._config.iterations):
            v = self._metric.gradient(self.gradient(point, y))
            d = direction(self._config.direction, v, previous, self._metric.inner)
            moved = self._search(point, d, x0, y)
            if moved is None and previous is not None:
                d = -v
                moved = self._search(point, d, x0, y)
            if moved is None:
                break
            point, previous = moved, Previous(v, d)
        self._done += 1
        if math.isfinite(point.terms.total):
            self._average.take(self._model)
        correct = correct_count(self._model, first.state, y)
        return BatchReport(terms=first.terms, correct=correct, final=point.terms.total)

    def _observe(self, point: Point) -> None:
        """Show the metric the states of one mini-batch, at most `OBSERVED` depths of them."""
        stages = point.tape.stages
        stride = max(1, len(stages) // OBSERVED)
        inputs = [stages[n][0].input for n in range(0, len(stages), stride)]
        columns, weight = self._model.operator.columns, self._model.weight[0]
        self._metric.observe(columns(z[: len(point.state)], weight) for z in inputs if z is not None)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs beside the model's weights to go on to the bit."""
        own = {"moment": self._metric.moment, "log_norm": self._log_norm.state()}
        return {"average": self._average.state(), "done": self._done, **own}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        self._average.restore(state["average"])
        self._done = state["done"]
        self._metric.restore(state["moment"])
        self._log_norm.restore(state["log_norm"])

    def export(self) -> dict[str, Tensor]:
        """Return a copy of the state dict to keep: the weights averaged over all complete mini-batches."""
        return self._average.export(self._model)

    def path(self) -> Tensor:
        """Return a copy of the weights as one path, (knots, size of the weight + size of the bias)."""
        return torch.cat([self._model.weight.detach().flatten(1), self._model.bias.detach()], dim=1)

    @torch.no_grad()
    def move(self, path: Tensor) -> None:
        """Give the model the weights of a path."""
        weight, bias = self._split(path)
        self._model.weight.copy_(weight)
        self._model.bias.copy_(bias)

    @torch.no_grad()
    def at(self, x0: Tensor, y: Tensor) -> Point:
        """Solve the direct problem for encoded inputs x(0), (batch, *state), and keep the pass."""
        model = self._model
        final, tape = model.flow.record(x0, inputs=True)
        state = model.read(final)
        terminal = self._cost.terminal(state, y, classes=model.classes, rest=self._rest)
        norms = self._log_norm(model.weight) if self._cost.mu5 else None
        path = self._cost.path(model.weight, model.bias, horizon=model.horizon, log_norms=norms and norms.values)
        return Point(state, tape, terms(terminal, path), norms)

    @torch.no_grad()
    def gradient(self, point: Point, y: Tensor) -> Tensor:
        """Return the Euclidean gradient of the cost with respect to the knots, shaped as `path`."""
        model = self._model
        final = self._cost.terminal_gradient(point.state, y, classes=model.classes, rest=self._rest)
        gradient = self._cost.path_gradient(self.path(), horizon=model.horizon)
        if point.log_norms is not None:
            slope = self._cost.log_norm_slope(point.log_norms.values, horizon=model.horizon)
            self._split(gradient)[0].add_(slope[:, None, None] * point.log_norms.gradient)
        model.flow.adjoint(point.tape, model.read_transposed(final), self._split(gradient))
        return gradient

    @torch.no_grad()
    def line(self, point: Point, d: Tensor, y: Tensor) -> LinearisedCost:
        """Solve the sensitivity problem for the direction d, shaped as `path`: the cost of x(T) + η ξ(T)."""
        model, spacing = self._model, self._model.horizon / len(d)
        start = model.read_transposed(torch.zeros_like(point.state))
        tangent = model.read(model.flow.tangent(point.tape, start, *self._split(d)))
        products = (spacing * float((self.path() * d).sum()), spacing * float(d.square().sum()))
        own = {"path": products, "log_norms": line_products(point.log_norms, self._split(d)[0], model.horizon)}
        return LinearisedCost(self._cost, point.state, tangent, y, classes=model.classes, rest=self._rest, **own)

    def _search(self, point: Point, d: Tensor, x0: Tensor, y: Tensor) -> Point | None:
        """Move along d and return the point reached; None, and the weights unmoved, if d does not descend."""
        step = minimise(self.line(point, d, y))
        if step.outcome is Outcome.NON_FINITE:
            raise FloatingPointError("a slope that is not finite")
        if step.outcome is Outcome.ASCENT:
            return None
        step = replace(step, eta=step.eta * schedule(self._config.damping)(self._done / self._batches))
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
        rows = self._model.bias.shape[1]
        return path[:, :-rows].unflatten(1, self._model.weight.shape[1:]), path[:, -rows:]
