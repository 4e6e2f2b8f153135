"""One unit after the other, in this process."""

from __future__ import annotations

from torch import Tensor

from robustode.evaluation.chunks import out_of_memory
from robustode.evaluation.engines.bench import Bench
from robustode.evaluation.engines.drive import Answer
from robustode.evaluation.engines.tasks import Task


class LocalPool:
    """Computes a task when it is asked for its answer; an exception that is no matter of memory is a defect and goes on
    its way."""

    size = 1

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._next: tuple[Task, Tensor | None] | None = None

    def start(self, task: Task, found: Tensor | None) -> None:
        """Remember a task."""
        self._next = task, found

    def answer(self) -> Answer:
        """Compute it."""
        if self._next is None:
            raise RuntimeError("no task was started")
        (task, found), self._next = self._next, None
        try:
            return Answer(task=task, unit=self._bench.compute(task, found))
        except Exception as error:
            if not out_of_memory(error):
                raise
            return Answer(task=task, error=said(error))


def said(error: BaseException) -> str:
    """Return an exception in one line."""
    text = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *text[:1]])[:500]
