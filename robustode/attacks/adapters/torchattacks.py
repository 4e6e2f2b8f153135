"""Any attack of torchattacks behind the `Attack` protocol, inside the model's own bounds."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from robustode.attacks.adapters.boundary import UnitBox, check_budget, judge, quiet, sandbox
from robustode.attacks.adapters.signature import accepted_parameters, check_parameters
from robustode.attacks.base import AttackResult, Randomness, check_inputs
from robustode.attacks.norms import check_norm
from robustode.errors import AttackError, MissingDependency, unknown
from robustode.models.base import Classifier

_RADII = ("eps", "max_epsilon")  # the names that constructors give the radius
_NORM_WORDS = {"linf": "Linf", "l2": "L2"}
_NEED_OBJECTS = {"MultiAttack": "other attacks", "LGV": "a training set"}

# The norm of each attack; those not named here change few pixels, or nothing in particular, and are measured in any.
_NORMS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("FGSM", "BIM", "RFGSM", "PGD", "EOTPGD", "FFGSM", "TPGD", "MIFGSM", "UPGD", "DIFGSM"), ("linf",)),
    **dict.fromkeys(("TIFGSM", "Jitter", "NIFGSM", "PGDRS", "SINIFGSM", "VMIFGSM", "VNIFGSM", "SPSA"), ("linf",)),
    **dict.fromkeys(("PIFGSM", "PIFGSMPP"), ("linf",)),
    **dict.fromkeys(("CW", "PGDL2", "PGDRSL2", "DeepFool"), ("l2",)),
    **dict.fromkeys(("APGD", "APGDT", "AutoAttack", "FAB", "Square"), ("linf", "l2")),
    "EADL1": ("l1",),
    "EADEN": ("l1", "l2"),
}

# Parameters that are lengths in input space besides the radius; cards give them in raw-input units. In every other
# attack `alpha` is one and nothing else is: Jitter's `std` is noise on logits, CW's `lr` lives in tanh space.
_LENGTHS: dict[str, tuple[str, ...]] = {
    "GN": ("std",),
    "JSMA": ("theta",),
    "PGDRS": ("alpha", "noise_sd"),
    "PGDRSL2": ("alpha", "noise_sd"),
    "SPSA": ("delta", "lr"),
}

# With labels as targets, FAB 3.5.1 stops at once (no input is "correct" for its target) and returns the clean inputs.
_NO_TARGET = ("FAB",)

# DeepFool 3.5.1 overshoots each step instead of their sum, so that its last, tiny steps end on the boundary to the last
# bit, where the label depends on rounding: its points are moved outwards by 1e-4 of their length.
_ENDS_ON_BOUNDARY = ("DeepFool",)

_FLOAT32 = ("EADEN", "EADL1", "FAB")  # these mix float32 work arrays with the dtype of their inputs
_WARNINGS = ("__array__ implementation doesn't accept a copy keyword",)  # SparseFool, with NumPy 2

_REAL = ("c", "kappa", "lam", "nsig", "scale")  # numbers whose default happens to be an integer
_RESERVED = {
    "model": "The model is given when the attack runs.",
    **dict.fromkeys(_RADII, "The budget sets it: give eps, in raw-input units."),
    "norm": "The card's norm sets it.",
    "n_classes": "The model sets it.",
    "seed": "The run's seed sets it.",
    "verbose": "Attacks print nothing.",
}


@functools.cache
def _notice_robustbench() -> None:
    """Warn, once, if a real robustbench is installed: torchattacks 3.5.1 installs a stripped one in its place."""
    try:
        version = importlib.metadata.version("robustbench")
    except importlib.metadata.PackageNotFoundError:
        return
    logging.getLogger("robustode").warning(
        "robustbench %s is installed; torchattacks 3.5.1 ships a stripped top-level 'robustbench' of its own, and the "
        "one installed later has overwritten files of the other. Use separate environments if you need robustbench.",
        version,
    )


def import_torchattacks() -> Any:
    """Import torchattacks, an optional library, after looking for a real robustbench that it may have overwritten.

    Raises:
        MissingDependency: torchattacks is not installed.
    """
    if importlib.util.find_spec("torchattacks") is None:
        raise MissingDependency("torchattacks", "torchattacks")
    _notice_robustbench()
    return importlib.import_module("torchattacks")


def _attack_class(name: str) -> type:
    library = import_torchattacks()
    if name in _NEED_OBJECTS:
        needs = _NEED_OBJECTS[name]
        fix = "Put one card for each attack into a suite."
        raise AttackError(f"torchattacks attack {name}", expected="an attack on its own", got=f"needs {needs}", fix=fix)
    names = set(library.__all__) - set(_NEED_OBJECTS)
    if name not in names:
        raise unknown("torchattacks attack", name, names, AttackError)
    return getattr(library, name)


def _radius(cls: type) -> str | None:
    return next((key for key in _RADII if key in accepted_parameters(cls)), None)


def is_minimal(name: str) -> bool:
    """Return whether a torchattacks attack looks for the nearest adversarial instead of searching a ball.

    Raises:
        AttackError: unknown attack.
        MissingDependency: torchattacks is not installed.
    """
    return _radius(_attack_class(name)) is None and name not in ("GN", "VANILA")


@dataclass(frozen=True, kw_only=True)
class TorchattacksAttack:
    """An attack of torchattacks with all its parameters fixed; make it with `build_torchattacks`.

    Attributes:
        name: class of torchattacks.
        norm: norm of the ball, or of the distance it is measured by.
        eps: radius of the ball, in raw-input units; None for a minimal-norm attack.
        params: the other parameters of the constructor; lengths in raw-input units.
    """

    name: str
    norm: str
    eps: float | None
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __call__(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        *,
        target: Tensor | None = None,
        generator: Randomness = None,
    ) -> AttackResult:
        """Attack x (batch, *input_shape) with labels y; every random draw follows from `generator`.

        Raises:
            AttackError: inputs that do not fit the model, or a target for an attack that takes none.
        """
        check_inputs(model, x, y, target)
        with sandbox(model, generator) as seed:
            x_adv = self._run(model, x, y, target, seed) if len(x) else x
            return judge(model, x, y, x_adv, norm=self.norm, eps=self.eps, target=target)

    def _run(self, model: Classifier, x: Tensor, y: Tensor, target: Tensor | None, seed: int) -> Tensor:
        cls = _attack_class(self.name)
        box = UnitBox(model, x, dtype=torch.float32 if self.name in _FLOAT32 else None)
        attack = cls(box, **self._arguments(cls, model, box.span, seed))
        if target is not None:
            if "targeted" not in attack.supported_mode or self.name in _NO_TARGET:
                raise AttackError(f"torchattacks attack {self.name}", expected="no target", got="a targeted run")
            attack.set_mode_targeted_by_label(quiet=True)
        with quiet(*_WARNINGS):
            u = box.enter(x)
            u_adv = attack(u, y if target is None else target)
        if self.name in _ENDS_ON_BOUNDARY:
            u_adv = u + (1 + 1e-4) * (u_adv - u)
        return box.leave(u_adv)

    def _arguments(self, cls: type, model: Classifier, span: float, seed: int) -> dict[str, Any]:
        """Return the constructor's arguments, lengths as fractions of the range of the inputs."""
        lengths = _LENGTHS.get(self.name, ("alpha",))
        given = {key: value / span if key in lengths else value for key, value in self.params.items()}
        radius, accepted = _radius(cls), accepted_parameters(cls)
        ours = {"norm": _NORM_WORDS.get(self.norm), "n_classes": model.classes, "seed": seed, "verbose": False}
        if radius is not None and self.eps is not None:
            ours[radius] = self.eps / span
        return given | {key: value for key, value in ours.items() if key in accepted}


