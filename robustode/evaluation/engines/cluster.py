"""Units as tasks of a Ray cluster, which places them; what a task needs travels once to each node."""

from __future__ import annotations

import hashlib
import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from robustode.errors import RunError
from robustode.evaluation.engines.connect import connect, import_ray
from robustode.evaluation.engines.drive import Answer
from robustode.evaluation.engines.local import said
from robustode.evaluation.engines.options import Engine
from robustode.evaluation.engines.sent import Sent, pack, unpack
from robustode.evaluation.engines.tasks import Task
from robustode.evaluation.peak import peak_bytes
from robustode.versions import versions

CHECKED = ("robustode", "torch", "numpy")  # versions that must be the same on every node, with that of Python
PATIENCE = 120.0  # seconds for every node to say its versions

_BENCH: dict[str, Any] = {}  # of a worker: the bench of the run whose tasks it computes, by fingerprint


class RayPool:
    """Tasks in flight on a cluster, at most `workers`; Ray decides where each runs.

    Models and samples are one object of its store, which a node fetches once and a worker process reads once. A task
    whose worker or node is gone is answered as lost, and begun again by the driver.

    Args:
        sent: what the tasks need.
        workers: how many at once.

    Raises:
        RunError: it cannot be sent.
    """

    def __init__(self, sent: Sent, workers: int) -> None:
        self.size = workers
        self._ray = import_ray()
        content = pack(sent, by=importlib.import_module("ray.cloudpickle"))
        self._key = hashlib.sha256(content).hexdigest()
        self._content = self._ray.put(content)
        needs = {"num_cpus": sent.threads, "num_gpus": 1 if sent.device.startswith("cuda") else 0}
        self._compute = self._ray.remote(_compute).options(max_retries=0, **needs)
        self._flying: dict[Any, Task] = {}

    def start(self, task: Task, found: Tensor | None) -> None:
        """Begin a task somewhere."""
        self._flying[self._compute.remote(self._key, [self._content], pack((task, found)))] = task

    def answer(self) -> Answer:
        """Wait for the next answer."""
        (done,), _ = self._ray.wait(list(self._flying), num_returns=1)
        task = self._flying.pop(done)
        errors = self._ray.exceptions
        try:
            return unpack(self._ray.get(done))
        except errors.RayTaskError as error:  # not of the unit: its answer has those
            return Answer(task=task, error=said(error.as_instanceof_cause()))
        except errors.RayError as error:
            return Answer(task=task, error=f"its worker or node is gone ({type(error).__name__})", lost=True)

    def close(self) -> None:
        """Leave nothing running."""
        for one in self._flying:
            self._ray.cancel(one, force=True)
        self._flying = {}


def _compute(key: str, content: list[Any], packed: bytes) -> bytes:
    """Compute one unit in a worker of the cluster."""
    bench = _BENCH.get(key)
    if bench is None:
        _BENCH.clear()
        bench = _BENCH[key] = unpack(import_ray().get(content[0])).bench()
    task, found = unpack(packed)
    try:
        answer = Answer(task=task, unit=bench.compute(task, found), peak=peak_bytes())
    except Exception as error:
        answer = Answer(task=task, error=said(error))
    return pack(answer)


@contextmanager
def cluster(engine: Engine, threads: int) -> Iterator[int]:
    """Connect to a cluster, see that its nodes have the same versions, and yield how many tasks it computes at once.

    Raises:
        MissingDependency: Ray is not installed.
        RunError: the cluster does not answer, or a node has other versions.
    """
    ray = import_ray()
    mine = not ray.is_initialized()
    if mine:
        connect(engine.address, engine.workers)
    try:
        check_nodes(ray)
        cores = int(ray.cluster_resources().get("CPU", 1))
        yield min(engine.workers or cores, max(1, math.floor(cores / threads)))
    finally:
        if mine:
            ray.shutdown()


@contextmanager
def ray_pool(sent: Sent, workers: int) -> Iterator[RayPool]:
    """Yield a pool whose tasks end with the block."""
    pool = RayPool(sent, workers)
    try:
        yield pool
    finally:
        pool.close()


def check_nodes(ray: Any) -> None:
    """Raise `RunError`, which names it, if a node of the cluster has other versions than this process."""

    def found(names: tuple[str, ...]) -> dict[str, str]:  # travels as code, to nodes without robustode, too
        import platform
        from importlib.metadata import PackageNotFoundError, version

        out = {"python": platform.python_version()}
        for name in names:
            try:
                out[name] = version(name)
            except PackageNotFoundError:
                out[name] = "not installed"
        return out

    here = versions(CHECKED)
    strategy = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    asked = {}
    for node in (node for node in ray.nodes() if node["Alive"]):
        task = ray.remote(found).options(num_cpus=0, scheduling_strategy=strategy(node["NodeID"], soft=False))
        asked[node["NodeManagerAddress"]] = task.remote(CHECKED)
    for address, one in asked.items():
        try:
            there = ray.get(one, timeout=PATIENCE)
        except ray.exceptions.RayError as error:
            got = said(error)
            raise RunError(f"node {address} of the cluster", expected="its versions", got=got) from None
        if there != here:
            differ = [name for name in here if there.get(name) != here[name]]
            raise RunError(
                f"node {address} of the cluster",
                expected=", ".join(f"{name} {here[name]}" for name in differ),
                got=", ".join(f"{name} {there.get(name)}" for name in differ),
                fix="Install the same versions on all nodes.",
            )
