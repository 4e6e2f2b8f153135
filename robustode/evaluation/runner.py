"""Runs a plan: units in order, each finished one on disk before the next begins, then records and run.json."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from robustode.attacks.adapters.rng import forked_rng
from robustode.attacks.base import Status
from robustode.attacks.card import Card
from robustode.errors import RunError
from robustode.evaluation import adversarials, examination, shards
from robustode.evaluation import records as records_file
from robustode.evaluation.cascade import found_before
from robustode.evaluation.clean import CleanAccuracy, check_clean
from robustode.evaluation.counting import Counted
from robustode.evaluation.engine import run_unit, seed_of
from robustode.evaluation.examination import Examination
from robustode.evaluation.hold import hold
from robustode.evaluation.judge import Judge
from robustode.evaluation.manifest import manifest
from robustode.evaluation.outdir import begun, check_directory, clear, own_files, sweep
from robustode.evaluation.plan import Plan
from robustode.evaluation.planned import PlannedModel, samples_for
from robustode.evaluation.rows import Shard, Subject
from robustode.evaluation.rundir import RunDir, read_audit, read_run
from robustode.evaluation.selection import unfit_in_words
from robustode.evaluation.stored import Stored
from robustode.files import write_json


@dataclass(frozen=True, kw_only=True)
class Event:
    """What a run tells whoever watches it: `kind` is "clean", "skipped", "unit", "resumed" or "check"."""

    kind: str
    model: str = ""
    text: str = ""
    done: int = 0
    total: int = 0
    clean: CleanAccuracy | None = None


Listener = Callable[[Event], None]


Attack = Card | Stored


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """A model with its clean answers."""

    planned: PlannedModel
    subject: Subject
    clean: CleanAccuracy
    shards: tuple[Shard, ...]


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

    Raises:
        RunError: the directory exists, or holds another run than the one resumed.
        ModelError: a clean accuracy that makes every robust accuracy meaningless.
    """
    tell: Listener = listen or (lambda event: None)
    with ExitStack() as stack:
        if held := out.is_dir():
            stack.enter_context(hold(out))
        check_directory(out, manifest(plan, [], command), resume=resume, force=force)
        ready = [_prepare(plan, model, tell) for model in plan.models]
        for skipped in plan.attacks.skipped:
            tell(Event(kind="skipped", text=f"{skipped['attack']}: skipped: {skipped['reason']}"))
        if unfit := unfit_in_words(plan.attacks.unfit):
            tell(Event(kind="skipped", text=unfit))
        meta = manifest(plan, [one.clean for one in ready], command)
        if not held:
            with suppress(FileExistsError):  # made by another process since it was looked for
                out.mkdir(parents=True)
            stack.enter_context(hold(out))
            if any(out.iterdir()):
                check_directory(out, meta, resume=resume, force=force)
        return _execute(plan, ready, out, meta, resume, force, tell, examine, publish)


