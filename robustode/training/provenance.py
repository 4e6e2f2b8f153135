"""What a checkpoint's header says of its training."""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import Any

import torch

from robustode.training.recipes import Recipe
from robustode.training.result import TrainingResult


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
