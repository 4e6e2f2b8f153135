"""What the doors to other tools share: any callable as a classifier, and targets as their conventions have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustode.attacks.adapters.boundary import untouched
from robustode.attacks.base import AttackResult
from robustode.attacks.sensitivity import SensitivityAttack
from robustode.errors import AttackError, ModelError
from robustode.models.registry import is_own
from robustode.models.wrap import WrappedModel, wrap

Function = Callable[[Tensor], Tensor]
Bounds = Sequence[float]
UNIT: tuple[float, float] = (0.0, 1.0)


class Calls(nn.Module):
    """A function of inputs as a module.

    Args:
        function: (batch, *input_shape) to logits (batch, classes).
        module: what `function` calls, or None; its parameters and modes are then those of this module, too.
        like: an input; its device and dtype are those of a function without parameters.
    """

    def __init__(self, function: Function, module: nn.Module | None, like: Tensor) -> None:
        super().__init__()
        self.function, self.module = function, module
        self.register_buffer("anchor", like.new_empty(0))

    def forward(self, x: Tensor) -> Tensor:
        """Return the function's logits."""
        return self.function(x)


def run(
    attack: SensitivityAttack,
    model: nn.Module | Function,
    x: Tensor,
    labels: Tensor | None,
    *,
    target: Tensor | None = None,
    bounds: Bounds | None = None,
) -> AttackResult:
    """Attack any model as its user left it: in eval mode for the time of the attack, the weights frozen.

    Args:
        attack: the attack.
        model: a module, or a function of (batch, *input_shape) that returns logits; the classes are counted by a pass.
        x: (batch, *input_shape).
        labels: classes to leave; not used if there are targets.
        target: classes to reach. Then an input is adversarial that the model already takes for its target, whatever
            its label is: its status is `misclassified` and its distance 0.
        bounds: box of the inputs; None for the model's own, or [0, 1].

    Raises:
        AttackError, ModelError: inputs, labels or bounds that do not fit the model.
    """
    x = x.detach()
    module: Any = model if isinstance(model, nn.Module) else Calls(model, None, x)
    with untouched(module):
        classifier = _classifier(module, x, bounds)
        if target is None:
            return attack(classifier, x, _classes(labels, x))
        target = _classes(target, x)
        with torch.no_grad():
            now = classifier(x).argmax(1)
        return attack(classifier, x, torch.where(now == target, (target + 1) % classifier.classes, now), target=target)


def _classes(labels: Tensor | None, x: Tensor) -> Tensor:
    """Return integer classes as int64, beside `x`."""
    if labels is None:
        raise AttackError("labels", expected="a class for each input, or targets", got="None")
    labels = labels.to(x.device)
    if labels.shape != (len(x),) or labels.is_floating_point():
        got = f"{labels.dtype} {tuple(labels.shape)}"
        raise AttackError("labels or targets", expected=f"integers of shape ({len(x)},)", got=got)
    return labels.long()


def _classifier(module: Any, x: Tensor, bounds: Bounds | None) -> Any:
    """Return a classifier that knows its box, classes and input shape; RobustODE's own keep their fused sweep."""
    if is_own(module) or isinstance(module, WrappedModel):
        if bounds is not None and tuple(bounds) != tuple(module.bounds):
            who, fix = type(module).__name__, "Leave out bounds."
            raise ModelError(f"bounds of {who}", expected=f"its own, {module.bounds}", got=tuple(bounds), fix=fix)
        return module
    own = getattr(module, "bounds", UNIT)
    if not any(tensor.is_floating_point() for tensor in (*module.parameters(), *module.buffers())):
        module = Calls(module, module, x)
    sample = _finite(module, x) if len(x) else None
    return wrap(module, bounds=own if bounds is None else bounds, input_shape=tuple(x.shape[1:]), sample=sample)


@torch.no_grad()
def _finite(module: Any, x: Tensor) -> Tensor:
    """Return the first sample, (1, *input_shape), with finite logits, to count the classes by; else x[:1]."""
    for row in x.split(1):
        logits = module(row)
        if not isinstance(logits, Tensor) or bool(logits.isfinite().all()):
            return row
    return x[:1]
