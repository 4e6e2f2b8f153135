"""`robustode eval`, and what `robustode run` has in common with it."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustode.cli import options
from robustode.cli.console import watch_run
from robustode.cli.engines import SHARD_HELP, engine_of, run_part_and_show, size_and_part, workers_of
from robustode.cli.finished import finish
from robustode.cli.plan import plan_and_show
from robustode.errors import OptionError, RunError
from robustode.files import unwritable

if TYPE_CHECKING:
    from robustode.evaluation.engines.options import Engine
    from robustode.evaluation.protocol import Protocol


def command_line() -> str:
    """Return the command as it was typed."""
    return shlex.join(["robustode", *sys.argv[1:]])


def command_without_resume() -> str:
    """Return the command without --resume, which is no part of what it makes: a resumed one writes the same files."""
    return shlex.join(word for word in ["robustode", *sys.argv[1:]] if word != "--resume")


def eval_command(
    model: options.Models,
    data: options.Data = None,
    attacks: Annotated[
        str,
        typer.Option("--attacks", metavar="SUITE", help="Suite or card by name or path; library:NAME; none."),
    ] = "standard",
    also: Annotated[
        list[str] | None,
        typer.Option("--also", metavar="CARD", help="One more card, or a directory that generate wrote. Repeats."),
    ] = None,
    norm: options.Norms = None,
    eps: options.Eps = None,
    param: options.Params = None,
    limit: options.Limit = None,
    split: options.Split = "test",
    out: options.Out = None,
    arch: options.Arch = None,
    bounds: options.Bounds = None,
    classes: options.Classes = None,
    input_shape: options.InputShape = None,
    mean: options.Mean = None,
    std: options.Std = None,
    normalise: options.Normalise = None,
    output: options.Output = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    dtype: options.DType = None,
    search_precision: Annotated[str, options.SEARCH_PRECISION] = "full",
    cuda_graphs: options.CudaGraphs = False,
    shard: Annotated[str | None, typer.Option("--shard", metavar="N|i/N", help=SHARD_HELP)] = None,
    engine: options.EngineName = "local",
    workers: options.Workers = None,
    address: options.Address = None,
    memory: options.Memory = None,
    eot: Annotated[
        int | None,
        typer.Option("--eot", metavar="N", callback=options.at_least(1), help="Average N passes of a random model."),
    ] = None,
    allow_low_accuracy: options.AllowLowAccuracy = False,
    no_store: options.NoStore = False,
    audit: options.AuditOrNone = "cheap",
    transfer: options.Transfer = None,
    certify: Annotated[
        bool, typer.Option("--certify", help="Certify every sample too: an interval of its distance.")
    ] = False,
    certify_methods: Annotated[
        str | None,
        typer.Option("--certify-methods", metavar="B,...", help="Bounds for --certify; default all that fit."),
    ] = None,
    strict: options.Strict = False,
    resume: options.Resume = False,
    force: options.Force = False,
    data_root: options.DataRoot = None,
    plan: options.Plan = False,
    json_: options.Json = False,
) -> None:
    """Evaluate the robustness of models.

    Example: robustode eval --model zoo:snode-digits --limit 100
    """
    from robustode.evaluation.budgets import parse_budgets
    from robustode.evaluation.protocol import OUTPUTS, build_protocol
    from robustode.evaluation.selection import select_attacks
    from robustode.models import peek

    if certify_methods is not None and not certify:
        raise OptionError("--certify-methods", expected="--certify beside it", got="none")
    params, (size, part) = options.params_of(param), size_and_part(shard)
    how = None if plan else engine_of(engine, workers, address, memory)
    extra = options.module_options(arch, bounds, classes, input_shape, mean, std, normalise, output, dtype)
    values: dict[str, Any] = {
        "models": [{"model": one, **extra} for one in model],
        "data": data,
        "split": split,
        "limit": limit,
        "attacks": attacks,
        "also": also or [],
        "norms": norm or [],
        "params": params,
        "seed": seed,
        **({} if size is None else {"shard": size}),
        "eot": eot,
        "search_precision": search_precision,
        "cuda_graphs": cuda_graphs,
        "allow_low_accuracy": allow_low_accuracy,
        "audit": audit,
        "transfer": transfer or [],
        "certificates": {"methods": certify_methods or "auto"} if certify else None,
        "outputs": [name for name in OUTPUTS if not (no_store and name == "adversarials")],
    }
    protocol = build_protocol(values, "evaluation")
    if eps:
        chosen = select_attacks(protocol)
        budgets = parse_budgets(eps, [attack.norm for attack in (*chosen.cards, *chosen.stored)])
        protocol = protocol.changed("evaluation", budgets=budgets)
    if how is None:
        count = workers_of(engine, workers, part)
        return plan_and_show(protocol, engine, count, memory=memory, device=device, data_root=data_root, quiet=json_)
    if out is None:
        labels = [peek(one)["label"] for one in model]
        source = data or next((d for one in model if (d := peek(one)["data"])), "data")
        out = default_directory(labels, source, attacks)
    if part is not None:
        shown = {"device": device, "data_root": data_root, "quiet": json_}
        return run_part_and_show(protocol, out, part, how, force=force, **shown)
    run_and_show(protocol, out, resume, force, device, data_root, json_, strict, how)


def default_directory(labels: Sequence[str], data: str, suite: str) -> Path:
    """Return runs/<models>-<data>-<suite>."""
    name = "-".join(["+".join(labels), Path(data).stem or data, Path(suite).stem if "/" in suite else suite])
    return Path("runs") / re.sub(r"[^A-Za-z0-9._+-]", "_", name)


def run_and_show(
    protocol: Protocol,
    out: Path,
    resume: bool,
    force: bool,
    device: str,
    data_root: Path | None,
    quiet: bool,
    strict: bool,
    engine: Engine | None = None,
) -> None:
    """Run a protocol into a directory, show it and exit as `finish` does."""
    from robustode.api import run_protocol
    from robustode.evaluation.engines.options import LOCAL

    if strict and protocol.audit == "none":
        raise OptionError("--strict", expected="an audit, whose defects it is about", got="none (--audit none)")
    options.check_place(out, resume=resume, force=force)
    place = options.check_device(device)
    with going_on(out), watch_run(quiet) as listen:
        run = run_protocol(
            protocol,
            out,
            data_root=data_root,
            device=place,
            command=command_line(),
            resume=resume,
            force=force,
            listen=listen,
            engine=engine or LOCAL,
        )
    finish(run, quiet, strict)


@contextmanager
def going_on(out: Path) -> Iterator[None]:
    """Say, when a run ends before its time by Ctrl-C, a disk that is full or units that failed, what is left and how to
    go on."""
    from robustode.evaluation.engines.failed import UnitsFailed

    try:
        yield
    except KeyboardInterrupt:
        if out.exists():
            sys.stderr.write(f"what is finished stays in {out}; go on with the same command and --resume\n")
        raise typer.Exit(130) from None
    except UnitsFailed as error:
        sys.stderr.write(f"error: {error}\n")
        raise typer.Exit(1) from None
    except Exception as error:
        wrong = unwritable(error)
        if wrong is None or not out.exists():
            raise
        fix = f"Make room. What is finished stays in {out}; go on with the same command and --resume."
        raise RunError(f"cannot write '{wrong.filename or out}': {wrong.strerror}", fix=fix) from error
