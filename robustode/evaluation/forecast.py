"""What a run will cost, from a few of its samples: passes, floating-point operations, time and memory."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

from robustode.evaluation.engines.bench import rows_of
from robustode.evaluation.engines.tasks import groups_of
from robustode.evaluation.events import Listener
from robustode.evaluation.flops import flops_per_row
from robustode.evaluation.footprint import batch_in, fixed_bytes, footprint
from robustode.evaluation.jobs import Ready, attacks_of
from robustode.evaluation.peak import resident_bytes
from robustode.evaluation.plan import Plan
from robustode.evaluation.statistics import LEVEL, Estimate
from robustode.evaluation.trial import Clean, Trial, Tried, trial


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one attack will take on one model.

    Attributes:
        model, attack, norm: which.
        attacked: samples that it is started on.
        forwards, backwards: rows, with 95 % intervals for the choice of the samples measured.
        flops: floating-point operations of these passes; NaN where none are seen.
        seconds: of all its units, one after the other, on a worker like the process that measured.
        rows: samples attacked together.
        bytes: resident memory of a process while it runs.
    """

    model: str
    attack: str
    norm: str
    attacked: int
    forwards: Estimate
    backwards: Estimate
    flops: float
    seconds: float
    rows: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a run will take.

    Attributes:
        samples, units: of the whole run.
        measured: samples that the passes were counted on.
        costs: of every model and attack.
        clean: seconds of the clean answers.
        seconds: of the clean answers and all units, with so many workers.
        workers, threads: how many, and the threads of torch in each.
        bytes: largest resident memory of a process.
    """

    samples: int
    units: int
    measured: int
    costs: tuple[Cost, ...]
    clean: float
    seconds: float
    workers: int
    threads: int
    bytes: int

    def total(self, name: str) -> float:
        """Return the sum of "forwards", "backwards", "flops" or "seconds" over all costs."""
        values = (getattr(cost, name) for cost in self.costs)
        return float(sum(value.value or 0.0 if isinstance(value, Estimate) else value for value in values))


def forecast(
    plan: Plan,
    *,
    workers: int = 1,
    threads: int | None = None,
    memory: int | None = None,
    tell: Listener | None = None,
) -> Forecast:
    """Predict what a run will take, from a trial on at most 64 of its samples; nothing is kept.

    Passes are the mean over those of them that are correctly classified, times the number of such among all, which 512
    samples tell. The seconds of a unit of s samples are a + b s, with a and b from units of two sizes; groups of units
    go, the longest first, to the worker that is free the soonest. Memory is what this process has once the models have
    run, and what `footprint` says of the attack.

    Args:
        plan: made by `make_plan`.
        workers: units computed at once, each by a worker like this process.
        threads: of torch in each of them, and in the trial; None for those of this process.
        memory: bytes that one process may take; None for no limit.
        tell: called with the events of the trial.

    Raises:
        RobustODEError: what would end the run, too, before its first unit.
        RunError: an attack that fails on every sample.
    """
    mine = torch.get_num_threads()
    torch.set_num_threads(threads or mine)
    try:
        found = trial(plan, tell or (lambda event: None), memory)
    finally:
        torch.set_num_threads(mine)
    size, count = plan.protocol.shard, len(plan.data)
    full, rest = divmod(count, size)
    chunks, resident, samples = rows_of(plan, found.ready, memory), resident_bytes(), fixed_bytes(plan.data.x)
    costs = []
    for one, rows in zip(found.ready, chunks, strict=True):
        module, label = one.planned.module, one.subject.label
        forward, backward = flops_per_row(module, one.shards[0].x)
        clean = found.clean[label]
        for attack, most in zip(attacks_of(plan), rows, strict=True):
            tried = found.tried[label, attack.name]
            forwards, backwards = (_scaled(each, clean, count) for each in (tried.forwards, tried.backwards))
            together = min(size, count) if most is None else min(most, count)
            taken = footprint(module, attack, one.shards[0].x, samples)
            costs.append(
                Cost(
                    model=label,
                    attack=attack.name,
                    norm=attack.norm,
                    attacked=round(count * clean.correct / clean.n * tried.attacked / max(1, len(tried.forwards))),
                    forwards=forwards,
                    backwards=backwards,
                    flops=(forwards.value or 0.0) * forward + (backwards.value or 0.0) * backward,
                    seconds=full * _unit(tried, clean, size) + (_unit(tried, clean, rest) if rest else 0.0),
                    rows=together,
                    bytes=resident + taken.bytes(together) - taken.fixed,
                )
            )
    judged = max(_judged(one, memory, samples, count) for one in found.ready)
    answers = sum(_line(one.sizes, one.seconds, count) for one in found.clean.values())
    return Forecast(
        samples=count,
        units=sum(len(group) for group in groups_of(plan)),
        measured=found.measured,
        costs=tuple(costs),
        clean=answers,
        seconds=answers + _makespan(_groups(plan, found), workers),
        workers=workers,
        threads=threads or mine,
        bytes=max([resident + judged, *(cost.bytes for cost in costs)]),
    )


def _judged(one: Ready, memory: int | None, samples: int, count: int) -> int:
    """The bytes that the judge takes beside what is there."""
    module, x = one.planned.module, one.shards[0].x
    size = footprint(module, None, x, samples)
    return size.bytes(min(batch_in(memory, module, x, samples), count)) - size.fixed


def _scaled(per_sample: np.ndarray, clean: Clean, count: int) -> Estimate:
    """The total over all samples: their number, times the share of those correctly classified, times the mean of these.

    The interval has the errors of both factors, each less the more of the samples were measured.
    """
    share, m = clean.correct / clean.n, len(per_sample)
    if m == 0:
        return Estimate(value=0.0, lo=None, hi=None)
    mean = float(per_sample.mean())
    value, unseen = count * share * mean, max(0.0, 1 - m / (count * share))
    if m == 1 and unseen > 0:
        return Estimate(value=value, lo=None, hi=None)
    variance = share * (1 - share) / clean.n * (1 - clean.n / count) * mean**2
    variance += share**2 * (float(per_sample.var(ddof=1)) / m * unseen if unseen > 0 else 0.0)
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * count * math.sqrt(variance)
    return Estimate(value=value, lo=max(0.0, value - half), hi=value + half)


def _line(sizes: tuple[int, int], times: tuple[float, float], size: float) -> float:
    """The seconds of `size` samples, from those of two sizes."""
    (small, large), (first, second) = sizes, times
    slope = (second - first) / (large - small) if large > small else 0.0
    if large == 0:
        return second
    if not 0 < slope <= second / large:  # noise, or only one size: in proportion
        return second * size / large
    return second + slope * (size - large)


def _unit(tried: Tried, clean: Clean, size: int) -> float:
    """The seconds of a unit of `size` samples."""
    return _line(tried.sizes, tried.seconds, size * clean.correct / clean.n)


def _groups(plan: Plan, found: Trial) -> list[float]:
    """Seconds of every group of units, none of which waits for another."""
    size, count = plan.protocol.shard, len(plan.data)
    out = []
    for group in groups_of(plan):
        rows = min(size, count - group[0].shard * size)  # a group is of one shard
        out.append(sum(_unit(found.tried[one.label, one.name], found.clean[one.label], rows) for one in group))
    return out


def _makespan(seconds: Iterable[float], workers: int) -> float:
    """Seconds until the last group has ended: the longest first, each to the worker that is free the soonest."""
    free = [0.0] * workers
    for one in sorted(seconds, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + one)
    return max(free)


def as_document(found: Forecast) -> dict[str, Any]:
    """Return a forecast for JSON; numbers that are not known are NaN."""
    return {**asdict(found), **{name: found.total(name) for name in ("forwards", "backwards", "flops")}}
