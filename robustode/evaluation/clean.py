"""The clean accuracy, and what stops an evaluation before its first attack."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.errors import ModelError
from robustode.evaluation.eot import answers_differently
from robustode.evaluation.plan import Plan
from robustode.evaluation.planned import PlannedModel

MARGIN = 0.05  # what the accuracy may fall short of the recorded one
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


def check_clean(plan: Plan, model: PlannedModel, x: Tensor, clean: CleanAccuracy) -> None:
    """Stop before the first attack if the clean answers say that something is wrong.

    Args:
        plan: what will run.
        model: one of its models.
        x: clean inputs that are given to it several times, to see whether it answers alike.
        clean: its accuracy, on all samples or some.

    Raises:
        ModelError: the model answers differently on repeats and no `eot` is given; or, unless `allow_low_accuracy` is
            set, the accuracy is no better than chance or far below the one that the checkpoint records.
    """
    if plan.protocol.eot is None and answers_differently(model.module, x):
        raise ModelError(
            f"model '{model.label}' answers differently when asked again",
            expected="a deterministic classifier in eval mode",
            got="answers that change between repeats",
            fix="Average over its randomness with --eot N (the tables will say so).",
        )
    if plan.protocol.allow_low_accuracy:
        return
    what = f"clean accuracy of '{model.label}' is {clean.accuracy:.1%} of {clean.n} samples"
    chance = float(torch.bincount(plan.data.y).max()) / len(plan.data)
    if is_chance(clean, chance):
        raise ModelError(f"{what}, no better than chance ({chance:.1%})", fix=CAUSES)
    if model.header_accuracy is not None and is_below(clean, model.header_accuracy):
        raise ModelError(f"{what}, but its checkpoint records {model.header_accuracy:.1%}", fix=CAUSES)


def is_chance(clean: CleanAccuracy, chance: float) -> bool:
    """Whether the accuracy is within three standard errors of chance, the share of the largest class.

    Where so few samples cannot lie three standard errors above chance, only an accuracy of at most chance counts.
    """
    if chance >= 1:
        return False
    limit = chance + 3 * math.sqrt(chance * (1 - chance) / clean.n)
    return clean.accuracy <= (limit if limit < 1 else chance)


def is_below(clean: CleanAccuracy, recorded: float) -> bool:
    """Whether the accuracy is more than five points, and more than three standard errors, below the one recorded.

    The standard error is that of n samples at five points below, so that it is not zero where 100 % are recorded.
    """
    rate = min(max(recorded - MARGIN, 0.0), 1.0)
    error = math.sqrt(rate * (1 - rate) / clean.n)
    return clean.accuracy < recorded - max(MARGIN, 3 * error)
