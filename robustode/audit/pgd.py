"""Projected gradient ascent of the audit itself: on two losses, in every norm, with its path of losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from robustode.attacks.adapters.boundary import untouched
from robustode.attacks.base import AttackResult, Randomness, assess, check_inputs, one_generator
from robustode.attacks.confident import into_ball
from robustode.attacks.norms import check_norm, per_sample, steepest
from robustode.errors import AttackError, BudgetError, unknown
from robustode.models.base import Classifier

STRIDE = 0.0625  # length of a step, in units of ε: 2.5 / 40, as on the cards of PGD


def cross_entropy_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Return −log softmax(z)_y, (batch,)."""
    return cross_entropy(logits, y, reduction="none")


def margin_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Return max_{k≠y} z_k − z_y, (batch,): positive where broken; the loss of Carlini and Wagner without its clip."""
    own = logits.gather(1, y[:, None])
    return logits.scatter(1, y[:, None], -torch.inf).amax(1) - own.squeeze(1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"ce": cross_entropy_loss, "margin": margin_loss}


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Projected gradient ascent from a random point of {ball} ∩ {box}, in steepest steps of ε / 16.

    Args:
        norm: "l2", "linf" or "l1".
        eps: radius of the ball, in raw-input units, > 0.
        steps: ≥ 1.
        loss: "ce" (cross-entropy) or "margin" (the largest other logit less the label's).

    Raises:
        AttackError, BudgetError: a parameter out of its range; at the call, inputs that do not fit the model.

    Source: Madry et al. 2018, arXiv 1706.06083; margin: Carlini and Wagner 2017, arXiv 1608.04644.
    """

    norm: str
    eps: float
    steps: int = 40
    loss: str = "ce"

    def __post_init__(self) -> None:
        check_norm(self.norm)
        if not 0 < self.eps < float("inf"):
            raise BudgetError("eps of PGD", expected="a positive number", got=self.eps)
        if self.steps < 1:
            raise AttackError("steps of PGD", expected="at least 1", got=self.steps)
        if self.loss not in LOSSES:
            raise unknown("loss of PGD", self.loss, LOSSES, AttackError)

    def __call__(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        *,
        target: Tensor | None = None,
        generator: Randomness = None,
    ) -> AttackResult:
        """Attack x (batch, *input_shape) with labels y; returned is the point of smallest margin of each path."""
        if target is not None:
            raise AttackError("PGD of the audit", expected="no target", got="a targeted run")
        points, _ = self.climb(model, x, y, generator=generator)
        return assess(model, x, y, points, norm=self.norm, eps=self.eps)

    def climb(self, model: Classifier, x: Tensor, y: Tensor, *, generator: Randomness = None) -> tuple[Tensor, Tensor]:
        """Return (the point of smallest margin of each path, the losses along it as (steps + 1, batch) in float64)."""
        check_inputs(model, x, y)
        point = x + self._start(x, one_generator(generator), model.bounds)
        best, highest, losses = x.clone(), torch.full_like(y, -torch.inf, dtype=torch.float64), []
        with untouched(model):
            for _ in range(self.steps + 1):
                leaf = point.detach().requires_grad_()
                logits = model(leaf)
                value = LOSSES[self.loss](logits, y)
                if not value.requires_grad:
                    raise AttackError("gradient of the model", expected="one with respect to its input", got="none")
                gradient = torch.autograd.grad(value.sum(), leaf)[0].nan_to_num()
                margin = margin_loss(logits.detach().double(), y)
                best = torch.where(per_sample(margin > highest, x), point, best)
                highest = torch.where(margin > highest, margin, highest)
                losses.append(value.detach().double())
                step = STRIDE * self.eps * steepest(gradient, self.norm)
                point = into_ball(point + step - x, x, self.eps, self.norm, model.bounds)
        return best, torch.stack(losses)

    def _start(self, x: Tensor, generator: torch.Generator | None, bounds: tuple[float, float]) -> Tensor:
        """A random perturbation of {ball} ∩ {box}: uniform in L∞, of uniform length along a Gaussian direction else."""
        source = generator or torch.Generator().manual_seed(0)
        share = torch.rand(x.shape if self.norm == "linf" else len(x), generator=source, dtype=torch.float64)
        if self.norm == "linf":
            delta = self.eps * (2 * share - 1)
        else:
            noise = torch.randn(x.shape, generator=source, dtype=torch.float64)
            length = torch.linalg.vector_norm(noise.flatten(1), ord=int(self.norm[1]), dim=1)
            delta = noise * per_sample(self.eps * share / length, noise)
        return (x + delta.to(x)).clamp(*bounds) - x
