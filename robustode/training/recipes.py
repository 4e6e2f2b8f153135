"""Recipes: for each architecture and data set the best known network and training, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from torch import nn

from robustode.data.dataset import Data
from robustode.errors import TrainingError, unknown
from robustode.models.conv_snode import ConvSNODEConfig
from robustode.models.registry import architecture
from robustode.models.resnet import ResNetConfig
from robustode.models.snode_config import SNODEConfig
from robustode.training.adversarial import OPTIONS as _ADVERSARY_OPTIONS
from robustode.training.adversarial import Adversary, adversary_of
from robustode.training.checks import check_names
from robustode.training.cost import Cost
from robustode.training.ncg import NCGConfig
from robustode.training.sgd import SGDConfig

_FROM_DATA = frozenset({"input_shape", "classes"})
_SNODE = frozenset(SNODEConfig.model_fields) - _FROM_DATA
_MODEL_OPTIONS = {
    "snode": _SNODE,
    "conv-snode": frozenset(ConvSNODEConfig.model_fields) - _FROM_DATA,
    "layered": _SNODE - {"knots", "method", "rtol", "atol", "backend"},
    "resnet": frozenset(ResNetConfig.model_fields) - _FROM_DATA,
}
_COST_OPTIONS = frozenset(f.name for f in fields(Cost))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A network and how to train it.

    Attributes:
        arch: "snode", "conv-snode", "layered" or "resnet".
        model: configuration of the network, without input shape and classes, which the data bring.
        optimiser: `NCGConfig` or `SGDConfig`.
        data: name of the data set it was found for; None for the fallback.
    """

    arch: str
    model: Mapping[str, Any] = field(default_factory=dict)
    optimiser: NCGConfig | SGDConfig
    data: str | None = None

    def __post_init__(self) -> None:
        if self.arch not in _MODEL_OPTIONS:
            raise unknown("architecture", self.arch, _MODEL_OPTIONS, TrainingError)
        check_names(self.model, _MODEL_OPTIONS[self.arch])
        object.__setattr__(self, "model", MappingProxyType(dict(self.model)))

    @property
    def options(self) -> frozenset[str]:
        """Names that `overrides` takes: of network, optimiser and adversary, and the factors of the cost."""
        own = {f.name for f in fields(self.optimiser)} - {"cost"}
        return _MODEL_OPTIONS[self.arch] | own | _COST_OPTIONS | _ADVERSARY_OPTIONS

    def overrides(self, **changes: Any) -> Recipe:
        """Return the recipe with other values, e.g. `overrides(epochs=3, steps=15, mu4=1e-4)`,
        and with an adversary, `overrides(adversary="pgd", adversary_eps=0.1, adversary_norm="linf")`.

        Fewer `steps` than the recipe's knots take the knots down with them, unless `knots` is given too.

        Raises:
            TrainingError: an unknown name (the nearest is suggested), or a value out of its range.
        """
        check_names(changes, self.options)
        changes = adversary_of(changes, self.optimiser.adversary)
        cost = replace(self.optimiser.cost, **{k: v for k, v in changes.items() if k in _COST_OPTIONS})
        model = {**self.model, **{k: v for k, v in changes.items() if k in _MODEL_OPTIONS[self.arch]}}
        steps, knots = model.get("steps"), model.get("knots")
        if "knots" not in changes and isinstance(steps, int) and isinstance(knots, int):
            model["knots"] = min(knots, steps)
        own = {f.name for f in fields(self.optimiser)}
        training = {k: v for k, v in changes.items() if k in own}
        return replace(self, model=model, optimiser=self.optimiser.replace(cost=cost, **training))


