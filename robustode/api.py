"""`evaluate`: from models and data to a finished run directory with tables, figures and report."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from robustode.audit.run import audit_of
from robustode.evaluation.again import check_models, protocol_again
from robustode.evaluation.engines.options import LOCAL, Engine
from robustode.evaluation.gather import check_complete, gather, read_parts
from robustode.evaluation.part import PartRun, execute_part
from robustode.evaluation.plan import Plan, check_search, make_plan
from robustode.evaluation.protocol import OUTPUTS, Protocol, protocol_of
from robustode.evaluation.rundir import RunDir
from robustode.evaluation.runner import Listener, execute
from robustode.reporting.charts import all_charts
from robustode.reporting.figures import write_figures
from robustode.reporting.html import write_report
from robustode.reporting.views import write_tables


def publish(run: RunDir) -> None:
    """Write tables, figures and report.html into a run directory, those that its protocol asks for."""
    wanted = run.meta["protocol"].get("outputs", OUTPUTS)
    if "tables" in wanted:
        write_tables(run)
    charts = all_charts(run) if {"figures", "report"} & set(wanted) else []
    if "figures" in wanted:
        write_figures(charts, run.path / "figures")
    if "report" in wanted:
        write_report([run], run.path / "report.html", charts=charts)


def run_protocol(
    protocol: Protocol,
    out: str | Path | None = None,
    *,
    data: Any = None,
    modules: Sequence[nn.Module | None] | None = None,
    data_root: str | Path | None = None,
    device: str = "cpu",
    command: str = "robustode.run_protocol",
    resume: bool = False,
    force: bool = False,
    listen: Listener | None = None,
    engine: Engine = LOCAL,
) -> RunDir:
    """Run a protocol with its audit; see `evaluate` for the arguments.

    Raises:
        RobustODEError: anything that does not fit, before anything is written.
        UnitsFailed: units failed whatever their attacks; the others are kept for a resume.
    """
    plan = check_search(make_plan(protocol, data=data, modules=modules, data_root=data_root, device=device))
    return _run(plan, protocol, out, command=command, resume=resume, force=force, listen=listen, engine=engine)


def _run(
    plan: Plan, protocol: Protocol, out: str | Path | None, *, resume: bool, force: bool, **options: Any
) -> RunDir:
    """Run a plan with the audit of its protocol."""
    if protocol.audit != "none":
        with protocol.blaming("transfer"):
            options["examine"] = audit_of(plan, scope=protocol.audit, transfer=protocol.transfer)
    if out is not None:
        return execute(plan, Path(out), resume=resume, force=force, publish=publish, **options)
    with tempfile.TemporaryDirectory(prefix="robustode-") as folder:
        return execute(plan, Path(folder) / "run", **options)


def run_part(
    protocol: Protocol,
    out: str | Path,
    part: tuple[int, int],
    *,
    data_root: str | Path | None = None,
    device: str = "cpu",
    command: str = "robustode.api.run_part",
    listen: Listener | None = None,
    engine: Engine = LOCAL,
) -> PartRun:
    """Compute the i-th of n parts, (i, n), of the units of a protocol, as a job array does; see `execute_part`.

    Raises:
        RobustODEError: anything that does not fit, before anything is written.
        UnitsFailed: units failed whatever their attacks; the others are kept.
    """
    plan = check_search(make_plan(protocol, data_root=data_root, device=device))
    return execute_part(plan, Path(out), part, command=command, listen=listen, engine=engine)


def merge_parts(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    data_root: str | Path | None = None,
    device: str = "cpu",
    listen: Listener | None = None,
) -> RunDir:
    """Make one finished run of the parts that lie in some directories, audit it, and return it.

    No attack is run. Models and data must be where they were, for the audit and the curves along depth.

    Args:
        folders: directories with parts of one run; one that all parts share will do.
        out: directory of the finished run; may be one of them.
        data_root, device, listen: as in `evaluate`.

    Raises:
        RunError: parts of different runs, or units that no part has.
        ModelError: a model that is not the one of the run.
    """
    places = [Path(folder) for folder in folders]
    meta = read_parts(places)
    protocol = protocol_again(meta, f"protocol of run '{places[0]}'", audit=True)
    plan = make_plan(protocol, data_root=data_root, device=device)
    check_models(plan, meta, "Put it back, or run the same command without --shard and with --resume.")
    check_complete(plan, places)
    gather(places, Path(out))
    options = {"command": meta["command"], "listen": listen, "engine": LOCAL}
    return _run(plan, protocol, Path(out), resume=True, force=False, **options)


def evaluate(
    model: str | Path | nn.Module | Sequence[str | Path | nn.Module],
    data: Any = None,
    *,
    attacks: str = "standard",
    eps: Mapping[str, Sequence[float]] | None = None,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    device: str = "cpu",
    audit: str = "cheap",
    transfer: Sequence[str] = (),
    resume: bool = False,
    force: bool = False,
    listen: Listener | None = None,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
    memory: int | None = None,
    **options: Any,
) -> RunDir:
    """Evaluate one or several classifiers and return the run: `.records` (one row per sample and attack), `.meta`.

    Args:
        model: a model as `load_model` takes it, or several; module objects must know bounds, classes and input shape
            (`ro.wrap`).
        data: a data source as `load_data` takes it, or its result; None takes the one that the checkpoints record.
        attacks: suite or card, by name or path; "none" for clean accuracy only.
        eps: {norm: radii}; norms left out have the default budgets of the data.
        out: run directory; None keeps nothing on disk (the run's `path` is then gone).
        data_root: folder of the real image sets; $ROBUSTODE_DATA if None.
        device: "auto", "cpu", "cuda" or "mps".
        audit: "none", "cheap" for the checks that cost little, "full" for all (see `robustode.audit`).
        transfer: further models, as `load_model` takes them, whose adversarials a full audit tries on these.
        resume, force: go on with, or replace, an existing run directory.
        listen: called with every `Event` of the run.
        engine: "local", "processes" or "ray": what computes the units; the records are the same.
        workers: units computed at once by the other engines; None for one a core.
        address: HOST:PORT of a Ray cluster, or "auto"; None starts one on this machine.
        memory: bytes that one process may take, by which the attacks' chunks are chosen; None for no limit.
        options: further fields of `Protocol`: limit, split, seed, also, norms, params, shard, eot, outputs, ...

    Raises:
        RobustODEError: anything that does not fit, before anything is written.
    """
    chosen = Engine(name=engine, workers=workers, address=address, memory=memory)
    checks = {"audit": audit, "transfer": tuple(transfer)}
    protocol, modules, given = protocol_of(model, data, attacks=attacks, eps=eps, **checks, **options)
    return run_protocol(
        protocol,
        out,
        data=given,
        modules=modules,
        data_root=data_root,
        device=device,
        command="robustode.evaluate(...)",
        resume=resume,
        force=force,
        listen=listen,
        engine=chosen,
    )
