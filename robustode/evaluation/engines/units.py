"""Computes what is missing of the units of a run, by whatever engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustode.errors import RunError
from robustode.evaluation import shards
from robustode.evaluation.cascade import found_before
from robustode.evaluation.engine import Unit
from robustode.evaluation.engines.bench import bench_of
from robustode.evaluation.engines.drive import Driven, Pool, drive
from robustode.evaluation.engines.local import LocalPool
from robustode.evaluation.engines.options import Engine
from robustode.evaluation.engines.processes import process_pool
from robustode.evaluation.engines.sent import sent_of
from robustode.evaluation.engines.tasks import WHOLE, Part, Task, groups_of, missing
from robustode.evaluation.jobs import Ready, attacks_of
from robustode.evaluation.plan import Plan

SHOWN = 3  # units that an error names

Told = Callable[[str, Task, int, int], None]


class UnitsFailed(RunError):
    """Units could not be computed, whatever their attacks; the others are kept."""


def compute_units(
    plan: Plan, ready: Sequence[Ready], out: Path, engine: Engine, *, tell: Told, part: Part = WHOLE
) -> dict[str, Any]:
    """Compute the units of a part of a plan that are not on disk, and return what run.json says of the engine.

    Args:
        plan, ready: what runs.
        out: directory of the run.
        engine: what computes them.
        tell: called with "resumed" or "unit", the unit, how many are done and how many there are; and with "halved"
            the first time that memory did not suffice.
        part: (i, n), only the i-th of n parts.

    Raises:
        UnitsFailed: some could not be computed; all others are on disk.
        RunError: the workers cannot start.
    """
    groups = groups_of(plan, part)
    rest = missing(groups, out)
    open_ = {task.number for group in rest for task in group}
    tasks = sorted((task for group in groups for task in group), key=lambda task: task.number)
    done = 0
    for task in tasks:
        if task.number not in open_:
            done += 1
            tell("resumed", task, done, len(tasks))
    attacks = attacks_of(plan)
    keeps_points = "adversarials" in plan.protocol.outputs
    told_halved = False

    def found(task: Task) -> Tensor | None:
        shard = ready[task.model].shards[task.shard]
        return found_before(out, task.label, plan.attacks.cards, attacks[task.attack], shard)

    def keep(task: Task, unit: Unit) -> None:
        nonlocal done, told_halved
        shards.write(task.place(out), unit, keep_points=keeps_points)
        done += 1
        if unit.halved is not None and not told_halved:
            told_halved = True
            tell("halved", task, unit.halved, len(tasks))
        tell("unit", task, done, len(tasks))

    workers = min(workers_of(engine), len(rest))
    threads = threads_of(engine, workers)
    driven = Driven()
    if rest:
        with _pool(plan, ready, engine, workers, threads) as pool:
            driven = drive(rest, pool, found=found, keep=keep)
    if driven.failed:
        raise _failure(driven, out, len(tasks))
    return {"name": engine.name, "workers": max(1, workers), "threads": threads, **_told(driven)}


def workers_of(engine: Engine) -> int:
    """Return how many units an engine computes at once, at most."""
    if engine.name == "local":
        return 1
    return engine.workers or os.cpu_count() or 1


def threads_of(engine: Engine, workers: int) -> int:
    """Return the threads of torch in one worker: those of this process, shared among the workers of this machine."""
    mine = torch.get_num_threads()
    return mine if engine.name == "local" else max(1, mine // max(1, workers))


def _pool(
    plan: Plan, ready: Sequence[Ready], engine: Engine, workers: int, threads: int
) -> AbstractContextManager[Pool]:
    if engine.name == "local":
        return nullcontext(LocalPool(bench_of(plan, ready)))
    return process_pool(sent_of(plan, ready, threads), workers)


def _told(driven: Driven) -> dict[str, Any]:
    return {name: value for name in ("retries", "halved") if (value := getattr(driven, name))}


def _failure(driven: Driven, out: Path, total: int) -> UnitsFailed:
    lines = [f"{unit}: {why}" for unit, why in driven.failed.items()]
    more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    fix = "The others are kept: go on with the same command and --resume."
    got = "; ".join(lines[:SHOWN]) + more
    return UnitsFailed(f"{len(lines)} of {total} units of run '{out}' failed", got=got, fix=fix)
