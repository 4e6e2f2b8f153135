"""How far it is from each sample to each class: a targeted attack on every class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.attacks.base import Attack, Status
from robustode.models.base import Classifier


@dataclass(frozen=True, kw_only=True)
class EveryClass:
    """Distances from each sample to each class, ‖δ‖ of the smallest perturbation found that is answered with it.

    Attributes:
        distance: (batch, classes) float64; 0 for the class that the model gives the sample, +inf where nothing was
            found.
        x_adv: (batch, classes, *input_shape), the points; the sample itself where nothing was found.
        status: for each sample a `Status` for each class: `success`, `failed`, or `misclassified` for the sample's own
            answer, which needs no perturbation.
        forwards: (batch, classes) float64, forward passes; None if the attack does not count.
        backwards: (batch, classes) float64, rows of reverse passes, likewise.
        kkt: (batch, classes) float64, residuals; None if the attack has none.
    """

    distance: Tensor
    x_adv: Tensor
    status: tuple[tuple[Status, ...], ...]
    forwards: Tensor | None
    backwards: Tensor | None
    kkt: Tensor | None


def to_every_class(attack: Attack, model: Classifier, x: Tensor) -> EveryClass:
    """Attack every sample towards every class but the one that the model gives it.

    The smallest distance of a row is the untargeted minimal norm, up to the quality of the attack; the row says which
    classes are near.

    Args:
        attack: an attack that takes a target, such as `SensitivityAttack`.
        model: classifier.
        x: (batch, *input_shape), inside the bounds. No labels: distances are from the model's own answers.

    Raises:
        AttackError: inputs that do not fit the model.
    """
    batch, classes = len(x), model.classes
    with torch.no_grad():
        own = (
            getattr(model, "bare", model)(x).argmax(1) if batch else torch.zeros(0, dtype=torch.int64, device=x.device)
        )
    every = torch.arange(classes, device=x.device).expand(batch, -1)
    others = every != own[:, None]
    rows = others.nonzero()[:, 0]
    result = attack(model, x[rows], own[rows], target=every[others])

    def table(values: Tensor) -> Tensor:
        out = torch.zeros(batch, classes, dtype=torch.float64)
        out[others.cpu()] = values.double().cpu()
        return out

    points = x[:, None].expand(-1, classes, *x.shape[1:]).clone()
    points[others] = result.x_adv
    reached = iter(result.status)
    status = tuple(tuple(next(reached) if o else Status.MISCLASSIFIED for o in row) for row in others.tolist())
    return EveryClass(
        distance=table(result.distance),
        x_adv=points,
        status=status,
        forwards=None if result.forwards is None else table(result.forwards),
        backwards=None if result.backwards is None else table(result.backwards),
        kkt=None if result.kkt is None else table(result.kkt),
    )
