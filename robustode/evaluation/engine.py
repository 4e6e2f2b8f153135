"""One unit of work: one model, one attack, one shard of samples, at all budgets of the attack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from robustode.attacks.card import Card
from robustode.attacks.norms import ball_tolerance
from robustode.evaluation.attempt import attempt
from robustode.evaluation.judge import Verdict
from robustode.evaluation.rows import Outcome, Shard, Subject, make_rows
from robustode.evaluation.seeds import seed_of
from robustode.evaluation.stored import Stored

__all__ = ["Unit", "run_unit", "seed_of"]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What a unit produced.

    Attributes:
        records: its rows.
        timings: one row for each budget.
        sample, x_adv, distance, pred: nearest adversarial of every sample that was broken.
        halved: samples that were attacked together in the end where more took more memory than there was; else None.
    """

    records: pd.DataFrame
    timings: pd.DataFrame
    sample: Tensor
    x_adv: Tensor
    distance: Tensor
    pred: Tensor
    halved: int | None = None


def run_unit(
    subject: Subject,
    attack: Card | Stored,
    shard: Shard,
    *,
    radii: Sequence[float],
    data: str,
    seed: int,
    protocol: str,
    found: Tensor | None = None,
    rows: int | None = None,
) -> Unit:
    """Attack the correctly classified samples of a shard at every budget, judge what came back, and make the records.

    Every random draw, also those of a randomised model, follows from the seed, the model, the attack, its budget and
    the shard. An attack that raises gives `error` rows with its message; the run goes on.

    Args:
        found: (samples,) float64, in a cascade the distances that the attacks before it found, +inf where none did. The
            attack is then started, at each radius, only on the samples that stand there; one without a radius on those
            that stand at the smallest. Its own success at a smaller radius counts, too. The other rows are `skipped`.
        rows: samples attacked together at most; None for all of them.

    Raises:
        MemoryError, RuntimeError: memory does not suffice for a single sample.
    """
    every = (shard.clean_pred == shard.y).nonzero().squeeze(1)
    common = {"data": data, "seed": seed, "protocol": protocol}
    best = _Best(shard)
    frame, timings, halved = [], [], []
    for eps in [None] if attack.kind == "minimal" else list(radii):
        todo = every
        if found is not None:
            known, radius = torch.minimum(found.to(best.distance), best.distance), min(radii) if eps is None else eps
            todo = every[known[every] > radius + _tolerance(subject, shard, radius, attack.norm)]
        outcome, seconds, fewer = attempt(subject, attack, shard, todo, eps, seed, rows)
        halved += [] if fewer is None else [fewer]
        if isinstance(outcome, Outcome):
            best.take(todo, outcome.verdict)
        frame += make_rows(subject, attack, shard, todo, eps, outcome, common)
        place = {"model": subject.label, "attack": attack.name, "norm": attack.norm, "eps": eps, "shard": shard.number}
        timings.append({**place, "samples": len(todo), "seconds": seconds})
    return best.unit(shard, pd.DataFrame(frame), pd.DataFrame(timings), min(halved, default=None))


def _tolerance(subject: Subject, shard: Shard, radius: float, norm: str) -> float:
    size = shard.x[0].numel() if len(shard.x) else 1
    return ball_tolerance(radius, subject.counted.bounds, size, norm)


class _Best:
    """The nearest adversarial of every sample of a shard so far."""

    def __init__(self, shard: Shard) -> None:
        self.distance = torch.full((len(shard.y),), math.inf, dtype=torch.float64, device=shard.x.device)
        self.x, self.pred = shard.x.clone(), shard.clean_pred.clone()

    def take(self, rows: Tensor, verdict: Verdict) -> None:
        better = verdict.success & (verdict.distance < self.distance[rows])
        self.distance[rows[better]] = verdict.distance[better]
        self.x[rows[better]] = verdict.x_adv[better]
        self.pred[rows[better]] = verdict.pred[better]

    def unit(self, shard: Shard, records: pd.DataFrame, timings: pd.DataFrame, halved: int | None) -> Unit:
        found = torch.isfinite(self.distance)
        return Unit(
            records=records,
            timings=timings,
            sample=shard.index[found.cpu()],
            x_adv=self.x[found].cpu(),
            distance=self.distance[found].cpu(),
            pred=self.pred[found].cpu(),
            halved=halved,
        )
