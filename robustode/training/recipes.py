"""Recipes: for each architecture and data set the best known network and training, as frozen values."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from robustode.data.dataset import Data
from robustode.errors import TrainingError, unknown
from robustode.models.registry import architecture
from robustode.models.resnet import ResNetConfig
from robustode.models.snode import SNODEConfig
from robustode.training.checks import check_names
from robustode.training.cost import Cost
from robustode.training.ncg import NCGConfig
from robustode.training.result import TrainingResult
from robustode.training.sgd import SGDConfig

_FROM_DATA = frozenset({"input_shape", "classes"})
_SNODE = frozenset(SNODEConfig.model_fields) - _FROM_DATA
_MODEL_OPTIONS = {
    "snode": _SNODE,
    "layered": _SNODE - {"knots", "method"},
    "resnet": frozenset(ResNetConfig.model_fields) - _FROM_DATA,
}
_COST_OPTIONS = frozenset(f.name for f in fields(Cost))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A network and how to train it.

    Attributes:
        arch: "snode", "layered" or "resnet".
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
        """Names that `overrides` takes: of the network, of the optimiser, and the factors of the cost."""
        own = {f.name for f in fields(self.optimiser)} - {"cost"}
        return _MODEL_OPTIONS[self.arch] | own | _COST_OPTIONS

    def overrides(self, **changes: Any) -> Recipe:
        """Return the recipe with other values, e.g. `overrides(epochs=3, steps=15, mu4=1e-4)`.

        Fewer `steps` than the recipe's knots take the knots down with them, unless `knots` is given too.

        Raises:
            TrainingError: an unknown name (the nearest is suggested), or a value out of its range.
        """
        check_names(changes, self.options)
        cost = replace(self.optimiser.cost, **{k: v for k, v in changes.items() if k in _COST_OPTIONS})
        model = {**self.model, **{k: v for k, v in changes.items() if k in _MODEL_OPTIONS[self.arch]}}
        steps, knots = model.get("steps"), model.get("knots")
        if "knots" not in changes and isinstance(steps, int) and isinstance(knots, int):
            model["knots"] = min(knots, steps)
        own = {f.name for f in fields(self.optimiser)}
        training = {k: v for k, v in changes.items() if k in own}
        return replace(self, model=model, optimiser=self.optimiser.replace(cost=cost, **training))


_SNODE_GENERIC = {"horizon": 3.0, "steps": 20, "knots": 10}
_LAYERED_GENERIC = {"horizon": 3.0, "steps": 15}

_GENERIC = (
    Recipe(arch="snode", model=_SNODE_GENERIC, optimiser=NCGConfig(epochs=20, batch=100, length=0.3, averaging=2.0)),
    Recipe(arch="layered", model=_LAYERED_GENERIC, optimiser=SGDConfig(epochs=30, batch=50, learning_rate=1.0)),
    Recipe(arch="resnet", optimiser=SGDConfig(epochs=15, batch=50, learning_rate=0.1, weight_decay=5e-4)),
)
_KNOWN: tuple[Recipe, ...] = ()
RECIPES: dict[tuple[str, str | None], Recipe] = {(r.arch, r.data): r for r in (*_GENERIC, *_KNOWN)}


def recipe(arch: str, data_name: str | None = None) -> Recipe:
    """Return the best known recipe for an architecture on a data set; the fallback for data that it does not know.

    Raises:
        TrainingError: the architecture is unknown.
    """
    if arch not in _MODEL_OPTIONS:
        raise unknown("architecture", arch, _MODEL_OPTIONS, TrainingError)
    return RECIPES.get((arch, data_name)) or RECIPES[arch, None]


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


def provenance(recipe: Recipe, result: TrainingResult, command: str, seed: int) -> dict[str, Any]:
    """Return what a checkpoint's header says of its training, JSON-able and the same for the same command.

    Keys: command, seed, epochs (complete ones), interrupted, cost (factors), cost_terms (on the training data),
    optimiser (name and configuration), accuracy (test, a fraction; None without test data), train_accuracy, versions.
    """
    values = asdict(recipe.optimiser)
    return {
        "command": command,
        "seed": seed,
        "epochs": result.epochs_done,
        "interrupted": result.interrupted,
        "cost": values.pop("cost"),
        "cost_terms": result.cost,
        "optimiser": {"name": recipe.optimiser.name, **values},
        "accuracy": result.test_accuracy,
        "train_accuracy": result.train_accuracy,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of python, torch, numpy and robustode."""
    from importlib.metadata import PackageNotFoundError, version

    import numpy

    try:
        own = version("robustode")
    except PackageNotFoundError:  # run from a source tree that is not installed
        own = "not installed"
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "robustode": own,
    }
