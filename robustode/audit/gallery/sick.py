"""Attacks that look strong and are not, as a user's own functions; they are given to honest models."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustode.attacks.adapters.python import PythonAttack
from robustode.attacks.base import Attack, AttackResult, Randomness, Status
from robustode.attacks.card import Card
from robustode.audit.pgd import cross_entropy_loss
from robustode.models.base import Classifier

STEPS = 20


def gradient_sign(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Sign of the gradient of the cross-entropy."""
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(cross_entropy_loss(model(leaf), y).sum(), leaf)[0].sign()


def climb(model: Classifier, x: Tensor, y: Tensor, eps: float, step: float, generator: torch.Generator) -> Tensor:
    """PGD in L∞ that returns its last point."""
    lo, hi = model.bounds
    point = x + eps * (2 * torch.rand(x.shape, generator=generator).to(x) - 1)
    for _ in range(STEPS):
        point = point + step * gradient_sign(model, point, y)
        point = torch.minimum(torch.maximum(point, x - eps), x + eps).clamp(lo, hi)
    return point


def zero_step(model: Classifier, x: Tensor, y: Tensor, *, norm: str, eps: float, generator: torch.Generator) -> Tensor:
    """A step size of zero: what is returned is the clean point."""
    point = x.clone()
    for _ in range(STEPS):
        point = point + 0.0 * gradient_sign(model, point, y)
    return point


def wrong_labels(
    model: Classifier, x: Tensor, y: Tensor, *, norm: str, eps: float, generator: torch.Generator
) -> Tensor:
    """The loss is that of another label, which it moves away from."""
    return climb(model, x, (y + 1) % model.classes, eps, eps / 8, generator)


def leaves_ball(
    model: Classifier, x: Tensor, y: Tensor, *, norm: str, eps: float, generator: torch.Generator
) -> Tensor:
    """A radius a quarter too large."""
    return climb(model, x, y, 1.25 * eps, eps / 8, generator)


def leaves_box(model: Classifier, x: Tensor, y: Tensor, *, norm: str, eps: float, generator: torch.Generator) -> Tensor:
    """Inside the ball, and not clipped to the box."""
    return x + eps * gradient_sign(model, x, y)


def not_finite(model: Classifier, x: Tensor, y: Tensor, *, norm: str, eps: float, generator: torch.Generator) -> Tensor:
    """A direction divided by its own length where that is zero: NaN at black pixels."""
    sign = gradient_sign(model, x, y)
    return (x + eps * sign * x / x).clamp(*model.bounds)


def inverted_step(
    model: Classifier, x: Tensor, y: Tensor, *, norm: str, eps: float, generator: torch.Generator
) -> Tensor:
    """A step size divided by ε² instead of multiplied by ε: in larger balls it hardly moves."""
    lo, hi = model.bounds
    point, step = x.clone(), 1e-4 / eps**2
    for _ in range(STEPS):
        point = (point + step * gradient_sign(model, point, y)).clamp(lo, hi)
        point = torch.minimum(torch.maximum(point, x - eps), x + eps)
    return point


def last_point(model: Classifier, x: Tensor, y: Tensor, *, norm: str, eps: float, generator: torch.Generator) -> Tensor:
    """Climbs the loss, then walks back on the same path, and returns where it ends."""
    found = climb(model, x, y, eps, eps / 8, generator)
    point = found
    for _ in range(4):
        point = x + (point - x) / 2
        model(point)
    return point


def first_success_ends_all(
    model: Classifier, x: Tensor, y: Tensor, *, norm: str, eps: float, generator: torch.Generator
) -> Tensor:
    """The whole batch stops as soon as one of its samples is broken."""
    lo, hi = model.bounds
    point = x.clone()
    for _ in range(STEPS):
        point = point + eps / 8 * gradient_sign(model, point, y)
        point = torch.minimum(torch.maximum(point, x - eps), x + eps).clamp(lo, hi)
        if bool((model(point).argmax(1) != y).any()):
            break
    return point


@dataclass(frozen=True, kw_only=True)
class Boasting:
    """An attack that claims success on every sample."""

    inner: PythonAttack

    @property
    def norm(self) -> str:
        """Norm of the ball."""
        return self.inner.norm

    @property
    def eps(self) -> float | None:
        """Radius of the ball."""
        return self.inner.eps

    def __call__(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        *,
        target: Tensor | None = None,
        generator: Randomness = None,
    ) -> AttackResult:
        """Run the inner attack and claim success everywhere."""
        result = self.inner(model, x, y, target=target, generator=generator)
        return replace(result, status=(Status.SUCCESS,) * len(x), x_adv=result.returned)


class BoastingCard(Card):
    """The card of an attack that misreports its success."""

    def build(self, eps: float | None) -> Attack:
        """Return the attack at radius ε."""
        inner = super().build(eps)
        assert isinstance(inner, PythonAttack)
        return Boasting(inner=inner)
