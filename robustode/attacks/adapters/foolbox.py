"""Any attack of foolbox behind the `Attack` protocol, inside the model's own bounds.

foolbox knows bounds, but not everywhere: HopSkipJump and GenAttack clip to [0, 1] whatever they are (HopSkipJump then
never ends), and the default lengths of DDN, FMN and others are absolute. So here, too, attacks run on the unit box.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from robustode.attacks.adapters.boundary import UnitBox, check_budget, judge, quiet, sandbox
from robustode.attacks.adapters.signature import accepted_parameters, check_parameters
from robustode.attacks.base import AttackResult, Randomness, check_inputs
from robustode.attacks.norms import NORMS, check_norm
from robustode.errors import AttackError, unknown
from robustode.models.base import Classifier

_NORM_OF_ORDER = {1: "l1", 2: "l2", math.inf: "linf"}
_NEED_OBJECTS = {"BinarizationRefinementAttack": "starting points", "DatasetAttack": "a data set to draw from"}
_LENGTHS = ("abs_stepsize", "init_epsilon", "max_stepsize", "min_stepsize", "xi")  # in input space, beside the radius
_NEED_START = tuple(f"{norm}BrendelBethgeAttack" for norm in ("L0", "L1", "L2", "Linfinity"))
_FLOAT32 = ("SpatialAttack",)  # it mixes float32 work arrays with the dtype of its inputs
_WARNINGS = (
    "torch.meshgrid: in an upcoming release",  # SpatialAttack
    "At the first initialisation the optimizer needs to be compiled",  # L2BrendelBethgeAttack
)
_RESERVED = {
    "distance": "The card's norm sets it.",
    "constraint": "The card's norm sets it.",
    "init_attack": "It is an object of foolbox, which a card cannot hold; the library's default is used.",
    "tensorboard": "Attacks write no files.",
}


def import_foolbox() -> Any:
    """Import foolbox without the one deprecation warning that its import raises (foolbox 3.3.4 with SciPy below 2)."""
    with quiet("Please import `gaussian_filter` from the `scipy.ndimage` namespace"):
        return importlib.import_module("foolbox")


def _attack_class(name: str) -> type:
    attacks = import_foolbox().attacks
    if name in _NEED_OBJECTS:
        needs = _NEED_OBJECTS[name]
        fix = "Call it from a python: attack of your own."
        raise AttackError(f"foolbox attack {name}", expected="an attack on its own", got=f"needs {needs}", fix=fix)
    classes = {
        key: value
        for key, value in vars(attacks).items()
        if inspect.isclass(value) and issubclass(value, attacks.Attack) and not inspect.isabstract(value)
    }
    if name not in classes:
        raise unknown("foolbox attack", name, set(classes) - set(_NEED_OBJECTS), AttackError)
    return classes[name]


def _takes_eps(cls: type) -> bool:
    return issubclass(cls, import_foolbox().attacks.base.FixedEpsilonAttack)


def _construct(cls: type, what: str, norm: str, params: Mapping[str, Any]) -> Any:
    given, accepted = dict(params), accepted_parameters(cls)
    if "distance" in accepted:
        given["distance"] = getattr(import_foolbox().distances, norm)
    if "constraint" in accepted:
        given["constraint"] = norm
    try:
        with quiet(*_WARNINGS):
            return cls(**given)
    except ModuleNotFoundError as missing:  # Brendel-Bethge
        fix = f"Install it with: pip install {missing.name}"
        raise AttackError(what, expected=f"{missing.name}, which it needs", got="none", fix=fix) from missing
    except (ValueError, AssertionError) as reason:
        raise AttackError(what, got=f"{type(reason).__name__} from foolbox: {reason}") from reason


def _norms(cls: type, what: str, norm: str, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the norms that a foolbox attack can be measured in: its distance, where that is one of ours."""
    accepted = accepted_parameters(cls)
    if "constraint" in accepted:  # HopSkipJump: the distance that it declares, L1, is not used
        return ("l2", "linf")
    if "distance" in accepted:
        return NORMS
    distance = getattr(_construct(cls, what, norm, params), "distance", None)  # none in SpatialAttack; L0 is not ours
    known = _NORM_OF_ORDER.get(getattr(distance, "p", None))
    return (known,) if known else NORMS


def is_minimal(name: str) -> bool:
    """Return whether a foolbox attack looks for the nearest adversarial instead of searching a ball.

    Raises:
        AttackError: unknown attack.
    """
    return not _takes_eps(_attack_class(name))


def _criterion(y: Tensor, target: Tensor | None) -> Any:
    criteria = import_foolbox().criteria
    return criteria.Misclassification(y) if target is None else criteria.TargetedMisclassification(target)


