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
from robustode.evaluation.clean import CleanAccuracy
from robustode.evaluation.engines.options import Engine
from robustode.evaluation.engines.units import compute
from robustode.evaluation.events import Event, Listener
from robustode.evaluation.jobs import Ready, attacks_of, places_of
from robustode.evaluation.plan import Plan
from robustode.evaluation.prepare import prepare

SIZES = (16, 64)  # samples of the two units whose times are compared; the larger tells the passes
WIDE = 512  # samples that tell the clean accuracy
Name = tuple[str, str]  # of model and attack


@dataclass(frozen=True, kw_only=True)
class Clean:
    """The clean answers of a model.

    Attributes:
        correct, n: correct ones, of so many.
        sizes, seconds: of two measurements.
    """

    correct: int
    n: int
    sizes: tuple[int, int]
    seconds: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Tried:
    """Two units of an attack on a model.

    Attributes:
        sizes: correctly classified samples in the small and in the large one; the same where there was only one.
        seconds: of each, with judging and writing.
        forwards, backwards: passes of each correctly classified sample of the large one, in all budgets.
        attacked: those of them that the attack was started on, which in a cascade are fewer.
    """

    sizes: tuple[int, int]
    seconds: tuple[float, float]
    forwards: np.ndarray
    backwards: np.ndarray
    attacked: int


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What was measured.

    Attributes:
        measured: samples of the large units.
        clean: {model: its clean answers}.
        tried: {(model, attack): its units}.
        ready: the models, with the clean answers of the large part.
    """

    measured: int
    clean: dict[str, Clean]
    tried: dict[Name, Tried]
    ready: Sequence[Ready]


def trial(plan: Plan, tell: Listener, memory: int | None = None) -> Trial:
    """Run a plan on class-stratified subsets of its samples, in a temporary directory.

    A first part warms up what is slow only once; then a large and a small one are timed. How many samples are attacked
    depends on the clean accuracy, which more samples tell.

    Args:
        plan: the whole run.
        tell: called with its events.
        memory: as for the run.

    Raises:
        RobustODEError: whatever would end the run, too.
        RunError: an attack that fails on every sample, of whose cost nothing is known.
    """

    def quiet(event: Event) -> None:
        if event.kind not in ("clean", "skipped"):
            tell(event)

    small, large, wide = (min(size, len(plan.data)) for size in (*SIZES, WIDE))
    _measure(_part(plan, small), lambda event: None, memory)
    _, seconds = _answers(_part(plan, wide, check=True), tell, memory)
    found = _measure(_part(plan, large), quiet, memory)
    again = _measure(_part(plan, small), lambda event: None, memory) if small < large else found
    clean = {}
    for label, (counted, took) in seconds.items():
        times = found.clean[label][1], took
        clean[label] = Clean(correct=counted.correct, n=counted.n, sizes=(large, wide), seconds=times)
    tried = {}
    for name, rows in found.records.items():
        sizes = again.clean[name[0]][0].correct, found.clean[name[0]][0].correct
        tried[name] = _tried(name, rows, sizes, (again.seconds[name], found.seconds[name]))
    return Trial(measured=large, clean=clean, tried=tried, ready=found.ready)


def _part(plan: Plan, size: int, check: bool = False) -> Plan:
    """A plan for some of the samples, all in one unit; of few ones a low accuracy says nothing, and is not checked."""
    rows = stratified(plan.data.y, size, plan.protocol.seed)
    data = plan.data.take(plan.data.index[rows].tolist()) if size < len(plan.data) else plan.data
    low = plan.protocol.allow_low_accuracy or not check
    return replace(plan, data=data, protocol=plan.protocol.changed("plan", shard=size, allow_low_accuracy=low))


Answers = dict[str, tuple[CleanAccuracy, float]]  # of each model, and their seconds


def _answers(plan: Plan, tell: Listener, memory: int | None) -> tuple[Sequence[Ready], Answers]:
    """Ask the models of a plan for their clean answers; return them and the seconds of each."""
    out: Answers = {}
    last = time.perf_counter()

    def listen(event: Event) -> None:
        nonlocal last
        tell(event)
        if event.clean is not None:
            now = time.perf_counter()
            out[event.model], last = (event.clean, now - last), now

    return prepare(plan, listen, memory), out


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """Models with their clean answers, the seconds of the units, and the records of each."""

    ready: Sequence[Ready]
    clean: Answers
    seconds: dict[Name, float]
    records: dict[Name, pd.DataFrame]


def _measure(plan: Plan, tell: Listener, memory: int | None) -> _Measured:
    """Run a plan whose samples are one unit."""
    ready, clean = _answers(plan, tell, memory)
    seconds: dict[Name, float] = {}
    last = time.perf_counter()

    def listen(event: Event) -> None:
        nonlocal last
        tell(event)
        if event.kind == "unit":
            now = time.perf_counter()
            seconds[event.model, event.text], last = now - last, now

    with tempfile.TemporaryDirectory(prefix="robustode-plan-") as folder:
        out = Path(folder)
        compute(plan, ready, out, Engine(memory=memory), listen)
        records = {}
        for model in plan.models:
            for attack, place in zip(attacks_of(plan), places_of(plan, [model], out), strict=True):
                records[model.label, attack.name] = records_file.joined([shards.read_records(place)])
    return _Measured(ready=ready, clean=clean, seconds=seconds, records=records)


def _tried(name: Name, rows: pd.DataFrame, sizes: tuple[int, int], seconds: tuple[float, float]) -> Tried:
    """What the records of the large unit say."""
    correct = rows.loc[rows["status"] != Status.MISCLASSIFIED.value]
    started = correct.loc[correct["status"] != Status.SKIPPED.value]
    if len(started) and (started["status"] == Status.ERROR.value).all():
        what = f"cost of '{name[1]}' on '{name[0]}'"
        raise RunError(what, expected="an attack that runs", got=str(started["message"].iloc[0]), fix="Leave it out.")
    return Tried(
        sizes=sizes,
        seconds=seconds,
        forwards=_each(correct, "forwards"),
        backwards=_each(correct, "backwards"),
        attacked=started["sample"].nunique(),
    )


def _each(rows: pd.DataFrame, column: str) -> np.ndarray:
    """The sum of a column over the budgets, for each sample."""
    return np.asarray(pd.Series(rows.groupby("sample")[column].sum()), dtype=float)