_CENTRED = {"background": -1.0, "foreground": 1.0}  # for data whose lower bound is not a background
_STAGES = {"width": 16, "blocks": (1, 1)}
# small data, where the metric in the inputs brings little
_PLAIN = NCGConfig(whitening=0.0, damping="constant", length=0.3)
_SMALL_NCG = _PLAIN.replace(epochs=25, batch=100, averaging=2.0)
_SMALL_SGD = SGDConfig(epochs=40, batch=50, learning_rate=1.0)
_SMALL_RESNET = SGDConfig(epochs=15, batch=50, learning_rate=0.1, weight_decay=5e-4)
_LARGE_NCG = NCGConfig(epochs=4, batch=500, iterations=2, length=0.3, averaging=0.3)
_HELD = {"cost": Cost(mu4=0.006, mu5=0.02), "adversary": Adversary(attack="sensitivity", norm="l2", eps=0.4, steps=1)}
_SMALL_CERTIFIED, _LARGE_CERTIFIED = _SMALL_NCG.replace(**_HELD), _LARGE_NCG.replace(epochs=3, **_HELD)
_LARGE_SGD = SGDConfig(epochs=12, batch=100, learning_rate=1.0)
_LARGE_RESNET = SGDConfig(epochs=4, batch=100, learning_rate=0.1, weight_decay=5e-4)
_MOONS_NCG = _PLAIN.replace(epochs=20, iterations=10)
_SPIRALS_NCG = _PLAIN.replace(epochs=30, batch=500, iterations=20, length=0.1)
_SPIRALS_ADAM = SGDConfig(method="adam", epochs=60, batch=50, learning_rate=0.02)

