"""Accuracy under noise by drawing it: what the propagated prediction is compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.errors import OptionError
from robustode.models.base import Classifier

CHUNK_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class NoisyAccuracy:
    """Share of correct answers under noise.

    Attributes:
        p_correct: (batch,) float64, share of the draws of each sample that are answered correctly.
        draws: draws for each sample.
    """

    p_correct: Tensor
    draws: int

    @property
    def accuracy(self) -> float:
        """Mean over the samples."""
        return float(self.p_correct.mean())

    @property
    def standard_error(self) -> float:
        """Monte Carlo standard error of `accuracy` for these samples: √(Σ p(1 − p) / (draws − 1)) / batch."""
        p = self.p_correct
        return math.sqrt(float((p * (1 - p)).sum()) / (self.draws - 1)) / len(p)


@torch.no_grad()
def noisy_accuracy(
    model: Classifier, x: Tensor, y: Tensor, *, sigma: float, draws: int, generator: torch.Generator
) -> NoisyAccuracy:
    """Draw x + σ n with n standard normal, not clipped to the bounds, and count correct answers.

    An answer with NaN is of no class.

    Args:
        model: classifier.
        x, y: (batch, *input_shape) and labels.
        sigma: standard deviation of the noise, in raw-input units, ≥ 0.
        draws: draws for each sample, ≥ 2 (one has no standard error).
        generator: source of the noise (CPU).

    Raises:
        OptionError: a value out of its range.
    """
    if not sigma >= 0 or not math.isfinite(sigma):
        raise OptionError("sigma", expected="a finite number ≥ 0", got=sigma)
    if draws < 2:
        raise OptionError("draws", expected="at least 2", got=draws)
    correct = torch.zeros(len(x), dtype=torch.float64)
    each = max(1, CHUNK_ROWS // max(len(x), 1))
    for start in range(0, draws, each):
        count = min(each, draws - start)
        noise = torch.randn(count, *x.shape, generator=generator, dtype=torch.float32).to(x)
        logits = model((x + sigma * noise).flatten(0, 1))
        answers = logits.argmax(1).masked_fill(logits.isnan().any(1), -1).reshape(count, -1)
        correct += (answers == y).sum(0).double().cpu()
    return NoisyAccuracy(p_correct=correct / draws, draws=draws)
