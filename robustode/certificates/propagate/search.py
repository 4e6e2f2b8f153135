"""The largest radius at which a bound holds, sample by sample and class by class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Below = Callable[[Tensor, Tensor], Tensor]  # (numbers of samples, ε of each) → lower bounds of the margins

START = 1e-4  # first radius tried, in widths of the box of valid inputs
FAR = 1e6  # radius beyond which nothing is asked, likewise
SHORT = 1e-7  # an extrapolation stops short of the root by so much, relatively
CLOSE = 5e-7  # a margin that has fallen to so much of the clean one is as good as none
EDGE = 0.02  # share of the bracket that a new radius keeps from its ends


@dataclass(frozen=True, kw_only=True)
class Search:
    """How well the radii are found.

    Attributes:
        tolerance: relative width at which a bracket is narrow enough.
        evaluations: of the bound for each sample, at most; they go to the classes with the smallest radii first.
        nearest: stop when the smallest radius of a sample is found; the other classes keep the largest radius at which
            they were seen certified.
    """

    tolerance: float
    evaluations: int
    nearest: bool = False

    def radii(self, below: Below, clean: Tensor, width: float) -> tuple[Tensor, Tensor]:
        """Return the largest radii found at which the margins are proved positive, and how many were tried.

        Margins fall as ε grows. A class whose margin is positive at ε is certified there, whatever is found at smaller
        ε; so the search decides how large a radius is, not whether it holds.

        Args:
            below: the bound.
            clean: (batch, classes), its values at ε = 0.
            width: of the box of valid inputs.

        Returns:
            (batch, classes) radii, 0 where none was found and inf where `clean` is; (batch,) evaluations.
        """
        bracket = _Bracket(clean, width, self)
        tried = torch.zeros(len(clean), dtype=torch.int64, device=clean.device)
        for _ in range(self.evaluations):
            active = bracket.open.any(1).nonzero()[:, 0]
            if not len(active):
                break
            eps = bracket.next(active)
            bracket.update(active, eps, below(active, eps))
            tried[active] += 1
        return torch.where(clean == torch.inf, torch.inf, bracket.low), tried


class _Bracket:
    """Radii between which every root lies: certified at `low`, not at `high`; with the margins found there."""

    def __init__(self, clean: Tensor, width: float, search: Search) -> None:
        self.clean, self.width, self.search = clean, width, search
        self.low, self.low_margin = torch.zeros_like(clean), clean.clone()
        self.before, self.before_margin = torch.full_like(clean, torch.nan), torch.full_like(clean, torch.nan)
        self.high, self.high_margin = torch.full_like(clean, torch.inf), torch.full_like(clean, torch.nan)
        self.last = torch.zeros_like(clean)  # which end moved last

    @property
    def open(self) -> Tensor:
        """Which classes are worth another evaluation."""
        wide = self.high - self.low > self.search.tolerance * self.high.clamp(max=self.width * FAR)
        asked = (self.clean > 0) & (self.clean < torch.inf)
        open_ = asked & wide & (self.low_margin > CLOSE * self.clean) & (self.low < FAR * self.width)
        if not self.search.nearest:
            return open_
        rival = self.clean < torch.inf
        found = torch.where(rival & ~open_, self.low, torch.inf).min(1, keepdim=True).values
        return open_ & (self.low < found)

    def next(self, at: Tensor) -> Tensor:
        """Return the radius to try for each of the samples: the root as estimated for its nearest open class."""
        guess = torch.where(self.open[at], self._guess(at), torch.inf)
        return guess.min(1).values

    def _guess(self, at: Tensor) -> Tensor:
        low, high, margin = self.low[at], self.high[at], self.low_margin[at]
        fall = (self.before_margin[at] - margin) / (low - self.before[at])
        ahead = low + (1 - SHORT) * margin / fall
        ahead = torch.where(fall > 0, ahead, torch.inf).minimum(1e3 * low)
        ahead = torch.where(low == 0, START * self.width, torch.maximum(ahead, low * (1 + self.search.tolerance)))
        share = margin / (margin - self.high_margin[at])
        halfway = torch.where(low > 0, (low * high).sqrt(), high / 32)
        inside = low + (high - low) * share.clamp(EDGE, 1 - EDGE)
        inside = torch.where(inside.isfinite(), inside, halfway)
        return torch.where(high.isinf(), ahead, inside)

    def update(self, at: Tensor, eps: Tensor, margin: Tensor) -> None:
        """Take the margins found at the radii into account; the far end's counts less if it stays (Illinois)."""
        radius = eps[:, None].expand_as(margin)
        up = (margin > 0) & (radius > self.low[at])
        down = ~(margin > 0) & (radius < self.high[at])
        moved = up.to(margin) - down.to(margin)
        again = (moved == self.last[at]) & (moved != 0)
        self.before[at] = torch.where(up, self.low[at], self.before[at])
        self.before_margin[at] = torch.where(up, self.low_margin[at], self.before_margin[at])
        halved = torch.where(again & up, self.high_margin[at] / 2, self.high_margin[at])
        self.high_margin[at] = torch.where(down, margin, halved)
        self.low_margin[at] = torch.where(up, margin, self.low_margin[at])
        self.low[at] = torch.where(up, radius, self.low[at])
        self.high[at] = torch.where(down, radius, self.high[at])
        self.last[at] = torch.where(moved != 0, moved, self.last[at])
