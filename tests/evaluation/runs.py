"""Running plans into directories, and comparing what they wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robustode.evaluation.plan import Plan
from robustode.evaluation.rundir import RunDir
from robustode.evaluation.runner import Event, execute
from tests.evaluation.problem import forms

BUDGETS = {"l2": [0.1, 0.2], "linf": [0.05, 0.1]}
CARD = "title = 't'\nimplementation = 'python:forms.py:{name}'\nnorm = '{norm}'\nkind = '{kind}'\n"
SIX = ("noise", "within", "push", "sensitivity-l2", "one-step-random-linf", "pgd-foolbox-linf")


def six_attacks(folder: Path) -> str:
    """Write a suite of six attacks, random and not, minimal and in a ball, own and adapted; return its path."""
    forms(folder)
    for name, norm, kind in (("noise", "linf", "budget"), ("within", "l2", "budget"), ("push", "l2", "minimal")):
        (folder / f"{name}.toml").write_text(CARD.format(name=name, norm=norm, kind=kind))
    path = folder / "six.toml"
    path.write_text(f"attacks = {list(SIX)}\n")
    return str(path)


def run(plan: Plan, out: Path, **options: Any) -> RunDir:
    """Run a plan into a directory."""
    return execute(plan, out, command="test", **options)


def contents(path: Path, *, without: tuple[str, ...] = ("timings.parquet",)) -> dict[str, Any]:
    """The bytes of every file of a run, run.json without what may differ."""
    out: dict[str, Any] = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_dir() or name in without or name.endswith(".timings.parquet"):
            continue
        out[name] = file.read_bytes()
        if name == "run.json":
            meta = json.loads(out[name])
            meta.pop("created")
            meta.pop("engine", None)
            meta["files"].pop("timings.parquet")
            out[name] = json.dumps(meta)
    return out


def units(events: list[Event]) -> list[tuple[str, int]]:
    """What was told of units: made or taken over, and the how many-th."""
    return [(event.kind, event.done) for event in events if event.kind in ("unit", "resumed")]


class Stop:
    """A listener that is interrupted after `after` units."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, event: Event) -> None:
        if event.kind == "unit" and event.done == self.after:
            raise KeyboardInterrupt
