"""When a training ends before its last epoch, judged on validation data."""

from __future__ import annotations

from dataclasses import dataclass

from robustode.errors import TrainingError
from robustode.training.checks import check_number


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """When a training ends before its last epoch; the accuracies are those of the weights it would keep.

    Args:
        target: validation accuracy, in (0, 1], at which it ends: the weights kept are those of the first check that
            reached it. None: it does not end for that.
        patience: complete epochs without a better validation accuracy after which it ends, ≥ 1; the weights kept, then
            and at the regular end, are those of the best epoch. None: it does not end for that, and the last weights
            are kept.
        checks: how often an epoch the target is asked, evenly spread, ≥ 1; the last is at its end.

    Raises:
        TrainingError: a value out of its range, or neither target nor patience.

    Source: Prechelt, Early stopping - but when?, in Neural Networks: Tricks of the Trade (1998).
    """

    target: float | None = None
    patience: int | None = None
    checks: int = 1

    def __post_init__(self) -> None:
        if self.target is None and self.patience is None:
            raise TrainingError("early stopping", expected="a target accuracy or a patience", got="neither")
        if self.target is not None:
            check_number("target", self.target, positive=True)
            if self.target > 1:
                fix = "Give a fraction: 0.95 for 95 %."
                raise TrainingError("training option target", expected="an accuracy ≤ 1", got=self.target, fix=fix)
        if self.patience is not None:
            check_number("patience", self.patience, whole=True, least=1)
        check_number("checks", self.checks, whole=True, least=1)
