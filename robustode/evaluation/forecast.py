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
from robustode.evaluation.trial import Name, Trial, trial


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


def forecast(plan: Plan, *, workers: int = 1, memory: int | None = None, tell: Listener | None = None) -> Forecast:
    """Predict what a run will take, from a trial on at most 64 of its samples; nothing is kept.

    Passes are the mean over these samples times all samples. The seconds of a unit of s samples are a + b s, with a
    and b from units of two sizes; groups of units go, the longest first, to the worker that is free the soonest. Memory
    is what this process has once the models have run, and what `footprint` says of the attack.

    Args:
        plan: made by `make_plan`.
        workers: units computed at once, each by a worker like this process.
        memory: bytes that one process may take; None for no limit.
        tell: called with the events of the trial.

    Raises:
        RobustODEError: what would end the run, too, before its first unit.
        RunError: an attack that fails on every sample.
    """
    found = trial(plan, tell or (lambda event: None), memory)
    size, count = plan.protocol.shard, len(plan.data)
    full, rest = divmod(count, size)
    chunks, resident, samples = rows_of(plan, found.ready, memory), resident_bytes(), fixed_bytes(plan.data.x)
    costs = []
    for one, rows in zip(found.ready, chunks, strict=True):
        module, label = one.planned.module, one.subject.label
        forward, backward = flops_per_row(module, one.shards[0].x)
        for attack, most in zip(attacks_of(plan), rows, strict=True):
            name = label, attack.name
            passes = [_scaled(each[name], count) for each in (found.forwards, found.backwards)]
            together = min(size, count) if most is None else min(most, count)
            taken = footprint(module, attack, one.shards[0].x, samples)
            costs.append(
                Cost(
                    model=label,
                    attack=attack.name,
                    norm=attack.norm,
                    attacked=round(found.attacked[name] * count),
                    forwards=passes[0],
                    backwards=passes[1],
                    flops=(passes[0].value or 0.0) * forward + (passes[1].value or 0.0) * backward,
                    seconds=full * _unit(found, name, size) + (_unit(found, name, rest) if rest else 0.0),
                    rows=together,
                    bytes=resident + taken.bytes(together) - taken.fixed,
                )
            )
    judged = max(_judged(one, memory, samples, count) for one in found.ready)
    clean = sum(_line(found.sizes, times, count) for times in found.clean.values())
    return Forecast(
        samples=count,
        units=sum(len(group) for group in groups_of(plan)),
        measured=found.sizes[1],
        costs=tuple(costs),
        clean=clean,
        seconds=clean + _makespan(_groups(plan, found), workers),
        workers=workers,
        threads=torch.get_num_threads(),
        bytes=max([resident + judged, *(cost.bytes for cost in costs)]),
    )


def _judged(one: Ready, memory: int | None, samples: int, count: int) -> int:
    """The bytes that the judge takes beside what is there."""
    module, x = one.planned.module, one.shards[0].x
    size = footprint(module, None, x, samples)
    return size.bytes(min(batch_in(memory, module, x, samples), count)) - size.fixed


def _scaled(per_sample: np.ndarray, count: int) -> Estimate:
    """The total over all samples, from some of them."""
    mean, n = float(per_sample.mean()), len(per_sample)
    spread = float(per_sample.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    spread *= NormalDist().inv_cdf((1 + LEVEL) / 2) * math.sqrt(max(0.0, 1 - n / count))
    lo, hi = (max(0.0, mean - spread), mean + spread) if math.isfinite(spread) else (None, None)
    return Estimate(value=count * mean, lo=None if lo is None else count * lo, hi=None if hi is None else count * hi)


def _line(sizes: tuple[int, int], times: tuple[float, float], size: int) -> float:
    """The seconds of `size` samples, from those of two sizes."""
    (small, large), (first, second) = sizes, times
    slope = (second - first) / (large - small) if large > small else 0.0
    if not 0 < slope <= second / large:  # noise, or only one size: in proportion
        return second * size / large
    return second + slope * (size - large)


def _unit(found: Trial, name: Name, size: int) -> float:
    return _line(found.sizes, found.seconds[name], size)


def _groups(plan: Plan, found: Trial) -> list[float]:
    """Seconds of every group of units, none of which waits for another."""
    size, count = plan.protocol.shard, len(plan.data)
    out = []
    for group in groups_of(plan):
        out.append(sum(_unit(found, (task.label, task.name), min(size, count - task.shard * size)) for task in group))
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
