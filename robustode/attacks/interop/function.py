"""The sensitivity attack as the function that benchmark frameworks call."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustode.attacks.interop.common import Bounds, Function, run
from robustode.attacks.sensitivity import SensitivityAttack
from robustode.errors import AttackError


def sensitivity_attack(
    model: nn.Module | Function,
    inputs: Tensor,
    labels: Tensor,
    targets: Tensor | int | None = None,
    targeted: bool = False,
    *,
    norm: str = "l2",
    eps: float | None = None,
    setting: str = "fast",
    bounds: Bounds | None = None,
) -> Tensor:
    """Return the adversarials of `inputs`, (batch, *input_shape); the clean input where none was found or needed.

    The model is left as it was: training mode, gradients of its weights and all.

    Args:
        model: a module, or a function of inputs that returns logits (batch, classes), classes ≥ 2.
        inputs: (batch, *input_shape), on the model's device and inside its bounds.
        labels: classes to leave; with `targeted` and without `targets`, the classes to reach.
        targets: with `targeted`, the classes to reach, or one class for all inputs.
        targeted: whether to reach a class instead of leaving one.
        norm, eps, setting: as in `SensitivityAttack`; without eps, the minimal norm.
        bounds: (lo, hi) of the inputs; None for the model's own `bounds`, or (0, 1).

    Raises:
        AttackError, BudgetError, ModelError: parameters out of range, or inputs that do not fit the model.

    Source: the signatures of AttackBench (arXiv 2404.19460) and, without `targets`, of adv-lib.
    """
    attack = SensitivityAttack(norm=norm, eps=eps, setting=setting)
    if not targeted:
        if targets is not None:
            raise AttackError("targets", expected="None without targeted=True", got="targets")
        return run(attack, model, inputs, labels, bounds=bounds).x_adv
    target = labels if targets is None else torch.as_tensor(targets, device=inputs.device).expand(len(inputs))
    return run(attack, model, inputs, None, target=target, bounds=bounds).x_adv
