"""The largest ball found for which a bound on the loss of margins leaves something of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustode.certificates.affine_form import SLACK

TRIALS = 10  # radii tried for each sample
FAR = 1e6  # largest radius tried


def search(loss: Callable[[Tensor], Tensor], margins: Tensor, linear: Tensor) -> Tensor:
    """Return for every class the largest radius tried at which the margin outlasts the loss, (batch, classes).

    The first radius is that of the linear part; then a bracket of the largest share loss / margin = 1 is closed, by
    secants in the logarithms and by halvings in turn. What is returned was tried, so that it needs no monotonicity.

    Args:
        loss: maps radii (batch,) to losses (batch, classes).
        margins: (batch, classes), inf in the column of the label; radii of samples with another ≤ 0 are 0.
        linear: (batch, classes), a lower bound of the losses by ε.
    """
    best = torch.zeros_like(margins)
    high = torch.where(linear > 0, margins / linear, torch.inf).amin(1).clamp(min=0, max=FAR)
    low, at_low = torch.zeros_like(high), torch.zeros_like(high)
    at_high, eps = torch.full_like(high, torch.inf), high * (1 - 2 * SLACK)
    for trial in range(TRIALS):
        share = loss(eps) / margins
        share = torch.where(margins > 0, share, torch.inf)
        best = torch.where(share < 1, torch.maximum(best, eps[:, None]), best)
        worst = share.amax(1)
        good = worst < 1
        low, at_low = torch.where(good, eps, low), torch.where(good, worst, at_low)
        high, at_high = torch.where(good, high, eps), torch.where(good, at_high, worst)
        slope = (at_high / at_low).log() / (high / low).log()
        secant = (low.log() - at_low.log() / slope).exp() * (1 - SLACK)
        middle = torch.where(low > 0, (low * high).sqrt(), high / 3)
        fits = secant.isfinite() & (secant > low) & (secant < high)
        eps = torch.where(fits, secant, middle) if trial % 3 != 2 else middle
    return best
