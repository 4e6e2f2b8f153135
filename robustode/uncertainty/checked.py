"""The linear method where it is valid and sigma points where it is not, with a flag for every sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.uncertainty.gaussian import LogitsAlongDepth, Uncertainty
from robustode.uncertainty.linear import first_order
from robustode.uncertainty.problem import Problem
from robustode.uncertainty.unscented import unscented

TOLERANCE = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedUncertainty(Uncertainty):
    """Moments by the linear method where it holds, by sigma points elsewhere.

    Attributes:
        disagreement: of the two about the decisive margin m (the linear method's smallest effective margin), (batch,)
            float64: the larger of |s_u / s_l − 1|, its standard deviations, and |m_u − m_l| / s_l, its means.
        linear_valid: whether that is at most 0.1, (batch,) bool; the moments are the linear ones there.
    """

    disagreement: Tensor
    linear_valid: Tensor


def checked(problem: Problem, x: Tensor) -> CheckedUncertainty:
    """Propagate by both methods and take, for each sample, the better one; see `propagate`."""
    first = first_order(problem, x)
    cov = first.covariance(problem)
    linear = Uncertainty(
        mean=first.logits[:, -1].to(cov), cov=cov[:, -1], along=problem.along_depth(first.logits.to(cov), cov)
    )
    sigma = unscented(problem, x, first)
    found = disagreement(linear, sigma)
    valid = found <= TOLERANCE

    def chosen(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(valid.to(a.device).reshape(-1, *([1] * (a.dim() - 1))), a, b)

    along = None
    if linear.along is not None and sigma.along is not None:
        mean, cov = chosen(linear.along.mean, sigma.along.mean), chosen(linear.along.cov, sigma.along.cov)
        along = LogitsAlongDepth(depth=linear.along.depth, mean=mean, cov=cov)
    return CheckedUncertainty(
        mean=chosen(linear.mean, sigma.mean),
        cov=chosen(linear.cov, sigma.cov),
        along=along,
        disagreement=found,
        linear_valid=valid,
    )


def disagreement(linear: Uncertainty, other: Uncertainty) -> Tensor:
    """Return how far two propagations differ about the decisive margin of the first, see `CheckedUncertainty`.

    It is 0 for a sample that neither gives any uncertainty, and inf or NaN where the numbers are not finite.
    """
    decisive = linear.effective_margin()
    mean, cov = other.mean.cpu().double(), other.cov.cpu().double()
    at, own, k = torch.arange(len(mean)), linear.mean.cpu().argmax(1), decisive.other
    std = (cov[at, own, own] + cov[at, k, k] - 2 * cov[at, own, k]).clamp_min(0).sqrt()
    shift = (mean[at, own] - mean[at, k] - decisive.margin).abs()
    scale = decisive.std.clamp_min(1e-300)
    found = torch.maximum((std - decisive.std).abs(), shift) / scale
    return torch.where((std == 0) & (decisive.std == 0) & (shift == 0), 0.0, found)