def _from_starts(
    attack: Any, model: Any, u: Tensor, y: Tensor, target: Tensor | None, options: Mapping[str, Any]
) -> Tensor:
    """Run an attack that needs adversarial points to start from on the samples for which there is one.

    The library gives up the whole batch where one sample has none. Blended noise is its own default; DeepFool is asked
    where that finds nothing.
    """
    attacks = import_foolbox().attacks
    start, found = u.clone(), torch.zeros(len(u), dtype=torch.bool, device=u.device)
    firsts = [attacks.LinearSearchBlendedUniformNoiseAttack()] + (
        [attacks.L2DeepFoolAttack()] if target is None else []
    )
    for first in firsts:
        rows = (~found).nonzero().squeeze(1)
        if len(rows):
            goal = None if target is None else target[rows]
            with quiet("LinearSearchBlendedUniformNoiseAttack failed to draw sufficient random inputs"):
                start[rows] = first.run(model, u[rows], _criterion(y[rows], goal))
            with torch.no_grad():
                pred = model(start[rows]).argmax(1)
            found[rows] = pred != y[rows] if goal is None else pred == goal
    rows, out = found.nonzero().squeeze(1), u.clone()
    if len(rows):
        criterion = _criterion(y[rows], None if target is None else target[rows])
        out[rows] = attack(model, u[rows], criterion, starting_points=start[rows], **options)[1]
    return out


@dataclass(frozen=True, kw_only=True)
class FoolboxAttack:
    """An attack of foolbox with all its parameters fixed; make it with `build_foolbox`.

    Attributes:
        name: class of `foolbox.attacks`.
        norm: norm of the ball, or of the distance it minimises.
        eps: radius of the ball, in raw-input units; None for a minimal-norm attack.
        params: parameters of the constructor; lengths in raw-input units.
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
            AttackError: inputs that do not fit the model.
        """
        check_inputs(model, x, y, target)
        with sandbox(model, generator):
            x_adv = self._run(model, x, y, target) if len(x) else x
            return judge(model, x, y, x_adv, norm=self.norm, eps=self.eps, target=target)

    def _run(self, model: Classifier, x: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        library, cls = import_foolbox(), _attack_class(self.name)
        box = UnitBox(model, x, dtype=torch.float32 if self.name in _FLOAT32 else None)
        scaled = {key: v / box.span if key in _LENGTHS and v is not None else v for key, v in self.params.items()}
        attack = _construct(cls, f"foolbox attack {self.name}", self.norm, scaled)
        criterion = _criterion(y, target)
        radius = None if self.eps is None or not _takes_eps(cls) else self.eps / box.span
        options = {"epsilons": radius} if isinstance(attack, library.attacks.base.AttackWithDistance) else {}
        unit_model = library.PyTorchModel(box, bounds=(0, 1), device=x.device)
        with quiet(*_WARNINGS):
            if self.name in _NEED_START:
                return box.leave(_from_starts(attack, unit_model, box.enter(x), y, target, options))
            return box.leave(attack(unit_model, box.enter(x), criterion, **options)[1])


def build_foolbox(
    name: str, *, norm: str, eps: float | None, params: Mapping[str, Any], minimal: bool = False
) -> FoolboxAttack:
    """Build the adapter of a foolbox attack and check everything that can be checked without a model.

    Args:
        name: class of `foolbox.attacks`, or an alias there ("LinfPGD").
        norm: "l1", "l2" or "linf"; handed to the attacks that take a distance.
        eps: radius in raw-input units. A minimal-norm attack is run as such and only judged at it.
        params: parameters of the constructor. Lengths (`_LENGTHS`: `abs_stepsize`, DDN's `init_epsilon`, ...) are in
            raw-input units; a length left out is the library's default, a fraction of the range of the inputs.
        minimal: run without a ball; `eps` is then not used.

    Raises:
        AttackError: unknown attack or parameter, wrong type, a norm that is not the attack's, minimal norm asked of an
            attack that needs a radius, or no radius for it.
        BudgetError: unknown norm, or a radius that is not positive and finite.
    """
    what, cls = f"foolbox attack {name}", _attack_class(name)
    check_parameters(cls, params, what=what, reserved=_RESERVED)
    if check_norm(norm) not in (norms := _norms(cls, what, norm, params)):
        raise AttackError(f"norm of {what}", expected=" or ".join(norms), got=norm)
    _construct(cls, what, norm, params)
    takes_eps = _takes_eps(cls)
    eps = check_budget(what, eps, minimal=minimal, can_minimise=not takes_eps, needs_eps=takes_eps)
    return FoolboxAttack(name=name, norm=norm, eps=eps, params=dict(params))
