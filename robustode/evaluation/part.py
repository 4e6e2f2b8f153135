"""One part of the units of a run, as a job array computes them: parts share a directory, or have one each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from robustode.evaluation.engines.options import LOCAL, Engine
from robustode.evaluation.engines.tasks import Part, groups_of, missing
from robustode.evaluation.engines.units import compute
from robustode.evaluation.events import Listener
from robustode.evaluation.hold import hold
from robustode.evaluation.manifest import manifest
from robustode.evaluation.outdir import check_directory
from robustode.evaluation.plan import Plan
from robustode.evaluation.prepare import compute_beside, prepare
from robustode.files import write_json


@dataclass(frozen=True, kw_only=True)
class PartRun:
    """What is on disk when a part has ended.

    Attributes:
        path: the directory.
        part: (i, n).
        units: how many the part has; all of them are there.
        missing: units of the whole run that are not in this directory, in words.
        total: how many the run has.
    """

    path: Path
    part: Part
    units: int
    missing: tuple[str, ...]
    total: int


def execute_part(
    plan: Plan, out: Path, part: Part, *, command: str, listen: Listener | None = None, engine: Engine = LOCAL
) -> PartRun:
    """Compute the i-th of n parts of the units of a plan into a directory, where other parts may be at work, too.

    Which units a part has follows from the plan, i and n alone. What is there is kept, and nothing is joined: that is
    done by the whole run with `resume`, or by `robustode.api.merge_parts`.

    Args:
        plan: made by `make_plan`.
        out: directory of the run; new, or holding parts of the same run.
        part: (i, n), with 0 ≤ i < n.
        command, listen, engine: as in `execute`.

    Raises:
        RunError: the directory holds another run, or a process that computes all of it; units failed.
    """
    tell: Listener = listen or (lambda event: None)
    check_directory(out, manifest(plan, [], command), resume=True, force=False)
    ready = prepare(plan, tell, engine.memory)
    out.mkdir(parents=True, exist_ok=True)
    with hold(out, shared=True):
        meta = manifest(plan, [one.clean for one in ready], command)
        check_directory(out, meta, resume=True, force=False)
        if not (out / "run.json").is_file():
            write_json({**meta, "status": "running"}, out / "run.json")
        compute_beside(plan, ready, out, tell, part)
        compute(plan, ready, out, engine, tell, part)
    every = groups_of(plan)
    left = [task for group in missing(every, out) for task in group]
    return PartRun(
        path=out,
        part=part,
        units=sum(map(len, groups_of(plan, part))),
        missing=tuple(task.words for task in sorted(left, key=lambda task: task.number)),
        total=sum(map(len, every)),
    )


def is_unfinished(folder: Path) -> bool:
    """Whether a directory holds a run that was begun and has not ended, as parts of one are."""
    try:
        meta = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(meta, dict) and meta.get("status") == "running"
