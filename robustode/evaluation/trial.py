"""A run on a few of its samples, measured: passes of each sample, seconds of each unit."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from robustode.attacks.base import Status
from robustode.data.subset import stratified
from robustode.errors import RunError
from robustode.evaluation import records as records_file
from robustode.evaluation import shards
from robustode.evaluation.engines.options import Engine
from robustode.evaluation.engines.units import compute
from robustode.evaluation.events import Event, Listener
from robustode.evaluation.jobs import Ready, attacks_of, places_of
from robustode.evaluation.plan import Plan
from robustode.evaluation.prepare import prepare

SIZES = (16, 64)  # samples of the two units whose times are compared; the larger tells the passes
Name = tuple[str, str]  # of model and attack


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What was measured.

    Attributes:
        sizes: samples of a unit in the small and the large part; the same where there are too few samples for two.
        clean: seconds of the clean answers of a model, at the two sizes.
        seconds: the same of a unit, with its judging and writing, for each model and attack.
        forwards, backwards: passes of each sample in all budgets of an attack; zero where it is not attacked.
        attacked: share of the samples that an attack is started on.
        ready: the models, with the clean answers of the larger part.
    """

    sizes: tuple[int, int]
    clean: dict[str, tuple[float, float]]
    seconds: dict[Name, tuple[float, float]]
    forwards: dict[Name, np.ndarray]
    backwards: dict[Name, np.ndarray]
    attacked: dict[Name, float]
    ready: Sequence[Ready]


def trial(plan: Plan, tell: Listener, memory: int | None = None) -> Trial:
    """Run a plan on a class-stratified subset of its samples, in a temporary directory.

    A first part warms up what is slow only once; then a large and a small one are timed.

    Args:
        plan: the whole run.
        tell: called with its events.
        memory: as for the run.

    Raises:
        RobustODEError: whatever would end the run, too.
        RunError: an attack that fails on every sample, of whose cost nothing is known.
    """
    small, large = (min(size, len(plan.data)) for size in SIZES)
    _measure(_part(plan, small), lambda event: None, memory)
    found = _measure(_part(plan, large), tell, memory)
    again = _measure(_part(plan, small), lambda event: None, memory) if small < large else found
    return Trial(
        sizes=(small, large),
        clean={label: (again.clean[label], value) for label, value in found.clean.items()},
        seconds={name: (again.seconds[name], value) for name, value in found.seconds.items()},
        forwards={name: _each(rows, "forwards") for name, rows in found.records.items()},
        backwards={name: _each(rows, "backwards") for name, rows in found.records.items()},
        attacked={name: _attacked(name, rows) for name, rows in found.records.items()},
        ready=found.ready,
    )


def _part(plan: Plan, size: int) -> Plan:
    """A plan for some of the samples, all in one unit."""
    rows = stratified(plan.data.y, size, plan.protocol.seed)
    data = plan.data.take(plan.data.index[rows].tolist()) if size < len(plan.data) else plan.data
    return replace(plan, data=data, protocol=plan.protocol.changed("plan", shard=size))


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """Models with their clean answers, the seconds of these and of the units, and the records of each unit."""

    ready: Sequence[Ready]
    clean: dict[str, float]
    seconds: dict[Name, float]
    records: dict[Name, pd.DataFrame]


def _measure(plan: Plan, tell: Listener, memory: int | None) -> _Measured:
    """Run a plan whose samples are one unit."""
    clean: dict[str, float] = {}
    seconds: dict[Name, float] = {}
    last = time.perf_counter()

    def listen(event: Event) -> None:
        nonlocal last
        tell(event)
        now = time.perf_counter()
        if event.kind == "clean":
            clean[event.model] = now - last
        elif event.kind == "unit":
            seconds[event.model, event.text] = now - last
        last = now

    with tempfile.TemporaryDirectory(prefix="robustode-plan-") as folder:
        out = Path(folder)
        ready = prepare(plan, listen, memory)
        compute(plan, ready, out, Engine(memory=memory), listen)
        records = {}
        for model in plan.models:
            for attack, place in zip(attacks_of(plan), places_of(plan, [model], out), strict=True):
                records[model.label, attack.name] = records_file.joined([shards.read_records(place)])
    return _Measured(ready=ready, clean=clean, seconds=seconds, records=records)


def _each(rows: pd.DataFrame, column: str) -> np.ndarray:
    """The sum of a column over the budgets, for each sample."""
    return np.asarray(pd.Series(rows.groupby("sample")[column].sum()), dtype=float)


def _attacked(name: Name, rows: pd.DataFrame) -> float:
    """The share of the samples that an attack was started on."""
    untouched = rows["status"].isin([Status.MISCLASSIFIED.value, Status.SKIPPED.value])
    tried = rows.loc[~untouched]
    if len(tried) and (tried["status"] == Status.ERROR.value).all():
        what = f"cost of '{name[1]}' on '{name[0]}'"
        raise RunError(what, expected="an attack that runs", got=str(tried["message"].iloc[0]), fix="Leave it out.")
    return tried["sample"].nunique() / rows["sample"].nunique()
