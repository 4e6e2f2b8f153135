"""The largest ball found for which a bound on the loss of margins leaves something of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WIDER = 1.2  # factor of the next radius where one holds and none is known that fails
CLOSE = 1e-7  # relative, between a secant and where it points


def search(loss: Callable[[Tensor], Tensor], margins: Tensor, known: Tensor, start: Tensor, trials: int) -> Tensor:
    """Return for every class the largest radius tried at which the margin outlasts the loss, (batch, classes).

    A bracket of the largest share loss / margin = 1 is closed, by secants in the logarithms and by halvings. What is
    returned was tried, so that it needs no monotonicity; 0 where nothing held.

    Args:
        loss: maps radii (batch,) to losses (batch, classes).
        margins: (batch, classes), inf in the column of the label.
        known: (batch,), radii that hold by another search: smaller ones are not tried.
        start: (batch,), the radii tried first.
        trials: their number.
    """
    best = torch.zeros_like(margins)
    low, at_low = known, torch.zeros_like(known)
    high, at_high = torch.full_like(known, torch.inf), torch.full_like(known, torch.inf)
    eps = start
    for trial in range(trials):
        share = torch.where(margins > 0, loss(eps) / margins, torch.inf)
        best = torch.where(share < 1, torch.maximum(best, eps[:, None]), best)
        worst = share.amax(1)
        good = worst < 1
        low, at_low = torch.where(good, eps, low), torch.where(good, worst, at_low)
        high, at_high = torch.where(good, high, eps), torch.where(good, at_high, worst)
        secant = low * (high / low) ** (at_low.log() / (at_low / at_high).log()) * (1 - CLOSE)
        middle = torch.where(low > 0, (low * high).sqrt(), high / 3)
        fits = (secant > low) & (secant < high) & (at_low > 0)
        closer = torch.where(fits, secant, middle) if trial % 3 != 2 else middle
        eps = torch.where(high.isinf(), low * WIDER, closer)
    return best
