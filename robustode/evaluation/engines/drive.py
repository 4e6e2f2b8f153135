"""Hands units to whatever computes them, keeps what comes back, and tries again what a worker took with it."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from robustode.evaluation.engine import Unit
from robustode.evaluation.engines.tasks import Task

RETRIES = 2  # of a unit whose worker ended before it did


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of a task.

    Attributes:
        task: which.
        unit: what it produced; None if nothing.
        error: why not, in one line.
        lost: whether its worker ended, so that the task itself need not be the reason.
        peak: largest resident memory of its worker so far, bytes.
    """

    task: Task
    unit: Unit | None = None
    error: str = ""
    lost: bool = False
    peak: int = 0


class Pool(Protocol):
    """Something that computes tasks, `size` of them at once."""

    @property
    def size(self) -> int:
        """How many tasks may be started and not answered."""
        ...

    def start(self, task: Task, found: Tensor | None) -> None:
        """Begin a task; there is room for it."""
        ...

    def answer(self) -> Answer:
        """Wait for the next answer, of whichever task."""
        ...


@dataclass(frozen=True, kw_only=True)
class Driven:
    """How it went.

    Attributes:
        retries: {unit: how often it was begun again}.
        halved: {unit: samples attacked together where more took more memory than there was}.
        failed: {unit: why it could not be computed}.
        peak: largest resident memory of any worker, bytes.
    """

    retries: dict[str, int] = field(default_factory=dict)
    halved: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    peak: int = 0


def drive(
    groups: Sequence[Sequence[Task]],
    pool: Pool,
    *,
    found: Callable[[Task], Tensor | None],
    keep: Callable[[Task, Unit], None],
) -> Driven:
    """Compute all tasks, in order as far as there is room, and keep each unit as it comes.

    Never more tasks are in flight than the pool has room for. A task whose worker ended is begun again, `RETRIES` times
    at most; one that fails is left out with those of its group that wait for it, and the others go on.

    Args:
        groups: of which each task waits for the one before it.
        pool: computes them.
        found: what a task needs of those before it, asked when they are kept.
        keep: called with each finished unit.
    """
    times: Counter[Task] = Counter()
    halved: dict[Task, int] = {}
    failed: dict[Task, str] = {}
    peak = 0
    waiting = [(group[0].number, tuple(group)) for group in groups]
    heapq.heapify(waiting)
    flying: dict[int, tuple[Task, ...]] = {}
    while waiting or flying:
        while waiting and len(flying) < pool.size:
            number, group = heapq.heappop(waiting)
            flying[number] = group
            pool.start(group[0], found(group[0]))
        answer = pool.answer()
        peak = max(peak, answer.peak)
        task, group = answer.task, flying.pop(answer.task.number)
        if answer.unit is not None:
            keep(task, answer.unit)
            if answer.unit.halved is not None:
                halved[task] = answer.unit.halved
            rest = group[1:]
        elif answer.lost and times[task] < RETRIES:
            times[task] += 1
            rest = group
        else:
            often = f", {1 + times[task]} times" if times[task] else ""
            failed[task] = f"{answer.error}{often}"
            failed.update({one: f"it waits for {task.name}, which failed" for one in group[1:]})
            rest = ()
        if rest:
            heapq.heappush(waiting, (rest[0].number, rest))
    return Driven(retries=_in_order(times), halved=_in_order(halved), failed=_in_order(failed), peak=peak)


def _in_order(found: Mapping[Task, Any]) -> dict[str, Any]:
    """By the names of the units, in their order and not as workers happened to end."""
    return {task.words: found[task] for task in sorted(found, key=lambda task: task.number)}
