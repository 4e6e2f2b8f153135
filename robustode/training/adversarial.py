"""Adversarial training: the adversary that replaces the samples of a mini-batch before the optimiser sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustode.attacks.confident import into_ball
from robustode.attacks.norms import per_sample, steepest
from robustode.attacks.projections import furthest
from robustode.errors import TrainingError, unknown
from robustode.models.base import Classifier
from robustode.sensitivity.linearise import Linearisation, linearise
from robustode.training.checks import check_names, check_number

ATTACKS = {"pgd": 7, "sensitivity": 2}  # default number of steps
NORMS = ("linf", "l2")
CANDIDATES = 3  # classes of the largest logits that "sensitivity" linearises at its first point
PREFIX = "adversary_"  # of its fields among the options of a recipe


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """The inner maximisation of min_θ E max_{‖δ‖ ≤ ε} loss(θ, x + δ, y), by one of two attacks.

    - "pgd": projected gradient on the cross entropy, x ← Π(x + α steepest(Jᵀ(softmax(z) − e_y))), with Π onto the ball
      and the box; one forward pass and one reverse row a step. The gradient is taken divided by 1 − softmax(z)_y, which
      changes no direction and cannot vanish where the softmax saturates.
    - "sensitivity": the sensitivity attack with a budget. The margins z_k − z_y are linearised, for the classes of the
      three largest other logits at first and for the single largest after that, and each linear model is maximised
      exactly in {ball} ∩ {box} (`furthest`). The maximiser lies on the very path on which the minimal-norm attack finds
      the linearised boundary: where that boundary is inside the ball, the step overshoots it to the edge of the ball,
      so that the loss is high and not merely that of a tie. The class whose linear margin gets largest is taken, the
      margins are linearised again there, always seen from the clean input, and of all points met the one of the largest
      true margin is returned. With 2 steps it costs 3 forward passes and 4 reverse rows, PGD with 7 steps 7 and 7.

    Args:
        attack: "pgd" or "sensitivity".
        norm: "linf" or "l2".
        eps: ε > 0, radius of the ball in raw-input units.
        steps: linearisations, ≥ 1; None for 7 ("pgd") or 2 ("sensitivity").
        step_size: α > 0 of "pgd", in raw-input units; None for 2.5 ε / steps.
        fraction: share of every mini-batch that is attacked, in (0, 1]; the rest stays clean.
        random_start: whether to start from a random point of the ball instead of the clean input.

    Raises:
        TrainingError: a value out of its range.

    Source: Madry et al., arXiv 1706.06083 (the problem, "pgd"); arXiv 2205.13933, section 4.3 (the linearised margin);
    Wong et al., arXiv 2001.03994 (why few steps need a random start).
    """

    attack: str = "pgd"
    norm: str = "linf"
    eps: float
    steps: int | None = None
    step_size: float | None = None
    fraction: float = 1.0
    random_start: bool = True

    def __post_init__(self) -> None:
        if self.attack not in ATTACKS:
            raise unknown("adversary", self.attack, ATTACKS, TrainingError)
        if self.norm not in NORMS:
            raise unknown("norm of the adversary", self.norm, NORMS, TrainingError)
        if self.steps is None:
            object.__setattr__(self, "steps", ATTACKS[self.attack])
        check_number("adversary_eps", self.eps, positive=True)
        check_number("adversary_steps", self.steps, whole=True, least=1)
        check_number("adversary_fraction", self.fraction, positive=True)
        if self.fraction > 1:
            raise TrainingError("training option adversary_fraction", expected="a number in (0, 1]", got=self.fraction)
        if self.step_size is not None:
            check_number("adversary_step_size", self.step_size, positive=True)
            if self.attack != "pgd":
                fix = "Only 'pgd' takes steps of a given size."
                raise TrainingError("training option adversary_step_size", expected="none", got=self.step_size, fix=fix)
        if not isinstance(self.random_start, bool):
            got = repr(self.random_start)
            raise TrainingError("training option adversary_random_start", expected="true or false", got=got)

    @torch.no_grad()
    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mini-batch with its attacked samples replaced, inside the ball and the model's bounds.

        The model is attacked in eval mode (running statistics of batch norm, no dropout) and has its modes back after;
        its weights, their gradients and its buffers are not touched.

        Args:
            model: a classifier with `bounds`.
            x: (batch, *input_shape), inside the bounds.
            y: (batch,) labels.
            generator: draws which samples are attacked and where they start.

        Returns:
            (batch, *input_shape), dtype and device of `x`.

        Raises:
            TrainingError: the model does not know its bounds.
        """
        if getattr(model, "bounds", None) is None:
            got, fix = f"{type(model).__name__} without them", "Wrap it with robustode.models.wrap."
            raise TrainingError("adversarial training", expected="a model with bounds", got=got, fix=fix)
        classifier: Classifier = model  # type: ignore[assignment]
        count = min(len(x), max(1, round(self.fraction * len(x))))
        chosen = torch.arange(len(x)) if count == len(x) else torch.randperm(len(x), generator=generator)[:count]
        chosen = chosen.to(x.device)
        clean, labels = x.detach()[chosen], y[chosen]
        start = self._start(classifier, clean, generator) if self.random_start else clean
        with _eval_mode(model):
            search = self._pgd if self.attack == "pgd" else self._sensitivity
            found = search(classifier, clean, labels, start)
        return x.detach().index_copy(0, chosen, found)

    def _start(self, model: Classifier, x: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform in the ball, then clipped to the box; the same draws for every dtype and device."""
        shape = (len(x), x[0].numel()) if len(x) else (0, 1)
        if self.norm == "linf":
            delta = 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1
        else:
            normal = torch.randn(shape, generator=generator, dtype=torch.float64)
            radius = torch.rand(len(x), 1, generator=generator, dtype=torch.float64) ** (1 / shape[1])
            delta = radius * steepest(normal, "l2")
        return into_ball((self.eps * delta).to(x).reshape(x.shape), x, self.eps, self.norm, model.bounds)

    def _pgd(self, model: Classifier, x: Tensor, y: Tensor, point: Tensor) -> Tensor:
        steps = self.steps or ATTACKS[self.attack]
        size = self.step_size or 2.5 * self.eps / steps
        for _ in range(steps):
            step = size * steepest(_loss_gradient(linearise(model, point), y), self.norm)
            point = into_ball(point - x + step, x, self.eps, self.norm, model.bounds)
        return point

    def _sensitivity(self, model: Classifier, x: Tensor, y: Tensor, point: Tensor) -> Tensor:
        best = point
        largest = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        for i in range(self.steps or ATTACKS[self.attack]):
            linear = linearise(model, point)
            best, largest = _larger(best, largest, point, _margins(linear.logits, y).amax(1))
            point = self._edge(model, linear, x, y, point, classes=1 if i else CANDIDATES)
        return _larger(best, largest, point, _margins(model(point), y).amax(1))[0]

    def _edge(
        self, model: Classifier, linear: Linearisation, x: Tensor, y: Tensor, point: Tensor, *, classes: int
    ) -> Tensor:
        """Return the point of {ball} ∩ {box} with the largest linear margin z_k − z_y, over the likeliest classes k."""
        margins = _margins(linear.logits, y)
        values, likely = margins.topk(min(classes, margins.shape[1] - 1), dim=1)
        eye = torch.eye(margins.shape[1], dtype=margins.dtype, device=margins.device)
        rows = linear.vjp(eye[likely] - eye[y][:, None]).flatten(2)  # (batch, k, d)
        origin = x.flatten(1)[:, None].expand_as(rows)
        delta = furthest(rows.flatten(0, 1), self.eps, origin.flatten(0, 1), model.bounds, self.norm).view_as(rows)
        predicted = values + (rows * (origin + delta - point.flatten(1)[:, None])).sum(2)
        best = delta[torch.arange(len(x), device=x.device), predicted.argmax(1)]
        return into_ball(best.reshape(x.shape), x, self.eps, self.norm, model.bounds)


OPTIONS = frozenset(PREFIX + f.name for f in fields(Adversary)) - {PREFIX + "attack"}


def adversary_of(changes: Mapping[str, Any], present: Adversary | None) -> dict[str, Any]:
    """Return the options of a recipe with `adversary=pgd`, `adversary_eps=0.1`, ... gathered into one `Adversary`.

    What is not given keeps the value of the recipe's own adversary, if it has one; `adversary="none"` takes it away.

    Args:
        changes: options by name; those that do not speak of an adversary are passed on.
        present: the recipe's own adversary.

    Raises:
        TrainingError: an option of an adversary that there is none of, an unknown one, or a value out of its range.
    """
    rest = {name: value for name, value in changes.items() if not name.startswith(PREFIX)}
    options = {name.removeprefix(PREFIX): value for name, value in changes.items() if name.startswith(PREFIX)}
    check_names(dict.fromkeys(PREFIX + name for name in options), OPTIONS)
    kind = rest.get("adversary", present)
    if kind is None or kind == "none":
        if options:
            expected, got = f"an adversary ({', '.join(ATTACKS)}) with {PREFIX}{next(iter(options))}", "none"
            raise TrainingError("adversarial training", expected=expected, got=got, fix="Add adversary=pgd.")
        return {**rest, "adversary": None} if "adversary" in rest else rest
    if isinstance(kind, Adversary):
        return {**rest, "adversary": replace(kind, **options)} if options else rest
    if kind not in ATTACKS:
        raise unknown("adversary", kind, (*ATTACKS, "none"), TrainingError)
    if present is not None:
        own = {f.name: getattr(present, f.name) for f in fields(present)}
        dropped = {"attack"} if kind == present.attack else {"attack", "steps", "step_size"}
        options = {**{name: value for name, value in own.items() if name not in dropped}, **options}
    return {**rest, "adversary": Adversary(**{"eps": None, **options, "attack": kind})}


def check_adversary(value: object) -> None:
    """Raise `TrainingError` unless `value` is an `Adversary` or None."""
    if value is not None and not isinstance(value, Adversary):
        raise TrainingError("training option adversary", expected="an Adversary or None", got=repr(value))


def batch_generator(seed: int, epoch: int, batch: int) -> torch.Generator:
    """Return the generator of one mini-batch, which depends on nothing but these three numbers."""
    return torch.Generator().manual_seed(int(np.random.PCG64((seed, epoch, batch)).random_raw()) >> 1)


def _loss_gradient(linear: Linearisation, y: Tensor) -> Tensor:
    """Jᵀ(softmax(z) − e_y) / (1 − softmax(z)_y): the gradient of the cross entropy up to a positive factor."""
    others = linear.logits.scatter(1, y[:, None], -torch.inf).softmax(1)
    return linear.vjp(others.scatter(1, y[:, None], -1.0))


def _margins(logits: Tensor, y: Tensor) -> Tensor:
    """z_k − z_y for every class k, (batch, classes); −∞ for k = y."""
    return (logits - logits.gather(1, y[:, None])).scatter(1, y[:, None], -torch.inf)


def _larger(best: Tensor, largest: Tensor, point: Tensor, margin: Tensor) -> tuple[Tensor, Tensor]:
    better = margin > largest
    return torch.where(per_sample(better, point), point, best), torch.where(better, margin, largest)


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Every part of the model in eval mode; each has its own mode back after."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
