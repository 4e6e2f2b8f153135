"""Single directions of attack from one linearisation, and the one-step attack along them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustode.attacks.base import AttackResult, Randomness, assess, check_inputs
from robustode.attacks.norms import check_norm, per_sample, steepest
from robustode.errors import AttackError, BudgetError, OptionError, unknown
from robustode.models.base import Classifier
from robustode.sensitivity.jacobian import rows_at_once
from robustode.sensitivity.linearise import linearise
from robustode.sensitivity.nearest import margin_gradient, nearest_class

POWER_ITERATIONS = 20
KINDS = ("margin", "singular", "tangent")


def direction(
    model: Classifier,
    x: Tensor,
    kind: str = "margin",
    norm: str = "l2",
    *,
    y: Tensor | None = None,
    dx0: Tensor | None = None,
) -> Tensor:
    """Return the direction in which the sensitivity solution says that the model's answer changes fastest.

    - "margin": the unit-norm step that lowers the margin to the nearest class fastest, the nearest class being the one
    of
      smallest (z_c − z_k) / ‖P_c − P_k‖ in the dual norm;
    - "singular": the unit-norm δ that maximises ‖C J δ‖₂, with C the centring that removes what shifts all logits
    alike:
      the first right singular vector for L2, and the fixed point of δ ← steepest(JᵀCJδ) for L∞ and L1. It needs no
      label; its sign is the one that lowers the margin of the model's own prediction;
    - "tangent": the sensitivity solution itself, J dx₀, by which the logits move under the given `dx0`.

    Args:
        model: classifier.
        x: (batch, *input_shape).
        kind: "margin", "singular" or "tangent".
        norm: "l2", "linf" or "l1".
        y: (batch,) class c whose margin is lowered; default the model's prediction.
        dx0: perturbation of the input, shape of `x`; for "tangent" only.

    Returns:
        (batch, *input_shape), of unit norm (zero where the gradient is zero); (batch, classes) for "tangent".

    Raises:
        OptionError: unknown kind, or `dx0` missing or not wanted.

    Source: arXiv 2205.13933, sensitivity problem and adversarial attack.
    """
    if kind not in KINDS:
        raise unknown("kind of direction", kind, KINDS)
    if (dx0 is not None) != (kind == "tangent"):
        raise OptionError(
            "dx0", expected="a perturbation for kind 'tangent', and for no other kind", got=f"kind '{kind}'"
        )
    if dx0 is not None:
        return linearise(model, x).jvp(dx0)
    size = rows_at_once(model, x)
    parts = [
        _unit_step(model, part, None if y is None else y[i * size : i * size + len(part)], kind, norm)
        for i, part in enumerate(x.split(size))
    ]
    return torch.cat(parts)


def _unit_step(model: Classifier, x: Tensor, y: Tensor | None, kind: str, norm: str) -> Tensor:
    linear = linearise(model, x)
    own = linear.logits.argmax(1) if y is None else y
    eye = torch.eye(linear.logits.shape[1], dtype=linear.logits.dtype, device=linear.logits.device)
    rows = linear.vjp(eye.expand(len(x), -1, -1))
    gradient = margin_gradient(rows, own, nearest_class(linear.logits, rows, own, norm))
    if kind == "margin":
        return -steepest(gradient, norm)
    found = _singular(rows, gradient, norm)
    against = (found * gradient).flatten(1).sum(1) > 0
    return torch.where(per_sample(against, found), -found, found)


def _singular(rows: Tensor, start: Tensor, norm: str) -> Tensor:
    centred = (rows - rows.mean(1, keepdim=True)).flatten(2)  # C J
    if norm == "l2":
        top = torch.linalg.eigh(centred @ centred.transpose(1, 2)).eigenvectors[:, :, -1]
        return steepest((top[:, None] @ centred).squeeze(1).reshape(start.shape), "l2")
    delta = steepest(start, norm).flatten(1)
    for _ in range(POWER_ITERATIONS):
        image = (centred @ delta[:, :, None]).squeeze(2)
        delta = steepest((image[:, None] @ centred).squeeze(1), norm)
    return delta.reshape(start.shape)


@dataclass(frozen=True, kw_only=True)
class OneStepAttack:
    """One step of length ε along a direction: "margin", "singular", or "random" (a random sign vector or unit vector).

    What one step achieves by direction tells how far the linear model of the network carries.

    Args:
        norm: "l2", "linf" or "l1".
        eps: length of the step, in raw-input units.
        kind: "margin", "singular" or "random". "singular" and "random" take the better of both signs.

    Raises:
        AttackError, BudgetError: a parameter out of its range.

    Source: arXiv 2205.13933, adversarial attack; FGSM (arXiv 1412.6572) is the same step along the loss gradient.
    """

    norm: str = "linf"
    eps: float | None = None
    kind: str = "margin"

    names: ClassVar[tuple[str, ...]] = ("margin", "singular", "random")

    def __post_init__(self) -> None:
        check_norm(self.norm)
        if self.kind not in self.names:
            raise unknown("kind of one-step attack", self.kind, self.names, AttackError)
        if self.eps is None or not 0 < self.eps < float("inf"):
            raise BudgetError("eps of a one-step attack", expected="a positive number", got=self.eps)

    def __call__(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        *,
        target: Tensor | None = None,
        generator: Randomness = None,
    ) -> AttackResult:
        """Attack every sample; `target` is not supported, `generator` draws the random directions (default seed 0)."""
        check_inputs(model, x, y, target)
        if target is not None:
            raise AttackError("one-step attack", expected="no target", got="a target")
        if self.kind == "random":
            step = self._random(x, generator)
            backwards = 0
        else:
            step = direction(model, x, self.kind, self.norm, y=y)
            backwards = model.classes
        x_adv = (x + (self.eps or 0.0) * step).clamp(*model.bounds)
        count = torch.ones(len(x), dtype=torch.float64)
        forwards = count * (self.kind != "random")
        if self.kind != "margin":
            other = (x - (self.eps or 0.0) * step).clamp(*model.bounds)
            with torch.no_grad():
                broken = model(other).argmax(1) != y
            x_adv = torch.where(per_sample(broken, x), other, x_adv)
            forwards = forwards + 1
        return assess(model, x, y, x_adv, norm=self.norm, eps=self.eps, forwards=forwards, backwards=count * backwards)

    def _random(self, x: Tensor, generator: Randomness) -> Tensor:
        shared = generator if isinstance(generator, torch.Generator) else torch.Generator().manual_seed(0)
        each = generator if isinstance(generator, Sequence) else [shared] * len(x)
        draws = [torch.randn(x.shape[1:], generator=g, dtype=torch.float64) for g in each]
        return steepest(torch.stack(draws).to(x), self.norm) if draws else x
