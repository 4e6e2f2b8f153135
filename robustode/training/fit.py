"""`fit`: train a model on data, with progress, and weights that are always good to keep."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robustode.data.dataset import Data
from robustode.models.base import parameters_like
from robustode.training.checks import check_number, check_reachable, check_samples, check_training_data
from robustode.training.measure import evaluate
from robustode.training.result import Diverged, Progress, TrainingResult
from robustode.training.trainer import BatchReport, OptimiserConfig, Trainer

if TYPE_CHECKING:
    from robustode.training.recipes import Recipe

DIVERGED = 1000.0  # times the first cost, or the sum of μ₁, μ₂, μ₃ if that is larger


def fit(
    model: nn.Module,
    data: Data,
    *,
    recipe: Recipe | OptimiserConfig,
    test: Data | None = None,
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
) -> TrainingResult:
    """Train `model` in place; the mini-batches of an epoch are nearly equal parts of a new permutation.

    Ctrl-C ends it early: the result says `interrupted` and the model keeps what was learnt.

    Args:
        model: a classifier; NCG needs an sNODE or layered model.
        data: training data, inside the model's bounds.
        recipe: a `Recipe`, or the configuration of an optimiser.
        test: data for the test accuracy after every epoch; never used to choose anything.
        seed: of the permutations, whole and ≥ 0. The same seed gives the same weights to the bit (on the same machine,
            with as many threads).
        on_progress: called after every mini-batch.

    Raises:
        TrainingError: the data cannot be trained on, or the optimiser does not fit the model.
        DataError: inputs outside the model's bounds.
        Diverged: the cost is not finite or 1000 times the first; the model has the weights of the last complete epoch.
    """
    config: OptimiserConfig = getattr(recipe, "optimiser", recipe)  # type: ignore[assignment]
    check_number("seed", seed, whole=True)
    check_training_data(model, data, config.batch)
    check_reachable(model, data, config.cost)
    if test is not None:
        check_samples(model, test)
    batches = max(1, round(len(data) / config.batch))
    trainer = config.trainer(model, batches * config.epochs)
    return _Run(model, data, test, config, trainer, batches, on_progress).go(seed)


@dataclass
class _Run:
    """One call of `fit`."""

    model: nn.Module
    data: Data
    test: Data | None
    config: OptimiserConfig
    trainer: Trainer
    batches: int
    on_progress: Callable[[Progress], None] | None
    history: list[dict[str, float | None]] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)
    limit: float | None = None

    def go(self, seed: int) -> TrainingResult:
        good = _copy(self.model)
        generator = torch.Generator().manual_seed(seed)
        interrupted, problem = False, None
        try:
            for epoch in range(1, self.config.epochs + 1):
                means = self._epoch(epoch, generator)
                good = self.trainer.export()
                accuracy = self._test_accuracy(good)
                self.history.append({**means, "test_accuracy": accuracy, "seconds": self._seconds()})
        except KeyboardInterrupt:
            interrupted, good = True, self.trainer.export()
        except FloatingPointError as error:
            problem = str(error)
        self.model.load_state_dict(good)
        result = self._result(interrupted)
        if problem is not None:
            raise Diverged(problem, self.limit, result)
        return result

    def _epoch(self, epoch: int, generator: torch.Generator) -> dict[str, float | None]:
        self.model.train()
        seen, loss, correct = 0, 0.0, 0
        order = torch.randperm(len(self.data), generator=generator)
        for number, part in enumerate(order.tensor_split(self.batches), start=1):
            try:
                report = self._checked(self._step(part))
            except FloatingPointError as error:
                raise FloatingPointError(f"{error} in epoch {epoch}, mini-batch {number}") from None
            seen, correct = seen + len(part), correct + report.correct
            loss += report.terms.total * len(part)
            if self.on_progress is not None:
                self.on_progress(
                    Progress(
                        epoch=epoch,
                        epochs=self.config.epochs,
                        batch=number,
                        batches=self.batches,
                        loss=loss / seen,
                        accuracy=correct / seen,
                    )
                )
        return {"epoch": epoch, "loss": loss / seen, "accuracy": correct / seen}

    def _step(self, part: Tensor) -> BatchReport:
        device, dtype = parameters_like(self.model)
        return self.trainer.step(self.data.x[part].to(device, dtype), self.data.y[part].to(device))

    def _checked(self, report: BatchReport) -> BatchReport:
        """Return the report; raise `FloatingPointError` if its cost diverges. The first sets the limit."""
        cost, first = self.config.cost, report.terms.total
        if self.limit is None and math.isfinite(first):
            self.limit = DIVERGED * max(first, cost.mu1 + cost.mu2 + cost.mu3)
        for value in (first, report.final):
            if self.limit is None or not value <= self.limit:
                raise FloatingPointError(f"{value:g}")
        return report

    def _test_accuracy(self, weights: dict[str, Tensor]) -> float | None:
        """The test accuracy of `weights`; the model's own are put back."""
        if self.test is None:
            return None
        own = _copy(self.model)
        self.model.load_state_dict(weights)
        try:
            return evaluate(self.model, self.test, self.config.cost)[0]
        finally:
            self.model.load_state_dict(own)

    def _result(self, interrupted: bool) -> TrainingResult:
        train_accuracy, cost = evaluate(self.model, self.data, self.config.cost)
        return TrainingResult(
            epochs_done=len(self.history),
            history=tuple(self.history),
            train_accuracy=train_accuracy,
            test_accuracy=None if self.test is None else evaluate(self.model, self.test, self.config.cost)[0],
            seconds=self._seconds(),
            interrupted=interrupted,
            cost=cost.as_dict(),
        )

    def _seconds(self) -> float:
        return time.perf_counter() - self.start


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