def examine_again(
    plan: Plan,
    out: Path,
    examine: Examination,
    *,
    listen: Listener | None = None,
    publish: Callable[[RunDir], object] | None = None,
) -> RunDir:
    """Examine a finished run anew and return it; until the end the run stays as it was, and a second call goes on.

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
        for place in _places(plan, plan.models, out):
            if not shards.is_done(place):
                fix = "Run the evaluation again with --force and --audit full."
                raise RunError(f"units of run '{out}'", expected=f"{place}.parquet", got="none", fix=fix)
        ready = [_prepare(plan, model, tell) for model in plan.models]
        answers = _examine(plan, ready, out, examine, tell)
        return _finish(plan, ready, out, old, answers, examine.facts, publish)


def _execute(
    plan: Plan,
    ready: Sequence[_Ready],
    out: Path,
    meta: dict[str, Any],
    resume: bool,
    force: bool,
    tell: Listener,
    examine: Examination | None,
    publish: Callable[[RunDir], object] | None,
) -> RunDir:
    """Run what is prepared into a directory that is held."""
    sweep(out)
    if force:
        clear(out)
    if resume:
        meta = begun(out, meta)
    write_json({**meta, "status": "running"}, out / "run.json")
    _units(plan, ready, out, tell)
    answers = [] if examine is None else _examine(plan, ready, out, examine, tell)
    facts = None if examine is None else examine.facts
    return _finish(plan, ready, out, meta, answers, facts, publish)


def _prepare(plan: Plan, model: PlannedModel, tell: Listener) -> _Ready:
    judge = Judge(model.module)
    x, y = samples_for(model, plan.data)
    with forked_rng(torch.Generator().manual_seed(seed_of(plan.protocol.seed, model.hash, "clean"))):
        pred, margin = judge.answer(x, y)
        clean = CleanAccuracy(correct=int((pred == y).sum()), n=len(y))
        tell(Event(kind="clean", model=model.label, text="; ".join(model.notes), clean=clean))
        check_clean(plan, model, x[:64], clean)
    parts = []
    for number, start in enumerate(range(0, len(y), plan.protocol.shard)):
        rows = slice(start, start + plan.protocol.shard)
        index = plan.data.index[rows]
        parts.append(
            Shard(number=number, x=x[rows], y=y[rows], index=index, clean_pred=pred[rows], clean_margin=margin[rows])
        )
    subject = Subject(label=model.label, hash=model.hash, counted=Counted(model.module), judge=judge)
    return _Ready(planned=model, subject=subject, clean=clean, shards=tuple(parts))


def _attacks(plan: Plan) -> tuple[Attack, ...]:
    return (*plan.attacks.cards, *plan.attacks.stored)


def _jobs(plan: Plan, ready: Sequence[_Ready]) -> Iterator[tuple[_Ready, Attack, Shard]]:
    for model in ready:
        for attack in _attacks(plan):
            for shard in model.shards:
                yield model, attack, shard


def _units(plan: Plan, ready: Sequence[_Ready], out: Path, tell: Listener) -> None:
    jobs = list(_jobs(plan, ready))
    for done, (model, attack, shard) in enumerate(jobs, start=1):
        place = shards.place(out, model.subject.label, attack.name, shard.number)
        kept = shards.is_done(place)
        if not kept:
            unit = run_unit(
                model.subject,
                attack,
                shard,
                radii=plan.budgets[attack.norm],
                data=plan.data.name,
                seed=plan.protocol.seed,
                protocol=plan.hash,
                found=found_before(out, model.subject.label, plan.attacks.cards, attack, shard),
            )
            shards.write(place, unit, keep_points="adversarials" in plan.protocol.outputs)
        kind = "resumed" if kept else "unit"
        tell(Event(kind=kind, model=model.subject.label, text=attack.name, done=done, total=len(jobs)))


def _examine(
    plan: Plan, ready: Sequence[_Ready], out: Path, examine: Examination, tell: Listener
) -> list[tuple[_Ready, dict[str, Any]]]:
    """Run every check on every model, apart from those whose answers are on disk; return the answers in order."""
    answers = []
    jobs = [(model, name) for model in ready for name in examine.names]
    for done, (model, name) in enumerate(jobs, start=1):
        label = model.subject.label
        answer = examination.kept(out, label, name, examine.facts)
        if answer is None:
            frames = [shards.read_records(place) for place in _places(plan, [model.planned], out)]
            records = pd.concat(frames, ignore_index=True) if frames else records_file.empty()
            common = {"data": plan.data.name, "seed": plan.protocol.seed, "protocol": plan.hash}
            found = examine.examine(name, model.subject, model.shards, records, common)
            examination.keep(out, label, name, found, examine.facts)
            answer = examination.kept(out, label, name, examine.facts) or {}
        tell(Event(kind="check", model=label, text=name, done=done, total=len(jobs)))
        answers.append((model, answer))
    return answers


def _places(plan: Plan, models: Sequence[PlannedModel], out: Path) -> list[Path]:
    """The units of some models, in the order of the jobs."""
    numbers = range(math.ceil(len(plan.data) / plan.protocol.shard))
    attacks = _attacks(plan)
    return [
        shards.place(out, model.label, one.name, number) for model in models for one in attacks for number in numbers
    ]


def _finish(
    plan: Plan,
    ready: Sequence[_Ready],
    out: Path,
    meta: dict[str, Any],
    answers: Sequence[tuple[_Ready, dict[str, Any]]],
    facts: dict[str, Any] | None,
    publish: Callable[[RunDir], object] | None,
) -> RunDir:
    places = _places(plan, plan.models, out)
    audits = [shards.place(out, m.subject.label, name, 0) for m, answer in answers for name in answer["attacks"]]
    parts = [shards.read_records(place) for place in (*places, *audits)]
    records = records_file.validate(pd.concat(parts, ignore_index=True) if parts else records_file.empty())
    records_file.write(records, out / "records.parquet")
    seconds = [pd.DataFrame(answer["timings"]) for _, answer in answers]
    shards.write_timings([*(shards.read_timings(place) for place in places), *seconds], out / "timings.parquet")
    if "adversarials" in plan.protocol.outputs:
        _write_adversarials(plan, ready, out, answers)
    if facts is None:
        (out / "audit.json").unlink(missing_ok=True)  # of an earlier part of the run, which was audited
    else:
        write_json({**facts, "findings": [answer["finding"] for _, answer in answers]}, out / "audit.json")
    errors = _errors(records)
    final = {**meta, "status": "partial" if plan.attacks.skipped or errors else "complete", "errors": errors}
    if publish is not None:
        timings = pd.read_parquet(out / "timings.parquet")
        publish(RunDir(path=out, meta=final, records=records, timings=timings, audit=read_audit(out)))
    write_json({**final, "files": own_files(out)}, out / "run.json")
    return read_run(out)


def _write_adversarials(
    plan: Plan, ready: Sequence[_Ready], out: Path, answers: Sequence[tuple[_Ready, dict[str, Any]]]
) -> None:
    """Write the nearest points of all units, one file for each model and norm."""
    for model in ready:
        label = model.subject.label
        for norm in plan.budgets:
            units = [
                (shards.place(out, label, attack.name, shard.number), attack.kind == "minimal")
                for attack in _attacks(plan)
                for shard in model.shards
                if attack.norm == norm
            ]
            found = [name for one, answer in answers if one is model for name in answer["attacks"]]
            units += [(shards.place(out, label, name, 0), False) for name in found if name.endswith(f"-{norm}")]
            adversarials.write(out, plan, model.subject, model.shards, norm, units)


def _errors(records: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one entry for each model and attack that raised: how many rows, and the first message."""
    broken = records_file.rows(records, status=Status.ERROR.value)
    found = broken.groupby(["model", "attack"], sort=True)["message"].agg(["size", "first"]).reset_index()
    return [
        {"model": model, "attack": attack, "count": int(count), "message": message}
        for model, attack, count, message in found.itertuples(index=False, name=None)
    ]
