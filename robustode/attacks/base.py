"""The attack protocol: what goes in, and a frozen result with a status for every sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from robustode.attacks.norms import ball_tolerance, distance
from robustode.errors import AttackError
from robustode.models.base import Classifier

# One generator for the batch, or one for each sample, so that a sample's draws do not depend on its batch-mates.
Randomness = torch.Generator | Sequence[torch.Generator] | None


class Status(StrEnum):
    """What happened to one sample under one attack (records column `status`)."""

    MISCLASSIFIED = "misclassified"  # wrong before the attack began; distance 0
    SUCCESS = "success"
    FAILED = "failed"  # no adversarial found; distance +inf
    SKIPPED = "skipped"  # already broken by an earlier attack of a cascade
    ERROR = "error"  # the attack raised


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """What an attack says of each sample; the harness judges it again before a number is written.

    Attributes:
        x_adv: (batch, *input_shape), the best point found; the clean input where none was found.
        status: one `Status` for every sample.
        distance: (batch,) float64, ‖x_adv − x‖ in the attack's norm; 0 if misclassified, +inf if failed.
        adv_pred: (batch,) int64, the class the model gives `x_adv`.
        forwards: (batch,) float64, forward passes spent on each sample; None if the attack does not count.
        backwards: (batch,) float64, rows of reverse passes, likewise.
        nfe: (batch,) float64, evaluations of the right-hand side of the ODE; None if unknown.
        converged: (batch,) bool, the attack's own stopping test; None if it has none.
        kkt: (batch,) float64, residual of the optimality conditions of the minimal-norm problem; None if it has none.
        returned: (batch, *input_shape), the points as they were before failures became clean inputs, for the harness to
            judge; None if they are `x_adv`.
        claimed: (batch,) bool, success as the attack itself reports it; None if it says no more than `status`.
    """

    x_adv: Tensor
    status: tuple[Status, ...]
    distance: Tensor
    adv_pred: Tensor
    forwards: Tensor | None = None
    backwards: Tensor | None = None
    nfe: Tensor | None = None
    converged: Tensor | None = None
    kkt: Tensor | None = None
    returned: Tensor | None = None
    claimed: Tensor | None = None

    def __post_init__(self) -> None:
        batch = self.x_adv.shape[0]
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and len(value) != batch:
                raise AttackError(f"attack result field '{field.name}'", expected=f"{batch} entries", got=len(value))

    @property
    def success(self) -> Tensor:
        """(batch,) bool, True where an adversarial was found (not where the clean input was already wrong)."""
        return torch.tensor([s is Status.SUCCESS for s in self.status], dtype=torch.bool)


@runtime_checkable
class Attack(Protocol):
    """An attack with all its parameters fixed: `attack(model, x, y)` returns an `AttackResult`.

    Attributes:
        norm: the norm of its ball or of the distance it minimises.
        eps: radius of the ball, in raw-input units; None for a minimal-norm attack.
    """

    @property
    def norm(self) -> str: ...

    @property
    def eps(self) -> float | None: ...

    def __call__(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        *,
        target: Tensor | None = None,
        generator: Randomness = None,
    ) -> AttackResult: ...


def one_generator(generator: Randomness) -> torch.Generator | None:
    """Return the generator for an attack that draws for the whole batch: the only one, or the first sample's."""
    if isinstance(generator, torch.Generator) or generator is None:
        return generator
    return generator[0] if len(generator) else None


def check_inputs(model: Classifier, x: Tensor, y: Tensor, target: Tensor | None = None) -> None:
    """Raise `AttackError` unless x, y and target fit the model: shape, finite, inside the bounds, known classes."""
    if tuple(x.shape[1:]) != tuple(model.input_shape):
        raise AttackError(
            "inputs x",
            expected=f"shape (batch, {', '.join(map(str, model.input_shape))})",
            got=tuple(x.shape),
        )
    for name, labels in (("labels y", y), ("target", target)):
        if labels is None:
            continue
        if labels.shape != (len(x),) or labels.is_floating_point():
            raise AttackError(
                name, expected=f"integers of shape ({len(x)},)", got=f"{labels.dtype} {tuple(labels.shape)}"
            )
        if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= model.classes):
            raise AttackError(
                name,
                expected=f"classes 0 to {model.classes - 1}",
                got=f"{int(labels.min())} to {int(labels.max())}",
            )
    lo, hi = model.bounds
    if not bool(torch.isfinite(x).all()) or bool(((x < lo) | (x > hi)).any()):
        got = f"values from {float(x.detach().min()):g} to {float(x.detach().max()):g}" if len(x) else "none"
        raise AttackError("inputs x", expected=f"finite values inside the model's bounds [{lo:g}, {hi:g}]", got=got)


def assess(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    x_adv: Tensor,
    *,
    norm: str,
    eps: float | None,
    target: Tensor | None = None,
    **extra: Tensor | None,
) -> AttackResult:
    """Judge the points an attack returned and build its result: predict again, measure again, check box and ball.

    A point is a success if it is finite, inside the box, within ε + τ, and classified other than its label (as its
    target, if there is one). The model's passes made here are not counted as the attack's.
    """
    bare = getattr(model, "bare", model)
    lo, hi = model.bounds
    with torch.no_grad():
        clean_wrong = bare(x).argmax(1) != y
        adv_pred = bare(x_adv).argmax(1)
    gap = distance(x, x_adv, norm)
    ok = torch.isfinite(x_adv).flatten(1).all(1) & ((x_adv >= lo) & (x_adv <= hi)).flatten(1).all(1)
    ok &= adv_pred != y
    if target is not None:
        ok &= adv_pred == target
    if eps is not None:
        ok &= gap <= eps + ball_tolerance(eps, model.bounds, x[0].numel() if len(x) else 1, norm)
    status = tuple(
        Status.MISCLASSIFIED if wrong else Status.SUCCESS if good else Status.FAILED
        for wrong, good in zip(clean_wrong.tolist(), ok.tolist(), strict=True)
    )
    gap = torch.where(clean_wrong, 0.0, torch.where(ok, gap, math.inf))
    keep = (ok & ~clean_wrong).reshape(-1, *([1] * (x.dim() - 1)))
    return AttackResult(
        x_adv=torch.where(keep, x_adv, x).detach(),
        status=status,
        distance=gap,
        adv_pred=adv_pred,
        **{"returned": x_adv.detach(), **extra},
    )
