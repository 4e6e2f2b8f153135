"""Random search on the margin inside a ball: an attack that sees logits only, for inputs of any shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustode.attacks.base import AttackResult, Randomness, assess, check_inputs
from robustode.attacks.constraint import constraint
from robustode.attacks.norms import check_norm
from robustode.attacks.projections import furthest
from robustode.errors import AttackError, BudgetError
from robustode.models.base import Classifier

HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)  # shares of the queries after which the blocks halve
STEPS = (0.01, 2.0)  # log-uniform length of a move of the direction, which is about 1 long itself (L2, L1)
QUERIES, BLOCK = 64, 2**14  # moves drawn at once for each sample at most, and their coordinates
SCALARS = 5  # further numbers of a move: place of the square (2), whether it stops inside, how far, its length


@dataclass(frozen=True, kw_only=True)
class RandomSearch:
    """Black-box attack: of random moves inside {ball} ∩ {box}, those that lower the margin z_y − max_k z_k are kept.

    A move changes a random block of coordinates, which shrinks as the queries go: a square of an image with one draw
    for each channel, coordinates chosen one by one of any other input. It aims at a point v on the surface of
    {ball} ∩ {box}: in L∞ the block at ±ε; in L2 and L1 argmax ⟨w, v⟩ for w = δ/ε + a random step in the block. It goes
    there, δ ← v, or (a share `inner` of the moves) stops somewhere on the way, so that the inside is searched too. Both
    sets are convex: no point leaves them. A sample that is broken is left alone; no gradient is ever asked for.

    Args:
        norm: "linf", "l2" or "l1".
        eps: radius of the ball, in raw-input units.
        queries: forward passes for each sample at most, ≥ 2; the clean input is the first.
        block: share of the coordinates that the first moves change, in (0, 1].
        inner: share of the moves that stop inside, in [0, 1].

    Raises:
        AttackError, BudgetError: a parameter out of its range; at the call, inputs that do not fit the model.

    Source: in the manner of Square Attack, Andriushchenko et al. 2020, arXiv 1912.00049, which is for images only and
    for L∞ and L2.
    """

    norm: str = "linf"
    eps: float | None = None
    queries: int = 5000
    block: float = 0.8
    inner: float = 0.25

    limits: ClassVar[str] = "queries ≥ 2, 0 < block ≤ 1, 0 ≤ inner ≤ 1"

    def __post_init__(self) -> None:
        check_norm(self.norm)
        if self.eps is None or not 0 < self.eps < math.inf:
            raise BudgetError("eps of a random search", expected="a positive number", got=repr(self.eps))
        if self.queries < 2 or not 0 < self.block <= 1 or not 0 <= self.inner <= 1:
            got = f"queries {self.queries}, block {self.block:g}, inner {self.inner:g}"
            raise AttackError("parameters of a random search", expected=self.limits, got=got)

    @torch.no_grad()
    def __call__(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        *,
        target: Tensor | None = None,
        generator: Randomness = None,
    ) -> AttackResult:
        """Attack x (batch, *input_shape) with labels y; samples that are misclassified cost their first query only.

        Args:
            target: classes to reach, or None for any other class.
            generator: one for the batch, or one for each sample, whose draws then do not depend on its batch-mates.
        """
        check_inputs(model, x, y, target)
        own = (y if target is None else target).long()
        source = torch.Generator().manual_seed(0) if generator is None else generator
        spent, size = torch.ones(len(x), dtype=torch.float64), x[:1].numel()
        best, value, rows = self._start(model, x, y, own, targeted=target is not None)
        numbers, drawn, at_once = x.new_zeros(0), rows, max(1, min(QUERIES, BLOCK // max(size, 1)))
        for query in range(1, self.queries):
            if len(rows) == 0:
                break
            turn = (query - 1) % at_once
            if turn == 0:
                numbers, drawn = _draw(source, rows, (at_once, 2 * size + SCALARS), x), rows
            point = self._move(x[rows], best[rows], numbers[torch.searchsorted(drawn, rows), turn], query, model.bounds)
            found, _ = constraint(model(point), own[rows], targeted=target is not None)
            better = found <= value[rows]
            best[rows[better]], value[rows[better]] = point[better], found[better]
            spent[rows.cpu()] += 1
            rows = rows[value[rows] >= 0]
        none = torch.zeros_like(spent)
        return assess(model, x, y, best, norm=self.norm, eps=self.eps, target=target, forwards=spent, backwards=none)

    @staticmethod
    def _start(
        model: Classifier, x: Tensor, y: Tensor, own: Tensor, *, targeted: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the clean inputs, their margins, and the rows that there is something to look for in."""
        if len(x) == 0:
            return x.clone(), x.new_zeros(0), y.new_zeros(0)
        logits = model(x)
        value, _ = constraint(logits, own, targeted=targeted)
        open_ = logits.argmax(1) == y
        return x.clone(), value, (open_ & (own != y) if targeted else open_).nonzero().squeeze(1)

    def _move(self, x: Tensor, best: Tensor, numbers: Tensor, query: int, bounds: tuple[float, float]) -> Tensor:
        """Return the next point of each row.

        Args:
            x, best: (rows, *input_shape), clean inputs and best points so far.
            numbers: (rows, 2 · d + SCALARS), uniform in [0, 1).
            query: how many passes there were.
        """
        halved = sum(query > share * self.queries for share in HALVINGS)
        inside = _block(x, numbers, self.block / 2**halved).flatten(1)
        d = inside.shape[1]
        first, second, scalars = numbers[:, :d], numbers[:, d : 2 * d], numbers[:, 2 * d :]
        clean, delta = x.flatten(1), (best - x).flatten(1)
        radius, (lo, hi) = self.eps or 0.0, bounds
        step = _per_channel(second, x) if self.norm == "linf" else torch.special.ndtri(second.clamp(1e-6, 1 - 1e-6))
        if self.norm == "linf":
            aim = torch.where(inside, radius * (2 * (step < 0.5) - 1).to(x), delta)
            aim = (clean + aim).clamp(lo, hi) - clean
        else:
            step = torch.where(inside, step, 0.0)
            length = STEPS[0] * (STEPS[1] / STEPS[0]) ** scalars[:, 4:5]
            wanted = delta / radius + length * step / step.norm(dim=1, keepdim=True).clamp_min(1e-12)
            aim = furthest(wanted, radius, clean, bounds, self.norm)
        share = first if self.norm == "linf" else scalars[:, 3:4]
        share = torch.where(scalars[:, 2:3] < self.inner, share, 1.0)
        return (clean + delta + share * (aim - delta)).clamp(lo, hi).reshape(x.shape)


