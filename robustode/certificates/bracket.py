"""The largest ball that a linear loss with a remainder leaves certified: a bracket, closed for all samples at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FAR = 1e6  # largest radius tried
TINY, HUGE = 1e-300, 1e300
NEAR = 1 - 1e-9  # first radius, as a share of that without a remainder


def largest_balls(remainder: Callable[[Tensor], Tensor], margins: Tensor, linear: Tensor, rounds: int) -> Tensor:
    """Return the largest radii found for every sample and class, (batch, classes).

    If margins lose at most g_k ε' + r_k within radius ε' ≤ ε, that of class k is certified up to min(ε, q_k) with q_k =
    (margin_k − r_k) / g_k. Both ε where all q_k ≥ ε and q where some q_k = q < ε are within the best radius of the
    nearest class, and where all q_k ≥ ε their least is beyond it, as remainders rise with ε: a bracket. The next ε is
    where a remainder of second order through the last one takes the margin, or the middle of the bracket.

    Args:
        remainder: r for radii ε, (batch,): (batch, classes); NaN or inf certify nothing.
        margins: (batch, classes), inf in the column of the label; where another is not positive, its radius is 0.
        linear: g, (batch, classes).
        rounds: radii tried.
    """
    margins = margins.nan_to_num(nan=0.0, posinf=torch.inf)
    rate = linear.nan_to_num(nan=HUGE, posinf=HUGE).clamp(min=TINY)
    best = torch.zeros_like(margins)
    high = (margins.clamp(min=0) / rate).amin(1).clamp(max=FAR)
    low, eps = torch.zeros_like(high), high * NEAR
    for _ in range(rounds):
        lost = remainder(eps).nan_to_num(nan=HUGE, posinf=HUGE)
        found = ((margins - lost) / rate).clamp(min=0).where(lost < HUGE, 0.0)
        best = torch.maximum(best, torch.minimum(eps[:, None], found))
        least = found.amin(1)
        low = torch.maximum(low, torch.minimum(least, eps))
        high = torch.where(least >= eps, torch.minimum(high, least), torch.minimum(high, eps))
        middle = torch.where(low > 0, (low * high).sqrt(), high / 8)
        guess = _second_order(margins, rate, lost, eps)
        inside = (guess > low * 1.001) & (guess < high * 0.999)
        eps = torch.where(inside & (low > 0), guess, middle)
    return best


def _second_order(margins: Tensor, rate: Tensor, lost: Tensor, eps: Tensor) -> Tensor:
    """Return the least ε over the classes with g ε + r (ε / eps)² = margin, (batch,)."""
    bend = lost / eps.clamp(min=TINY).square()[:, None]
    return (2 * margins / (rate + (rate.square() + 4 * bend * margins).sqrt())).nan_to_num(torch.inf).amin(1)
