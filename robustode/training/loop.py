"""The training loop: epochs, mini-batches, checks of the cost, early stopping, and the state to resume from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustode.data.dataset import Data
from robustode.models.base import parameters_like
from robustode.models.snode import SNODE
from robustode.training.adversarial import batch_generator
from robustode.training.augment import flipped_and_shifted
from robustode.training.measure import evaluate
from robustode.training.partial import save_partial
from robustode.training.result import Diverged, Progress, TrainingResult
from robustode.training.stopping import Stopping
from robustode.training.trainer import BatchReport, OptimiserConfig, Trainer

DIVERGED = 1000.0  # times the first cost, or the sum of μ₁, μ₂, μ₃ if that is larger


class _TargetReached(Exception):
    """The validation accuracy that ends the training was reached in the middle of an epoch."""


@dataclass(kw_only=True)
class Loop:
    """The epochs of one call of `fit`, whose arguments it holds; `kept` are the weights that it would give back now."""

    model: nn.Module
    data: Data
    test: Data | None
    validation: Data | None
    stopping: Stopping | None
    config: OptimiserConfig
    trainer: Trainer
    batches: int
    on_progress: Callable[[Progress], None] | None
    seed: int
    generator: torch.Generator
    kept: dict[str, Tensor]
    partial: Path | None
    was: dict[str, str]
    history: list[dict[str, float | None]] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)
    limit: float | None = None
    best: float = -1.0
    best_epoch: int = 0
    stopped: str | None = None

    def go(self) -> TrainingResult:
        interrupted, problem = False, None
        try:
            for epoch in range(len(self.history) + 1, self.config.epochs + 1):
                if self.stopped is not None:
                    break
                self._complete(self._epoch(epoch))
        except _TargetReached:
            pass
        except KeyboardInterrupt:
            interrupted = True
            if self.stopping is None or self.stopping.patience is None or not self.best_epoch:
                self.kept = self.trainer.export()
        except FloatingPointError as error:
            problem = str(error)
            self.stopped = f"the cost diverged: {problem}"
        self.model.load_state_dict(self.kept)
        result = self._result(interrupted)
        if problem is not None:
            raise Diverged(problem, self.limit, result, epoch=self.best_epoch or result.epochs_done)
        return result

    def _epoch(self, epoch: int) -> dict[str, float | None]:
        self.model.train()
        names = ("loss", "mismatch", "cross_entropy", "drift", "weights", "log_norm", "accuracy")
        seen, sums = 0, dict.fromkeys(names, 0.0)
        order = torch.randperm(len(self.data), generator=self.generator)
        for number, part in enumerate(order.tensor_split(self.batches), start=1):
            try:
                report = self._checked(self._step(part, epoch, number))
            except FloatingPointError as error:
                raise FloatingPointError(f"{error} in epoch {epoch}, mini-batch {number}") from None
            seen += len(part)
            terms = report.terms.as_dict()
            for name in sums:
                own = terms["total"] * len(part) if name == "loss" else report.correct if name == "accuracy" else None
                sums[name] += terms[name] * len(part) if own is None else own
            self._tell(epoch, number, sums["loss"] / seen, sums["accuracy"] / seen)
            self._ask_target(epoch, number)
        return {"epoch": epoch, **{name: total / seen for name, total in sums.items()}}

    def _tell(self, epoch: int, number: int, loss: float, accuracy: float) -> None:
        if self.on_progress is not None:
            epochs, batches = self.config.epochs, self.batches
            self.on_progress(
                Progress(epoch=epoch, epochs=epochs, batch=number, batches=batches, loss=loss, accuracy=accuracy)
            )

    def _ask_target(self, epoch: int, number: int) -> None:
        """End the training at a check inside an epoch if the weights that it would keep have reached the target."""
        stopping = self.stopping
        if stopping is None or stopping.target is None or number == self.batches:  # `_complete` asks at the end
            return
        if number * stopping.checks // self.batches == (number - 1) * stopping.checks // self.batches:
            return
        weights = self.trainer.export()
        if self._reached(self._accuracy(weights, self.validation), epoch - 1 + number / self.batches):
            self.kept = weights
            raise _TargetReached

    def _reached(self, accuracy: float | None, epochs: float) -> bool:
        """Return whether a validation accuracy reaches the target, and note it."""
        target = None if self.stopping is None else self.stopping.target
        if target is None or accuracy is None or accuracy < target:
            return False
        self.stopped = f"validation accuracy {accuracy:.2%} ≥ {target:.2%} after {epochs:.3g} epochs"
        return True

    def _complete(self, means: dict[str, float | None]) -> None:
        """What follows an epoch: its accuracies, target and patience, and the file to resume from."""
        weights, epoch = self.trainer.export(), len(self.history) + 1
        accuracy = self._accuracy(weights, self.validation)
        test = self._accuracy(weights, self.test)
        row = {**means, "validation_accuracy": accuracy, "test_accuracy": test, "seconds": self._seconds()}
        self.history.append(row)
        patience = None if self.stopping is None else self.stopping.patience
        if self._reached(accuracy, epoch) or patience is None or accuracy is None:
            self.kept = weights
        elif accuracy > self.best:
            self.kept, self.best, self.best_epoch = weights, accuracy, epoch
        elif epoch - self.best_epoch >= patience:
            self.stopped = (
                f"no validation accuracy above {self.best:.2%} (epoch {self.best_epoch}) for {patience} epochs"
            )
        if self.partial is not None:
            save_partial(self.partial, self.was, self._state())

    def _state(self) -> dict[str, Any]:
        names = ("history", "limit", "best", "best_epoch", "stopped", "kept")
        state = {name: getattr(self, name) for name in names}
        own = {"model": self.model.state_dict(), "trainer": self.trainer.state()}
        return {**state, **own, "generator": self.generator.get_state(), "seconds": self._seconds()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `_state` returned."""
        for name in ("history", "limit", "best", "best_epoch", "stopped", "kept"):
            setattr(self, name, state[name])
        self.model.load_state_dict(state["model"])
        self.trainer.restore(state["trainer"])
        self.generator.set_state(state["generator"])
        self.start -= state["seconds"]

    def _step(self, part: Tensor, epoch: int, number: int) -> BatchReport:
        device, dtype = parameters_like(self.model)
        x, y = self.data.x[part].to(device, dtype), self.data.y[part].to(device)
        draws = batch_generator(self.seed, epoch, number)
        if (shift := getattr(self.config, "augment", None)) is not None:
            classifier: Any = self.model
            x = flipped_and_shifted(x, shift, float(classifier.bounds[0]), draws)
        if self.config.adversary is not None:
            x = self.config.adversary.perturb(self.model, x, y, draws)
        return self.trainer.step(x, y)

    def _checked(self, report: BatchReport) -> BatchReport:
        """Return the report; raise `FloatingPointError` if its cost diverges. The first sets the limit."""
        cost, first = self.config.cost, report.terms.total
        if self.limit is None and math.isfinite(first):
            self.limit = DIVERGED * max(first, cost.mu1 + cost.mu2 + cost.mu3)
        for value in (first, report.final):
            if self.limit is None or not value <= self.limit:
                raise FloatingPointError(f"{value:g}")
        return report

    def _accuracy(self, weights: dict[str, Tensor], data: Data | None) -> float | None:
        """The accuracy of `weights` on data; the model's own weights, and its mode, are put back."""
        if data is None:
            return None
        own, training = copy_of(self.model), self.model.training
        self.model.load_state_dict(weights)
        try:
            return evaluate(self.model, data, self.config.cost)[0]
        finally:
            self.model.load_state_dict(own)
            self.model.train(training)

    def _result(self, interrupted: bool) -> TrainingResult:
        train_accuracy, cost = evaluate(self.model, self.data, self.config.cost)
        accuracies = {
            name: None if data is None else evaluate(self.model, data, self.config.cost)[0]
            for name, data in (("test_accuracy", self.test), ("validation_accuracy", self.validation))
        }
        return TrainingResult(
            epochs_done=len(self.history),
            history=tuple(self.history),
            train_accuracy=train_accuracy,
            **accuracies,
            seconds=self._seconds(),
            interrupted=interrupted,
            stopped=self.stopped,
            cost=cost.as_dict(),
            smoothness=self.model.smoothness if isinstance(self.model, SNODE) else None,
        )

    def _seconds(self) -> float:
        return time.perf_counter() - self.start


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the state dict of a model."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