_SNODES = (
    Recipe(arch="snode", model={"steps": 20, "knots": 10, **_CENTRED}, optimiser=_SMALL_NCG),
    Recipe(arch="snode", data="digits", model={"steps": 20, "knots": 10}, optimiser=_SMALL_NCG),
    Recipe(arch="snode", data="mnist14", model={"steps": 15}, optimiser=_LARGE_NCG),
    Recipe(arch="snode", data="fashion-mnist14", model={"steps": 15}, optimiser=_LARGE_NCG),
    Recipe(arch="snode", data="mnist", model={"steps": 16, "knots": 8}, optimiser=_LARGE_NCG.replace(epochs=3)),
    Recipe(arch="snode", data="fashion-mnist", model={"steps": 16, "knots": 8}, optimiser=_LARGE_NCG.replace(epochs=3)),
    Recipe(
        arch="snode", data="moons", model={"horizon": 5.0, "steps": 20, "knots": 10, **_CENTRED}, optimiser=_MOONS_NCG
    ),
    Recipe(arch="snode", data="spirals", model={"horizon": 10.0, "steps": 40, **_CENTRED}, optimiser=_SPIRALS_NCG),
)
_CONV = {"horizon": 5.0, "steps": 8, "activation": "relu", **_CENTRED}
_CIFAR = {"patch": 2, "channels": 24, **_CONV}
# Without the Sobolev gradient some trainings end with a class whose logit stays near zero, and which ones depends on
# the processor: 86 to 99 % on digits, not 97 to 100 %. The drift keeps softmaxes below 1 (benchmarks/recipe_seeds.py).
_SMALL_ADAM = SGDConfig(method="adam", epochs=15, batch=50, learning_rate=0.01, length=0.3, cost=Cost(mu3=0.001))
_LARGE_ADAM = SGDConfig(method="adam", epochs=4, batch=100, learning_rate=0.01)
_CONVOLUTIONAL_SNODES = (
    Recipe(arch="conv-snode", model=_CONV, optimiser=_SMALL_ADAM),
    Recipe(arch="conv-snode", data="digits", model=_CONV, optimiser=_SMALL_ADAM),
    Recipe(arch="conv-snode", data="mnist14", model=_CONV, optimiser=_LARGE_ADAM),
    Recipe(arch="conv-snode", data="fashion-mnist14", model=_CONV, optimiser=_LARGE_ADAM),
    Recipe(arch="conv-snode", data="mnist", model={"patch": 2, **_CONV}, optimiser=_LARGE_ADAM),
    Recipe(arch="conv-snode", data="fashion-mnist", model={"patch": 2, **_CONV}, optimiser=_LARGE_ADAM),
    Recipe(arch="conv-snode", data="cifar10", model=_CIFAR, optimiser=_LARGE_ADAM.replace(epochs=6)),
)
_TWINS = (
    Recipe(arch="layered", model={"steps": 15, **_CENTRED}, optimiser=_SMALL_SGD),
    Recipe(arch="layered", data="digits", model={"steps": 15}, optimiser=_SMALL_SGD),
    Recipe(arch="layered", data="mnist14", model={"steps": 15}, optimiser=_LARGE_SGD),
    Recipe(arch="layered", data="fashion-mnist14", model={"steps": 15}, optimiser=_LARGE_SGD),
    Recipe(arch="layered", data="mnist", model={"steps": 8}, optimiser=_LARGE_SGD.replace(epochs=3)),
    Recipe(arch="layered", data="fashion-mnist", model={"steps": 8}, optimiser=_LARGE_SGD.replace(epochs=3)),
    Recipe(arch="layered", data="moons", model={"horizon": 5.0, "steps": 20, **_CENTRED}, optimiser=_SMALL_SGD),
    Recipe(arch="layered", data="spirals", model={"horizon": 5.0, "steps": 20, **_CENTRED}, optimiser=_SPIRALS_ADAM),
)
_CONVOLUTIONAL = (
    Recipe(arch="resnet", model=_STAGES, optimiser=_SMALL_RESNET),
    Recipe(arch="resnet", data="digits", model=_STAGES, optimiser=_SMALL_RESNET),
    Recipe(arch="resnet", data="mnist14", model=_STAGES, optimiser=_LARGE_RESNET),
    Recipe(arch="resnet", data="fashion-mnist14", model=_STAGES, optimiser=_LARGE_RESNET),
    Recipe(arch="resnet", data="mnist", model=_STAGES, optimiser=_LARGE_RESNET.replace(epochs=2)),
    Recipe(arch="resnet", data="fashion-mnist", model=_STAGES, optimiser=_LARGE_RESNET.replace(epochs=2)),
    Recipe(arch="resnet", data="cifar10", model=_STAGES, optimiser=_SMALL_RESNET.replace(epochs=6)),
)
# The reference set-up of arXiv 2205.13933, whatever the data.
PAPER = Recipe(
    arch="snode",
    model={"horizon": 3.0, "steps": 150, "knots": 150},
    optimiser=NCGConfig(
        epochs=10,
        batch=100,
        iterations=6,
        length=1.0,
        whitening=0.0,
        line_search="linearised",
        damping="constant",
        averaging=0.0,
        cost=Cost(mu1=1.0, mu2=0.0),
    ),
)
# Large certified radii: mini-batches attacked in L2, weights and log norm held down by μ₄ and μ₅.
_CERTIFIED = (
    Recipe(arch="snode", model={"steps": 15, **_CENTRED}, optimiser=_LARGE_CERTIFIED),
    Recipe(arch="snode", data="digits", model={"steps": 20, "knots": 10}, optimiser=_SMALL_CERTIFIED),
    Recipe(arch="snode", data="mnist14", model={"steps": 15}, optimiser=_LARGE_CERTIFIED),
    Recipe(arch="snode", data="fashion-mnist14", model={"steps": 15}, optimiser=_LARGE_CERTIFIED),
)
# Adversarial training by one random step, where two cores must do: Wong et al., arXiv 2001.03994. For images in [0, 1].
_ONE_STEP = Adversary(attack="pgd", norm="linf", eps=4 / 255, steps=1, step_size=5 / 255)
_ATTACKED_ADAM = _LARGE_ADAM.replace(epochs=6, adversary=_ONE_STEP)
_ADVERSARIAL = (
    Recipe(arch="conv-snode", model=_CONV, optimiser=_ATTACKED_ADAM),
    Recipe(arch="conv-snode", data="cifar10", model=_CIFAR, optimiser=_ATTACKED_ADAM),
    Recipe(arch="resnet", model=_STAGES, optimiser=_SMALL_RESNET.replace(epochs=6, adversary=_ONE_STEP)),
)
# For one GPU: 0.6 and 0.7 million parameters, 0.3 and 0.2 GFLOP a forward row of 32×32×3.
_PGD7 = Adversary(attack="pgd", norm="linf", eps=8 / 255, steps=7, step_size=2 / 255)
_WIDE_SNODE = {"patch": 2, "channels": 64, **_CONV, "steps": 16}
_WIDE_RESNET = {"width": 32, "blocks": (2, 2, 2)}
_GPU_ADAM = SGDConfig(method="adam", epochs=30, batch=250, learning_rate=0.005)
_GPU_SGD = SGDConfig(epochs=30, batch=250, learning_rate=0.2, weight_decay=5e-4)


