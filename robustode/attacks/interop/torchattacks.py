"""The sensitivity attack as an attack of torchattacks; importing this module imports the library."""

from __future__ import annotations

from torch import Tensor, nn

from robustode.attacks.adapters.torchattacks import import_torchattacks
from robustode.attacks.base import AttackResult
from robustode.attacks.interop.common import UNIT, Bounds, Calls, run
from robustode.attacks.sensitivity import SensitivityAttack
from robustode.errors import AttackError

ROUNDING = 1e-5  # relative to hi − lo: how far inputs may lie outside the box after the library undid a normalisation


class TorchattacksSensitivity(import_torchattacks().attack.Attack):
    """`SensitivityAttack` for users of torchattacks: `adv = TorchattacksSensitivity(model)(images, labels)`.

    Modes, targets, `set_normalization_used`, `set_device` and `save` are those of the library. Inputs without an
    adversarial come back unchanged, with a targeted mode also those that already are what they should become. The
    attack always sees the model in eval mode, whatever mode it is in.

    Args:
        model: the module, as for every attack of the library.
        norm, eps, setting: as in `SensitivityAttack`; without eps, the minimal norm.
        bounds: (lo, hi) of the inputs; None for the model's own `bounds`, or (0, 1).

    Raises:
        MissingDependency: torchattacks is not installed.
        AttackError, BudgetError, ModelError: parameters out of range; at the call, inputs that do not fit the model.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        norm: str = "l2",
        eps: float | None = None,
        setting: str = "fast",
        bounds: Bounds | None = None,
    ) -> None:
        super().__init__("Sensitivity", model)
        self.supported_mode = ["default", "targeted"]
        self.sensitivity = SensitivityAttack(norm=norm, eps=eps, setting=setting)
        self.bounds = None if bounds is None else tuple(bounds)

    @property
    def result(self) -> AttackResult | None:
        """What the attack said of each input of the last call, in the units of the box; None before."""
        return self.__dict__.get("_result")

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the adversarials of `images`; the library calls it, with normalisation undone."""
        if self._model_training:
            raise AttackError("set_model_training_mode", expected="eval mode", got="training mode")
        images = images.detach() if self.device is None else images.detach().to(self.device)
        model, bounds = self.model, self.bounds
        if self.normalization_used is not None:
            bounds = getattr(self.model, "bounds", UNIT) if bounds is None else bounds
            images = _inside(images, bounds)
            model = Calls(self.get_logits, self.model, images)
        target = self.get_target_label(images, labels) if self.targeted else None
        result = run(self.sensitivity, model, images, labels, target=target, bounds=bounds)
        # The library compares whatever is set as an attribute with all that was set before, and tensors cannot be.
        self.__dict__["_result"] = result
        return result.x_adv


def _inside(images: Tensor, bounds: Bounds) -> Tensor:
    """Return images with rounding errors at the faces of the box removed; what lies further out stays there."""
    clamped = images.clamp(*bounds)
    near = (clamped - images).abs() <= ROUNDING * (bounds[1] - bounds[0])
    return clamped.where(near, images)