def _draw(
    source: torch.Generator | Sequence[torch.Generator], rows: Tensor, shape: tuple[int, int], like: Tensor
) -> Tensor:
    """Return uniform numbers of `shape` for each row, from the generator of its sample or from the only one."""
    each = [source[i] if isinstance(source, Sequence) else source for i in rows.tolist()]
    return torch.stack([torch.rand(shape, generator=one, device=one.device) for one in each]).to(like)


def _block(x: Tensor, numbers: Tensor, share: float) -> Tensor:
    """Return which coordinates a move changes, as bool of the shape of `x`: at least one of each row."""
    if x.dim() < 4:
        score = numbers[:, : x[0].numel()]
        return ((score < share) | (score == score.amin(1, keepdim=True))).reshape(x.shape)
    height, width = x.shape[-2:]
    side = max(1, min(height, width, round(math.sqrt(share * height * width))))
    corner = numbers[:, -SCALARS:]
    top = (corner[:, 0] * (height - side + 1)).floor()[:, None]
    left = (corner[:, 1] * (width - side + 1)).floor()[:, None]
    line, column = (torch.arange(n, device=x.device, dtype=x.dtype) for n in (height, width))
    tall, wide = (line >= top) & (line < top + side), (column >= left) & (column < left + side)
    square = tall[:, :, None] & wide[:, None, :]
    return square[:, None].expand(len(x), math.prod(x.shape[1:-2]), height, width).reshape(x.shape)


def _per_channel(numbers: Tensor, x: Tensor) -> Tensor:
    """Return the first number of each channel of an image in all of its pixels; other inputs have one each."""
    if x.dim() < 4:
        return numbers
    channels = numbers.reshape(len(x), -1, x.shape[-2] * x.shape[-1])
    return channels[:, :, :1].expand_as(channels).reshape(numbers.shape)