def _large(adversary: Adversary | None) -> tuple[Recipe, ...]:
    # Flips and shifts for CIFAR-10 alone: a digit in a mirror is none.
    snode, resnet = _GPU_ADAM.replace(adversary=adversary), _GPU_SGD.replace(adversary=adversary)
    return (
        Recipe(arch="conv-snode", model=_WIDE_SNODE, optimiser=snode),
        Recipe(arch="conv-snode", data="cifar10", model=_WIDE_SNODE, optimiser=snode.replace(augment=4)),
        Recipe(arch="resnet", model=_WIDE_RESNET, optimiser=resnet),
        Recipe(arch="resnet", data="cifar10", model=_WIDE_RESNET, optimiser=resnet.replace(augment=4)),
    )


def _by_name(*recipes: Recipe) -> dict[tuple[str, str | None], Recipe]:
    return {(found.arch, found.data): found for found in recipes}


RECIPES = _by_name(*_SNODES, *_CONVOLUTIONAL_SNODES, *_TWINS, *_CONVOLUTIONAL)
NAMED = {
    "best": RECIPES,
    "adversarial": _by_name(*_ADVERSARIAL),
    "large": _by_name(*_large(None)),
    "large-adversarial": _by_name(*_large(_PGD7)),
    "certified": _by_name(*_CERTIFIED),
    "paper": _by_name(PAPER),
}


def recipe(arch: str, data_name: str | None = None, name: str = "best") -> Recipe:
    """Return a recipe for an architecture on a data set.

    Args:
        arch: the architecture.
        data_name: name of the data; the fallback is returned for data that it does not know.
        name: "best" for the best known one; "adversarial" for robust images in [0, 1], "large" and "large-adversarial"
            for networks and trainings that want a GPU (convolutional sNODE and ResNet); "certified" for large certified
            radii, "paper" for the reference set-up of the paper (both sNODE only).

    Raises:
        TrainingError: the architecture or the name is unknown, or the architecture has no recipe of that name.
    """
    if arch not in _MODEL_OPTIONS:
        raise unknown("architecture", arch, _MODEL_OPTIONS, TrainingError)
    if name not in NAMED:
        raise unknown("recipe", name, NAMED, TrainingError)
    found = NAMED[name]
    if (arch, None) not in found:
        archs = " or ".join(sorted({known for known, _ in found}))
        what = f"recipe '{name}'"
        raise TrainingError(what, expected=f"the architecture {archs}", got=arch, fix="Leave --recipe out.")
    return found.get((arch, data_name)) or found[arch, None]


def build(recipe: Recipe, data: Data, seed: int = 0) -> nn.Module:
    """Return the untrained network of a recipe for data: input shape, classes and bounds are theirs.

    Raises:
        TrainingError: the data do not say their bounds, and the recipe does not either.
        ModelError: the network cannot take such data.
    """
    bounds = recipe.model.get("bounds", data.bounds)
    if bounds is None:
        fix = "Give the box of valid inputs: --bounds LO,HI."
        raise TrainingError(f"data '{data.name}'", expected="known bounds", got="none", fix=fix)
    config = {**recipe.model, "bounds": bounds, "input_shape": tuple(data.x.shape[1:]), "classes": data.classes}
    return architecture(recipe.arch)(seed=seed, **config)
