"""`fit`: train a model on data, with progress, early stopping and resume, and weights that are always good to keep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from robustode.data.dataset import Data
from robustode.errors import TrainingError
from robustode.training.checks import check_number, check_reachable, check_samples, check_training_data
from robustode.training.loop import Loop, copy_of
from robustode.training.partial import conditions, load_partial
from robustode.training.result import Progress, TrainingResult
from robustode.training.stopping import Stopping
from robustode.training.trainer import OptimiserConfig

if TYPE_CHECKING:
    from robustode.training.recipes import Recipe


def fit(
    model: nn.Module,
    data: Data,
    *,
    recipe: Recipe | OptimiserConfig,
    test: Data | None = None,
    validation: Data | None = None,
    stopping: Stopping | None = None,
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
    partial: Path | None = None,
    resume: bool = False,
) -> TrainingResult:
    """Train `model` in place; the mini-batches of an epoch are nearly equal parts of a new permutation.

    Ctrl-C ends it early: the result says `interrupted` and the model keeps what was learnt.

    Args:
        model: a classifier; NCG needs an sNODE or layered model.
        data: training data, inside the model's bounds.
        recipe: a `Recipe`, or the configuration of an optimiser.
        test: data for the test accuracy after every epoch; never used to choose anything.
        validation: data for the validation accuracy, which `stopping` is judged by.
        stopping: when to end before the last epoch; needs `validation`.
        seed: of the permutations, whole and ≥ 0. The same seed gives the same weights to the bit (on the same machine,
            with as many threads), resumed or not.
        on_progress: called after every mini-batch.
        partial: file in which the state after every complete epoch is kept; None for none. It stays when the training
            ends, so that nothing is lost before its weights are written: delete it then.
        resume: go on from `partial`.

    Raises:
        TrainingError: the data cannot be trained on, the optimiser does not fit the model, or what is resumed was
            started under other conditions.
        DataError: inputs outside the model's bounds.
        Diverged: the cost is not finite or 1000 times the first; the model has the weights of the last complete epoch.
    """
    config: OptimiserConfig = getattr(recipe, "optimiser", recipe)  # type: ignore[assignment]
    check_number("seed", seed, whole=True)
    check_training_data(model, data, config.batch)
    check_reachable(model, data, config.cost)
    for extra in (test, validation):
        if extra is not None:
            check_samples(model, extra)
    if stopping is not None and validation is None:
        fix = "Hold some out: robustode train ... --validation 5000."
        raise TrainingError("early stopping", expected="validation data", got="none", fix=fix)
    if resume and partial is None:
        raise TrainingError("resume", expected="the file of an unfinished training", got="none")
    batches = max(1, round(len(data) / config.batch))
    loop = Loop(
        model=model,
        data=data,
        test=test,
        validation=validation,
        stopping=stopping,
        config=config,
        trainer=config.trainer(model, batches * config.epochs),
        batches=batches,
        on_progress=on_progress,
        seed=seed,
        generator=torch.Generator().manual_seed(seed),
        kept=copy_of(model),
        partial=partial,
        was=conditions(model, data, validation, optimiser=config, stopping=stopping, seed=seed) if partial else {},
    )
    if resume and partial is not None:
        loop.restore(load_partial(partial, loop.was))
    return loop.go()
