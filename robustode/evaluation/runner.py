"""Runs a plan: units in order, each finished one on disk before the next begins, then records and run.json."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from robustode.errors import RunError
from robustode.evaluation import examination, shards
from robustode.evaluation import records as records_file
from robustode.evaluation.beside import certificates_of
from robustode.evaluation.engines.options import LOCAL, Engine
from robustode.evaluation.engines.units import compute
from robustode.evaluation.events import Event, Listener
from robustode.evaluation.examination import Beside, Examination
from robustode.evaluation.finish import finish
from robustode.evaluation.hold import hold
from robustode.evaluation.jobs import Ready, places_of
from robustode.evaluation.manifest import manifest
from robustode.evaluation.outdir import begun, check_directory, clear, sweep
from robustode.evaluation.plan import Plan
from robustode.evaluation.precision import full_precision
from robustode.evaluation.prepare import compute_beside, prepare
from robustode.evaluation.rundir import RunDir, read_run
from robustode.files import write_json

__all__ = ["Event", "Listener", "examine_again", "execute"]


def execute(
    plan: Plan,
    out: Path,
    *,
    command: str,
    resume: bool = False,
    force: bool = False,
    listen: Listener | None = None,
    examine: Examination | None = None,
    publish: Callable[[RunDir], object] | None = None,
    engine: Engine = LOCAL,
) -> RunDir:
    """Run a plan into a run directory and return it, read back and verified.

    Args:
        plan: made by `make_plan`.
        out: run directory; must not exist, unless `resume` (finished units are kept) or `force` (an old run is
            deleted).
        command: command line, for run.json.
        listen: called with every `Event`.
        examine: what looks at every model after its attacks; its findings are written as audit.json, and what it
            breaks enters the records.
        publish: called with the finished run to add tables, figures and pages, before every file is hashed.
        engine: what computes the units; the records are the same.

    Raises:
        RunError: the directory exists, or holds another run than the one resumed; units failed.
        ModelError: a clean accuracy that makes every robust accuracy meaningless.
    """
    tell: Listener = listen or (lambda event: None)
    with ExitStack() as stack:
        if held := out.is_dir():
            stack.enter_context(hold(out))
        check_directory(out, manifest(plan, [], command), resume=resume, force=force)
        ready = prepare(plan, tell, engine.memory)
        meta = manifest(plan, [one.clean for one in ready], command)
        if not held:
            with suppress(FileExistsError):  # made by another process since it was looked for
                out.mkdir(parents=True)
            stack.enter_context(hold(out))
            if any(out.iterdir()):
                check_directory(out, meta, resume=resume, force=force)
        return _execute(plan, ready, out, meta, resume, force, tell, examine, publish, engine)


def examine_again(
    plan: Plan,
    out: Path,
    examine: Examination,
    *,
    listen: Listener | None = None,
    publish: Callable[[RunDir], object] | None = None,
) -> RunDir:
    """Examine a finished run anew and return it.

    Until the last check has ended the run stays as it was, and a second call goes on; one that is killed while its
    files are written anew is finished by the command of the run with --resume.

    Args:
        plan: of the run, made again.
        out: its directory, with its units in shards/.
        examine, listen, publish: as in `execute`.

    Raises:
        RunError: the directory holds another run than the plan's, or its units are gone.
    """
    tell: Listener = listen or (lambda event: None)
    old = read_run(out).meta
    with hold(out):
        check_directory(out, manifest(plan, [], old["command"]), resume=True, force=False, other_machine=True)
        for place in places_of(plan, plan.models, out):
            if not shards.is_done(place):
                fix = "Run the evaluation again with --force and --audit full."
                raise RunError(f"units of run '{out}'", expected=f"{place}.parquet", got="none", fix=fix)
        ready = prepare(plan, tell)
        compute_beside(plan, ready, out, tell)
        answers = _examine(plan, ready, out, examine, tell)
        write_json({**old, "status": "running"}, out / "run.json")  # its files are about to change
        return finish(plan, ready, out, old, answers, examine.facts, publish)


def _execute(
    plan: Plan,
    ready: Sequence[Ready],
    out: Path,
    meta: dict[str, Any],
    resume: bool,
    force: bool,
    tell: Listener,
    examine: Examination | None,
    publish: Callable[[RunDir], object] | None,
    engine: Engine,
) -> RunDir:
    """Run what is prepared into a directory that is held."""
    sweep(out)
    if force:
        clear(out)
    if resume:
        meta = begun(out, meta)
    write_json({**meta, "status": "running"}, out / "run.json")
    compute_beside(plan, ready, out, tell)
    meta = {**meta, "engine": compute(plan, ready, out, engine, tell)}
    answers = [] if examine is None else _examine(plan, ready, out, examine, tell)
    facts = None if examine is None else examine.facts
    return finish(plan, ready, out, meta, answers, facts, publish)


def _examine(
    plan: Plan, ready: Sequence[Ready], out: Path, examine: Examination, tell: Listener
) -> list[tuple[Ready, dict[str, Any]]]:
    """Run every check on every model, apart from those whose answers are on disk; return the answers in order."""
    answers = []
    certified = {model.subject.label: certificates_of(plan, model, out) for model in ready}
    jobs = [(model, name) for model in ready for name in examine.names]
    for done, (model, name) in enumerate(jobs, start=1):
        label = model.subject.label
        answer = examination.kept(out, label, name, examine.facts)
        if answer is None:
            records = records_file.joined(shards.read_records(place) for place in places_of(plan, [model.planned], out))
            common = {"data": plan.data.name, "seed": plan.protocol.seed, "protocol": plan.hash}
            own = certified[label]
            earlier = (
                [] if own is None else [attack for one, said in answers if one is model for attack in said["attacks"]]
            )
            audited = records_file.joined(shards.read_records(shards.place(out, label, one, 0)) for one in earlier)
            others = Beside(certificates=own, audited=audited)
            with full_precision():
                found = examine.examine(name, model.subject, model.shards, records, common, others)
            examination.keep(out, label, name, found, examine.facts)
            answer = examination.kept(out, label, name, examine.facts) or {}
        tell(Event(kind="check", model=label, text=name, done=done, total=len(jobs)))
        answers.append((model, answer))
    return answers
