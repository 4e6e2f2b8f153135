"""Worker processes of this machine: each holds models and samples, and computes one unit after the other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any

from torch import Tensor

from robustode.errors import RunError
from robustode.evaluation.engines.drive import Answer
from robustode.evaluation.engines.local import said
from robustode.evaluation.engines.sent import Sent, pack, unpack
from robustode.evaluation.engines.tasks import Task
from robustode.evaluation.peak import peak_bytes

_ENDING = 5.0  # seconds in which a worker that is told to end may do so


class ProcessPool:
    """Workers started afresh ("spawn"); one that ends in the middle of a task is replaced when the next task begins.

    Args:
        sent: what each of them is given once.
        workers: how many.

    Raises:
        RunError: they cannot be given it, or do not start.
    """

    def __init__(self, sent: Sent, workers: int) -> None:
        self.size = workers
        self._content = pack(sent)
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []
        try:
            starting = [_Worker() for _ in range(workers)]
            self._idle += starting
            for worker in starting:
                worker.prepare(self._content)
        except BaseException:
            self.close()
            raise

    def start(self, task: Task, found: Tensor | None) -> None:
        """Give a task to a worker that has none."""
        worker = self._idle.pop() if self._idle else self._another()
        if not worker.give(task, found):  # it ended while it had nothing to do
            worker.end()
            worker = self._another()
            worker.give(task, found)
        self._busy.append(worker)

    def answer(self) -> Answer:
        """Wait for the next answer, or for the end of a worker."""
        by_pipe = {worker.pipe: worker for worker in self._busy}
        (pipe, *_) = connection.wait(list(by_pipe))
        worker = by_pipe[pipe]  # type: ignore[index]
        self._busy.remove(worker)
        answer = worker.take()
        if not answer.lost:
            self._idle.append(worker)
        return answer

    def _another(self) -> _Worker:
        worker = _Worker()
        worker.prepare(self._content)
        return worker

    def close(self) -> None:
        """End all workers."""
        for worker in (*self._idle, *self._busy):
            worker.end()
        self._idle, self._busy = [], []


@contextmanager
def process_pool(sent: Sent, workers: int) -> Iterator[ProcessPool]:
    """Yield workers that end with the block."""
    pool = ProcessPool(sent, workers)
    try:
        yield pool
    finally:
        pool.close()


class _Worker:
    """One process, and what this side knows of it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        try:
            self._process.start()
        except RuntimeError as reason:  # the user's script has no guard
            raise _not_started(str(reason).strip().splitlines()[0]) from reason
        theirs.close()
        self._task: Task | None = None
        self._ready = False

    def prepare(self, content: bytes) -> None:
        """Send what it needs; it says so in its first answer if it cannot use that."""
        try:
            self.pipe.send_bytes(content)
        except OSError:
            raise _not_started(self._ended()) from None

    def give(self, task: Task, found: Tensor | None) -> bool:
        """Send a task; False if the process has ended."""
        self._task = task
        try:
            if not self._ready:
                self._await_ready()
            self.pipe.send_bytes(pack((task, found)))
        except OSError:
            return False
        return True

    def _await_ready(self) -> None:
        try:
            problem = unpack(self.pipe.recv_bytes())
        except EOFError:
            raise _not_started(self._ended()) from None
        if problem:
            raise RunError("workers", expected="models that they can load", got=problem, fix="Use engine local.")
        self._ready = True

    def take(self) -> Answer:
        """Receive the answer to its task, or say how the process ended."""
        if self._task is None:
            raise RuntimeError("the worker has no task")
        task, self._task = self._task, None
        try:
            return unpack(self.pipe.recv_bytes())
        except (EOFError, OSError):
            return Answer(task=task, error=f"its worker {self._ended()}", lost=True)

    def _ended(self) -> str:
        """How the process ended, in words."""
        self._process.join(_ENDING)
        code = self._process.exitcode
        self.end()
        if code is not None and code < 0:
            why = ", perhaps for memory" if code == -signal.SIGKILL else ""
            return f"was ended by signal {-code}{why}"
        return f"ended with status {code}"

    def end(self) -> None:
        """End the process, by force if need be."""
        self.pipe.close()
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(_ENDING)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _not_started(got: str) -> RunError:
    fix = "In a script of your own, call it under: if __name__ == '__main__'."
    return RunError("worker processes", expected="them to start", got=got, fix=fix)


def _work(pipe: Any) -> None:
    """Be a worker: make a bench of the first message, answer each further one, end with the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the first process ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        try:
            bench = unpack(pipe.recv_bytes()).bench()
        except EOFError:
            raise
        except Exception as error:
            pipe.send_bytes(pack(said(error)))
            return
        pipe.send_bytes(pack(""))
        while True:
            task, found = unpack(pipe.recv_bytes())
            try:
                answer = Answer(task=task, unit=bench.compute(task, found), peak=peak_bytes())
            except Exception as error:
                answer = Answer(task=task, error=said(error))
            pipe.send_bytes(pack(answer))
    except (EOFError, OSError):
        return


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, even if it was killed, in the middle of a unit."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        time.sleep(0.1)
        os._exit(1)
