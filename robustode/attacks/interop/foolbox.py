"""The sensitivity attack as an attack of foolbox; importing this module imports the library."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from robustode.attacks.adapters.foolbox import import_foolbox
from robustode.attacks.base import AttackResult
from robustode.attacks.interop.common import Calls, Function, run
from robustode.attacks.sensitivity import SensitivityAttack
from robustode.errors import AttackError
from robustode.models.registry import is_own

foolbox = import_foolbox()


class FoolboxSensitivity(foolbox.attacks.base.MinimizationAttack):
    """`SensitivityAttack` for users of foolbox: `FoolboxSensitivity(norm="l2")(model, images, labels, epsilons=[...])`.

    Takes models of PyTorch and the criteria Misclassification and TargetedMisclassification. Inputs without an
    adversarial come back unchanged. The bounds are those of the foolbox model.

    Args:
        norm, setting: as in `SensitivityAttack`.

    Attributes:
        distance: the foolbox distance of `norm`.
        result: what the attack said of each input of the last run; None before.

    Raises:
        AttackError, BudgetError, ModelError: parameters out of range; at the call, inputs that do not fit the model.
    """

    def __init__(self, *, norm: str = "l2", setting: str = "fast") -> None:
        self.sensitivity = SensitivityAttack(norm=norm, setting=setting)
        self.result: AttackResult | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.sensitivity})"

    @property
    def distance(self) -> Any:
        """The distance that the library clips and compares by."""
        return getattr(foolbox.distances, self.sensitivity.norm)

    def run(self, model: Any, inputs: Any, criterion: Any, *, early_stop: float | None = None, **kwargs: Any) -> Any:
        """Return the adversarials of `inputs`, of the type of `inputs`; `early_stop` changes nothing."""
        foolbox.attacks.base.raise_if_kwargs(kwargs)
        x, restore = _tensor(inputs)
        labels, target = _goal(foolbox.attacks.base.get_criterion(criterion), len(x))
        self.result = run(self.sensitivity, _deployed(model, x), x, labels, target=target, bounds=tuple(model.bounds))
        return restore(self.result.x_adv)


def _tensor(inputs: Any) -> tuple[Tensor, Any]:
    """Return the PyTorch tensor behind inputs, and what makes a tensor an object like them."""
    eagerpy: Any = import_module("eagerpy")
    x, restore = eagerpy.astensor_(inputs)
    if not isinstance(x.raw, Tensor):
        raise AttackError("inputs", expected="PyTorch tensors", got=type(x.raw).__name__)
    return x.raw, lambda adv: restore(eagerpy.astensor(adv))


def _goal(criterion: Any, samples: int) -> tuple[Tensor | None, Tensor | None]:
    """Return (labels, None) or (None, target classes) of a criterion."""
    goals = {"Misclassification": "labels", "TargetedMisclassification": "target_classes"}
    kind = type(criterion).__name__
    if kind not in goals:
        raise AttackError("foolbox criterion", expected=f"one of {', '.join(goals)}", got=kind)
    classes = getattr(criterion, goals[kind]).raw
    if tuple(classes.shape) != (samples,):
        raise AttackError(f"{goals[kind]} of {kind}", expected=f"shape ({samples},)", got=tuple(classes.shape))
    return (classes, None) if kind == "Misclassification" else (None, classes)


def _deployed(model: Any, x: Tensor) -> nn.Module | Function:
    """Return what the foolbox model computes; RobustODE's own network itself, if nothing stands in front of it."""
    if not isinstance(model, foolbox.PyTorchModel):
        return model
    module: Any = inspect.getclosurevars(model._model).nonlocals.get("model")  # where the library keeps it
    plain = all(part is None for part in model._preprocess_args)
    if plain and is_own(module) and tuple(model.bounds) == tuple(module.bounds):
        return module
    return Calls(model, module, x)
