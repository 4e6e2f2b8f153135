"""The judge: what counts as broken is decided here, never by an attack."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.attacks.norms import ball_tolerance, distance, per_sample
from robustode.evaluation.precision import full_precision
from robustode.models.base import Classifier

AGREE = 1e-4  # largest difference of logits between a batch and its samples alone, for batches to be used
PROBE = 16  # samples compared
SLACK = 16  # times the largest difference seen among those compared, that others are allowed for
BATCH = 256
REFUSED = "the attack returned"  # how the reason begins for which a point is refused


def box_tolerance(bounds: tuple[float, float]) -> float:
    """Return by how much float32 arithmetic may leave the box, 2⁻²² (hi − lo); such a point is clipped, not refused."""
    return 2.0**-22 * (bounds[1] - bounds[0])


def same_answers(first: Tensor, second: Tensor, tolerance: float = AGREE) -> bool:
    """Whether two sets of logits (batch, classes) have the same labels and finite values within `tolerance`."""
    finite = first.isfinite()
    if not torch.equal(finite, second.isfinite()) or not torch.equal(first.argmax(1), second.argmax(1)):
        return False
    return not bool(((first - second)[finite].abs() > tolerance).any())


def reading(logits: Tensor, y: Tensor, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return what logits (batch, classes) say: (predicted class, margin in float64), as `Judge.answer` does."""
    logits = logits.double()
    finite = torch.isfinite(logits).all(1)
    own = y if target is None else target
    value = logits.gather(1, own[:, None]).squeeze(1)
    other = logits.scatter(1, own[:, None], -math.inf).amax(1)
    margin = value - other if target is None else other - value
    return torch.where(finite, logits.argmax(1), -1), torch.where(finite, margin, -math.inf)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the judge found of the points that an attack returned.

    Attributes:
        x_adv: the points, clipped to the box.
        success: (batch,) bool.
        distance: (batch,) float64; +inf where not a success.
        pred: (batch,) predicted class of the point; −1 where the model answers with a value that is not finite.
        margin: (batch,) float64, z_y − max_{k≠y} z_k there (for a target t: max_{j≠t} z_j − z_t); negative = broken.
        message: why a point was refused; "" otherwise.
    """

    x_adv: Tensor
    success: Tensor
    distance: Tensor
    pred: Tensor
    margin: Tensor
    message: tuple[str, ...]


class Judge:
    """Predicts as deployed: eval mode, own dtype, one sample at a time unless batches were seen to give the same.

    Args:
        model: classifier, already in eval mode.
        batches: whether batches were seen to give the same; None: they are tried at the first occasion.
        size: samples in a batch.
    """

    def __init__(self, model: Classifier, *, batches: bool | None = None, size: int = BATCH) -> None:
        self.model, self.size = model, size
        self._batches = batches

    @property
    def batches(self) -> bool | None:
        """Whether batches give the same as samples alone; None while that is not known."""
        return self._batches

    @full_precision()
    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Return the logits (batch, classes) of each sample as it would be answered alone, in full precision.

        Where batches are used, samples whose two largest logits are so near that the batch could decide between them,
        as at the points of a minimal-norm attack, are asked alone all the same: 16 of each batch that are
        nearer than 2 `AGREE`, and of the others all that are nearer than twice what these 16 show a batch to change.
        """
        if len(x) == 0:
            return x.new_zeros(0, self.model.classes)
        if self._batches is None and len(x) > 1:
            self._batches = self._agree(x)
        if not self._batches:
            return self._alone(x)
        logits = torch.cat([self.model(part) for part in x.split(self.size)])
        top = logits.topk(2, dim=1).values
        gap = top[:, 0] - top[:, 1]
        close = (~(gap > 2 * AGREE)).nonzero().squeeze(1)
        if len(close):
            parts = (close[close // self.size == batch] for batch in (close // self.size).unique())
            asked = torch.cat([part[_spread(len(part), x.device)] for part in parts])
            allowed = self._ask(x, logits, asked)
            rest = close[~torch.isin(close, asked)]
            self._ask(x, logits, rest[~(gap[rest] > 2 * allowed)])
        return logits

    def _ask(self, x: Tensor, logits: Tensor, rows: Tensor) -> float:
        """Put the answers to some samples alone in the place of the batch's; return how far a sample's logits may lie
        from the batch's judging by these: `SLACK` times the largest difference, at least a few units in the last place,
        at most `AGREE`."""
        if not len(rows):
            return AGREE
        single = self._alone(x[rows])
        size = float(single.abs().max())
        seen = float((single - logits[rows]).abs().max())
        logits[rows] = single
        allowed = SLACK * max(seen, size * torch.finfo(logits.dtype).eps)
        return allowed if allowed < AGREE else AGREE  # also where a logit is not finite

    def _alone(self, x: Tensor) -> Tensor:
        return torch.cat([self.model(x[i : i + 1]) for i in range(len(x))])

    def _agree(self, x: Tensor) -> bool:
        """Compare a batch with some of its samples alone."""
        block = x[: self.size]
        rows = _spread(len(block), x.device)
        return same_answers(self.model(block)[rows], self._alone(block[rows]))

    def answer(self, x: Tensor, y: Tensor, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return (predicted class, margin in float64) at `x`; the margin is negative where the point is broken.

        Where a logit is not finite the model gives no class: prediction −1 and margin −inf, which no label equals.
        """
        return reading(self.logits(x), y, target)

    def judge(
        self, x: Tensor, x_adv: Tensor, y: Tensor, *, norm: str, eps: float | None, target: Tensor | None = None
    ) -> Verdict:
        """Re-predict every point, check box and ball, measure its distance in float64.

        A point is inside the ball if its distance is at most ε + τ (`ball_tolerance`); a minimal-norm attack (ε None)
        has no ball. A point outside the box by more than rounding, or not finite, is refused.
        """
        x_adv = x_adv.detach()
        lo, hi = self.model.bounds
        slack = box_tolerance(self.model.bounds)
        flat = x_adv.flatten(1)
        finite = torch.isfinite(flat).all(1)
        in_box = finite & (flat >= lo - slack).all(1) & (flat <= hi + slack).all(1)
        point = torch.where(per_sample(finite, x), x_adv, x).clamp(lo, hi)
        pred, margin = self.answer(point, y, target)
        gap = distance(x, point, norm)
        limit = math.inf if eps is None else eps + ball_tolerance(eps, (lo, hi), x[0].numel() if len(x) else 1, norm)
        in_ball = gap <= limit
        success = ((pred != y) if target is None else (pred == target)) & in_box & in_ball
        return Verdict(
            x_adv=point,
            success=success,
            distance=torch.where(success, gap, math.inf),
            pred=pred,
            margin=margin,
            message=_refusals(finite, in_box, in_ball, gap),
        )


def _spread(n: int, device: torch.device) -> Tensor:
    """Return at most `PROBE` places among n, evenly spread, the first and the last among them."""
    return torch.linspace(0, n - 1, min(n, PROBE), dtype=torch.float64).round().long().to(device)


def _refusals(finite: Tensor, in_box: Tensor, in_ball: Tensor, gap: Tensor) -> tuple[str, ...]:
    """Say of each point why it is refused, "" if it is not."""
    messages = []
    for is_finite, inside, near, far in zip(*(t.tolist() for t in (finite, in_box, in_ball, gap)), strict=True):
        if not is_finite:
            messages.append(f"{REFUSED} a value that is not finite")
        elif not inside:
            messages.append(f"{REFUSED} a point outside the box")
        elif not near:
            messages.append(f"{REFUSED} a point at distance {far:.6g}, outside the ball")
        else:
            messages.append("")
    return tuple(messages)
