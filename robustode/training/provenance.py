"""What a checkpoint's header says of its training."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from robustode.training.recipes import Recipe
from robustode.training.result import TrainingResult
from robustode.versions import versions


def provenance(recipe: Recipe, result: TrainingResult, command: str, seed: int) -> dict[str, Any]:
    """Return what a checkpoint's header says of its training, JSON-able and the same for the same command.

    Keys: command, seed, epochs (complete ones), interrupted, stopped (why it ended early by itself, or None), cost
    (factors), cost_terms (on the training data), smoothness (∫‖θ'‖², or None), optimiser (name and configuration),
    accuracy (test, a fraction; None
    without test data), validation_accuracy, train_accuracy, history (the learning curves, without seconds), versions.
    """
    values = asdict(recipe.optimiser)
    return {
        "command": command,
        "seed": seed,
        "epochs": result.epochs_done,
        "interrupted": result.interrupted,
        "stopped": result.stopped,
        "cost": values.pop("cost"),
        "cost_terms": result.cost,
        "smoothness": result.smoothness,
        "optimiser": {"name": recipe.optimiser.name, **values},
        "accuracy": result.test_accuracy,
        "validation_accuracy": result.validation_accuracy,
        "train_accuracy": result.train_accuracy,
        "history": [{key: value for key, value in row.items() if key != "seconds"} for row in result.history],
        "versions": versions(("robustode", "torch", "numpy")),
    }
