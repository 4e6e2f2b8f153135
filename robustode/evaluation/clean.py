"""The clean accuracy, and what stops an evaluation before its first attack."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustode.errors import ModelError
from robustode.evaluation.eot import answers_differently
from robustode.evaluation.judge import Judge

if TYPE_CHECKING:
    from robustode.evaluation.plan import Plan, PlannedModel

CAUSES = (
    "Likely causes: a missing or doubled normalisation (--mean/--std, --normalise), inputs in another range "
    "(--bounds), another order of channels or classes, another data set or split. To go on all the same: "
    "--allow-low-accuracy."
)


@dataclass(frozen=True, kw_only=True)
class CleanAccuracy:
    """Correct answers among n clean samples."""

    correct: int
    n: int

    @property
    def accuracy(self) -> float:
        """correct / n."""
        return self.correct / self.n


def clean_answers(judge: Judge, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the judge's (prediction, margin) at the clean inputs."""
    with torch.no_grad():
        return judge.answer(x, y)


def check_clean(plan: Plan, model: PlannedModel, judge: Judge, x: Tensor, clean: CleanAccuracy) -> None:
    """Stop before the first attack if the clean answers say that something is wrong.

    Raises:
        ModelError: the model answers differently on repeats and no `eot` is given; or the accuracy is within three
            standard errors of chance (the largest class share), or more than five points and three standard errors
            below the accuracy that the checkpoint records, and `allow_low_accuracy` is not set.
    """
    if plan.protocol.eot is None and answers_differently(judge.model, x):
        raise ModelError(
            f"model '{model.label}' answers differently when asked again",
            expected="a deterministic classifier in eval mode",
            got="labels that change between repeats",
            fix="Average over its randomness with --eot N (the tables will say so).",
        )
    if plan.protocol.allow_low_accuracy:
        return
    counts = torch.bincount(plan.data.y)
    chance = float(counts.max()) / clean.n
    error = math.sqrt(chance * (1 - chance) / clean.n)
    if clean.accuracy <= chance + 3 * error and chance < 1:
        raise ModelError(
            f"clean accuracy of '{model.label}' is {clean.accuracy:.1%} of {clean.n} samples, no better than chance "
            f"({chance:.1%})",
            fix=CAUSES,
        )
    recorded = model.header_accuracy
    if recorded is None:
        return
    spread = 3 * math.sqrt(max(recorded * (1 - recorded), 0.0) / clean.n)
    if clean.accuracy < recorded - max(0.05, spread):
        raise ModelError(
            f"clean accuracy of '{model.label}' is {clean.accuracy:.1%} of {clean.n} samples, but its checkpoint "
            f"records {recorded:.1%}",
            fix=CAUSES,
        )
