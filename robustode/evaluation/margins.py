"""The margin with which a stored adversarial holds on other hardware, and the push along its ray that gives it one."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustode.attacks.norms import ball_tolerance, distance, per_sample
from robustode.evaluation.judge import BATCH, Judge, reading
from robustode.models.base import Classifier

SHARE = 1e-4  # of the largest logit
TIMES = 10.0  # the sample's own change of logits
SPARE, AIM, ENOUGH = 1.1, 1.2, 2.0  # a pushed margin in required ones: at least, sought, not worth reducing
FURTHEST = 2.0  # times the distance found
PASSES, GROWTH = 10, 8.0  # along the ray, and of s − 1 where the margin is still too small


@dataclass(frozen=True, kw_only=True)
class Secured:
    """Points as they are stored.

    Attributes:
        x_adv: the points.
        distance: (batch,) float64, of these points.
        pred: (batch,) the deployed prediction there, −1 where it is not finite.
        margin: (batch,) float64, max_{k≠y} z_k − z_y there: how far beyond the boundary; +inf where not finite.
        required: (batch,) float64, see `secure`; a point with a smaller margin is thin.
    """

    x_adv: Tensor
    distance: Tensor
    pred: Tensor
    margin: Tensor
    required: Tensor


@torch.no_grad()
def logit_change(model: Classifier, x: Tensor) -> Tensor:
    """Return by how much each sample's logits change across batch sizes and dtypes.

    The largest |z − z_alone| over batches of 2 and of 256 and the other of float32 and float64, where a copy of the
    module can be converted and answers in it; +inf where only one of the answers is finite.

    Returns:
        (batch,) float64.
    """
    alone = _in_batches(model, x, 1)
    others = [_in_batches(model, x, 2), _in_batches(model, x, BATCH), _converted(model, x)]
    change = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for other in others:
        if other is not None and len(x):
            same = (alone == other) | (alone.isnan() & other.isnan())
            gap = torch.where(same, 0.0, (alone - other).abs()).nan_to_num(nan=math.inf)
            change = torch.maximum(change, gap.amax(1))
    return change


def secure(judge: Judge, x: Tensor, x_adv: Tensor, y: Tensor, *, norm: str, ball: Tensor) -> Secured:
    """Push points whose margin is thin a little further along their ray x + s (x_adv − x), s ≥ 1, clipped to the box.

    required = max(1e-4 max|z|, 10 × `logit_change`). A margin below 1.1 required is brought to 1.1 required or more,
    so that it is still `required` where the logits change as they did here. The step is tried at the s of an affine
    model first, then lengthened or halved. A point that cannot have its margin within twice its distance and within its
    ball stays exactly where the attack found it: its margin is then below `required`, unless it was above before.

    Args:
        judge: of the model.
        x, x_adv, y: clean points, adversarials inside the box, labels.
        norm: of the distances.
        ball: (batch,) float64, the ε that a point must not leave (+ τ, `ball_tolerance`); +inf for none.
    """
    change = logit_change(judge.model, x_adv)
    margin, need, _ = _measure(judge, x_adv, y, change)
    thin = (margin < SPARE * need).nonzero().squeeze(1)
    points = x_adv.clone()
    if len(thin):
        points[thin] = _pushed(judge, x[thin], x_adv[thin], y[thin], norm=norm, ball=ball[thin], change=change[thin])
    margin, need, pred = _measure(judge, points, y, change)
    return Secured(x_adv=points, distance=distance(x, points, norm), pred=pred, margin=margin, required=need)


def _pushed(judge: Judge, x: Tensor, x_adv: Tensor, y: Tensor, *, norm: str, ball: Tensor, change: Tensor) -> Tensor:
    """Return each point with a sufficient margin that was met along its ray at the smallest s, or as it was."""
    lo, hi = judge.model.bounds
    gap = distance(x, x_adv, norm)
    limit = ball * (1 + 1e-6) + ball_tolerance(0.0, (lo, hi), x[0].numel(), norm)
    furthest = (ball / gap).clamp(1.0, FURTHEST)
    margin, need, _ = _measure(judge, x_adv, y, change)
    clean = -_measure(judge, x, y, change)[0]
    s = 1 + (AIM * need - margin) / (clean + margin).clamp_min(1e-12)
    failed, met = torch.ones_like(s), torch.full_like(s, math.inf)
    best, rows = x_adv.clone(), torch.arange(len(x), device=x.device)
    for _ in range(PASSES):
        s[rows] = torch.minimum(s[rows], furthest[rows])
        reach = per_sample(s[rows] - 1, x).to(x)
        point = (x_adv[rows] + reach * (x_adv[rows] - x[rows])).clamp(lo, hi)
        margin, need, _ = _measure(judge, point, y[rows], change[rows])
        good = (margin >= SPARE * need) & (distance(x[rows], point, norm) <= limit[rows])
        best[rows[good]] = point[good]
        met[rows[good]], failed[rows[~good]] = s[rows[good]], s[rows[~good]]
        ends = torch.where(good, margin <= ENOUGH * need, s[rows] >= furthest[rows])
        rows = rows[~ends]
        if len(rows) == 0:
            break
        s[rows] = torch.where(met[rows].isfinite(), (failed[rows] + met[rows]) / 2, 1 + GROWTH * (s[rows] - 1))
    return best


def _measure(judge: Judge, x: Tensor, y: Tensor, change: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (margin beyond the boundary, margin required, prediction)."""
    logits = judge.logits(x).double()
    pred, margin = reading(logits, y)
    size = logits.nan_to_num(0.0, 0.0, 0.0).abs().amax(1) if len(x) else change
    return -margin, torch.maximum(SHARE * size, TIMES * change), pred


def _in_batches(model: Classifier, x: Tensor, size: int) -> Tensor:
    """Return the logits of every sample from a full batch of this size: the last one is filled up from the front."""
    rows = torch.arange(math.ceil(len(x) / size) * size, device=x.device) % max(1, len(x))
    return _joined((model(x[part]) for part in rows.split(size)), x)[: len(x)]


def _converted(model: Classifier, x: Tensor) -> Tensor | None:
    """Return the logits in float64 (in float32 if the model is of float64); None where the module does not convert."""
    dtype = torch.float32 if x.dtype == torch.float64 else torch.float64
    if not isinstance(model, nn.Module) or not len(x):
        return None
    try:
        other = copy.deepcopy(model).to(dtype)
        answers = [other(part.to(dtype)) for part in x.split(BATCH)]
    except Exception:  # code of the user's, which was never asked to convert
        return None
    return _joined(answers, x) if answers[0].dtype == dtype else None


def _joined(answers: Iterable[Tensor], x: Tensor) -> Tensor:
    parts = list(answers) if len(x) else []
    return torch.cat(parts).double() if parts else x.new_zeros(0, 1, dtype=torch.float64)