def build_torchattacks(
    name: str, *, norm: str, eps: float | None, params: Mapping[str, Any], minimal: bool = False
) -> TorchattacksAttack:
    """Build the adapter of a torchattacks attack and check everything that can be checked without a model.

    Args:
        name: class of torchattacks ("PGD").
        norm: "l1", "l2" or "linf"; handed to the attacks that take one.
        eps: radius in raw-input units. An attack that takes none is only judged at it.
        params: other parameters of the constructor. Lengths (`alpha`, and those of `_LENGTHS`) are in raw-input units;
            a length left out is the library's default, a fraction of the range of the inputs.
        minimal: run without a ball; `eps` is then not used.

    Raises:
        AttackError: unknown attack or parameter, wrong type, a norm that is not the attack's, minimal norm asked of an
            attack that needs a radius, or no radius for it.
        BudgetError: unknown norm, or a radius that is not positive and finite.
        MissingDependency: torchattacks is not installed.
    """
    what, cls = f"torchattacks attack {name}", _attack_class(name)
    norms = _NORMS.get(name, ())
    if check_norm(norm) not in norms and norms:
        raise AttackError(f"norm of {what}", expected=" or ".join(norms), got=norm)
    check_parameters(cls, params, what=what, reserved=_RESERVED, real=_REAL)
    takes_eps = _radius(cls) is not None
    eps = check_budget(what, eps, minimal=minimal, can_minimise=not takes_eps, needs_eps=takes_eps)
    return TorchattacksAttack(name=name, norm=norm, eps=eps, params=dict(params))
