"""Computes what is missing of the units of a run, by whatever engine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustode.evaluation import shards
from robustode.evaluation.cascade import found_before
from robustode.evaluation.engine import Unit
from robustode.evaluation.engines.bench import Rows, bench_of, rows_of
from robustode.evaluation.engines.cluster import cluster, ray_pool
from robustode.evaluation.engines.drive import Driven, Pool, drive
from robustode.evaluation.engines.failed import units_failed
from robustode.evaluation.engines.local import LocalPool
from robustode.evaluation.engines.options import Engine
from robustode.evaluation.engines.processes import process_pool
from robustode.evaluation.engines.sent import sent_of
from robustode.evaluation.engines.tasks import WHOLE, Part, Task, groups_of, missing
from robustode.evaluation.events import Event, Listener
from robustode.evaluation.jobs import Ready, attacks_of
from robustode.evaluation.peak import peak_bytes
from robustode.evaluation.plan import Plan


def compute(
    plan: Plan, ready: Sequence[Ready], out: Path, engine: Engine, tell: Listener, part: Part = WHOLE
) -> dict[str, Any]:
    """Compute the units of a part of a plan that are not on disk, and return what run.json says of the engine.

    Args:
        plan, ready: what runs.
        out: directory of the run.
        engine: what computes them.
        tell: called with an event "resumed" or "unit" for each of them, and with one "memory" the first time that
            memory did not suffice.
        part: (i, n), only the i-th of n parts.

    Raises:
        UnitsFailed: some could not be computed; all others are on disk.
        RunError: the workers cannot start.
    """
    groups = groups_of(plan, part)
    rest = missing(groups, out)
    kept = _Kept(plan=plan, ready=ready, out=out, tell=tell, groups=groups)
    kept.resume({task.number for group in rest for task in group})
    driven, facts = Driven(), {}
    rows = rows_of(plan, ready, engine.memory)
    if rest:
        with _pool(plan, ready, engine, rows, len(rest)) as (pool, threads):
            facts = {"workers": pool.size, "threads": threads}
            driven = drive(rest, pool, found=kept.found, keep=kept.keep)
    if driven.failed:
        raise units_failed(driven.failed, out, kept.total)
    return {"name": engine.name, **facts, **_told(driven), **_memory(plan, engine, rows, driven.peak)}


class _Kept:
    """The units of a part of a run on disk, and how far they are."""

    def __init__(
        self, *, plan: Plan, ready: Sequence[Ready], out: Path, tell: Listener, groups: Sequence[Sequence[Task]]
    ) -> None:
        self._plan, self._ready, self._out, self._tell = plan, ready, out, tell
        self._tasks = sorted((task for group in groups for task in group), key=lambda task: task.number)
        self._attacks = attacks_of(plan)
        self._done, self._told = 0, False
        self.total = len(self._tasks)

    def resume(self, open_: set[int]) -> None:
        """Count the units that are there already."""
        for task in self._tasks:
            if task.number not in open_:
                self._count("resumed", task)

    def found(self, task: Task) -> Tensor | None:
        """Return what the attacks before a task in its cascade found."""
        shard = self._ready[task.model].shards[task.shard]
        return found_before(self._out, task.label, self._plan.attacks.cards, self._attacks[task.attack], shard)

    def keep(self, task: Task, unit: Unit) -> None:
        """Write a unit."""
        shards.write(task.place(self._out), unit, keep_points="adversarials" in self._plan.protocol.outputs)
        if unit.halved is not None and not self._told:
            self._told = True
            text = (
                f"{task.words}: memory did not suffice for all samples at once; such units are computed on fewer at a "
                f"time, this one on {unit.halved}"
            )
            self._tell(Event(kind="memory", model=task.label, text=text))
        self._count("unit", task)

    def _count(self, kind: str, task: Task) -> None:
        self._done += 1
        self._tell(Event(kind=kind, model=task.label, text=task.name, done=self._done, total=self.total))


@contextmanager
def _pool(plan: Plan, ready: Sequence[Ready], engine: Engine, rows: Rows, most: int) -> Iterator[tuple[Pool, int]]:
    """Yield what computes the units, at most `most` at once, and the threads of torch in each of its workers."""
    if engine.name == "local":
        yield LocalPool(bench_of(plan, ready, rows)), torch.get_num_threads()
    elif engine.name == "processes":
        workers = min(engine.workers or os.cpu_count() or 1, most)
        threads = threads_of(engine.name, workers)
        with process_pool(sent_of(plan, ready, rows, threads), workers) as pool:
            yield pool, threads
    else:
        threads = threads_of(engine.name, 1)
        with cluster(engine, threads) as room, ray_pool(sent_of(plan, ready, rows, threads), min(room, most)) as pool:
            yield pool, threads


def threads_of(engine: str, workers: int) -> int:
    """Return the threads of torch in each of some workers: those of one machine share the threads of this process, a
    task of a cluster has one."""
    mine = torch.get_num_threads()
    return {"local": mine, "processes": max(1, mine // workers)}.get(engine, 1)


def _memory(plan: Plan, engine: Engine, rows: Rows, peak: int) -> dict[str, Any]:
    """What run.json says of memory: the largest of any process, the budget, and the chunks that follow from it."""
    out: dict[str, Any] = {"peak_bytes": max(peak, peak_bytes())}
    if engine.memory is not None:
        names = [attack.name for attack in attacks_of(plan)]
        chunks = (dict(zip(names, each, strict=True)) for each in rows)
        out["memory"] = engine.memory
        out["chunks"] = {model.label: each for model, each in zip(plan.models, chunks, strict=True)}
    return out


def _told(driven: Driven) -> dict[str, Any]:
    return {name: value for name in ("retries", "halved") if (value := getattr(driven, name))}
