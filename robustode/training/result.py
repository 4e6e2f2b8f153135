"""What a training tells while it runs, when it is done, and when it diverged."""

from __future__ import annotations

from dataclasses import dataclass

from robustode.errors import TrainingError


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where the training stands after a mini-batch.

    Attributes:
        epoch, batch: counted from 1, of `epochs` and `batches`.
        loss, accuracy: means over the epoch so far, each mini-batch before the step on it; accuracy a fraction. With an
            adversary, of the attacked mini-batches.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a training did; the model holds the weights that it speaks of, and is in eval mode.

    Attributes:
        epochs_done: complete passes over the data.
        history: for each complete epoch its "epoch", "loss", the terms of it ("mismatch", "cross_entropy", "drift",
            "weights", "log_norm") and "accuracy" (means over mini-batches, each before the step on it, attacked if
            there is an adversary), "validation_accuracy" and "test_accuracy" (None without such data) and "seconds"
            since the start.
        train_accuracy, validation_accuracy, test_accuracy: fractions, of the weights kept; None without such data.
        seconds: wall time, everything included, all parts of a resumed training together.
        interrupted: whether Ctrl-C ended it.
        stopped: why it ended before its last epoch by itself; None if it did not.
        cost: terms and total of the cost of the final weights on the training data.
        smoothness: ∫‖θ'(t)‖² dt of the final weights; None for a module without depth.
    """

    epochs_done: int
    history: tuple[dict[str, float | None], ...]
    train_accuracy: float
    validation_accuracy: float | None
    test_accuracy: float | None
    seconds: float
    interrupted: bool
    stopped: str | None
    cost: dict[str, float]
    smoothness: float | None = None


class Diverged(TrainingError):
    """The cost diverged; the model has the weights after a complete `epoch`, which `result` speaks of."""

    def __init__(self, problem: str, limit: float | None, result: TrainingResult, *, epoch: int) -> None:
        kept = f"those after epoch {epoch}" if epoch else "the initial ones"
        super().__init__(
            "training diverged",
            expected="a finite cost" if limit is None else f"a finite cost below {limit:g}",
            got=problem,
            fix=f"The weights kept are {kept}. Use a smaller learning rate or the line search 'accepted'.",
        )
        self.result = result
