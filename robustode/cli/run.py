"""`robustode run`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from robustode.cli import options
from robustode.cli.engines import engine_of, run_part_and_show, workers_of
from robustode.cli.evaluate import run_and_show
from robustode.cli.plan import plan_and_show
from robustode.errors import OptionError


def run_command(
    evaluation: Annotated[
        str, typer.Argument(metavar="EVALUATION", help="Protocol by name (robustode list evaluations) or path.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="MODEL", help="Model, as for eval, in place of the protocol's. Repeats."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DATA", help="Data set by name or path, in place of the protocol's."),
    ] = None,
    out: options.Out = None,
    limit: options.Limit = None,
    device: options.Device = "cpu",
    search_precision: Annotated[str | None, options.SEARCH_PRECISION] = None,
    cuda_graphs: options.CudaGraphs = False,
    no_store: options.NoStore = False,
    audit: options.AuditOrNone = None,
    transfer: options.Transfer = None,
    strict: options.Strict = False,
    resume: options.Resume = False,
    force: options.Force = False,
    data_root: options.DataRoot = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="N",
            callback=options.at_least(0),
            help="Seed in place of the protocol's; of a study: its units with that seed.",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="i/N", help="Only the i-th of N parts of the units, counted from 0."),
    ] = None,
    engine: options.EngineName = "local",
    workers: options.Workers = None,
    address: options.Address = None,
    memory: options.Memory = None,
    plan: options.Plan = False,
    json_: options.Json = False,
) -> None:
    """Run an evaluation protocol, or a study.

    Options take the place of what the protocol says. A study trains what it evaluates.

    Example: robustode run compare --model a.safetensors --model b.safetensors
    """
    from robustode.evaluation.engines.options import parse_part
    from robustode.evaluation.protocol import read_protocol
    from robustode.evaluation.study import is_study

    said = {"limit": limit, "seed": seed, "models": model, "data": data, "audit": audit, "transfer": transfer}
    said |= {"search_precision": search_precision, "cuda_graphs": cuda_graphs or None}
    changes = {key: value for key, value in said.items() if value is not None}
    if is_study(evaluation):
        others = {key: value for key, value in changes.items() if key not in ("seed", "models")} | {"model": model}
        others |= {"engine": None if engine == "local" else engine, "workers": workers, "address": address}
        others["memory"] = memory
        flags = {"force": force, "strict": strict, "no-store": no_store, "plan": plan}
        return _run_study(
            evaluation,
            out or Path("runs") / Path(evaluation).stem,
            {f"--{key.replace('_', '-')}": value for key, value in (others | flags).items() if value},
            resume=resume,
            seed=seed,
            shard=shard,
            data_root=data_root,
            quiet=json_,
        )
    how = None if plan else engine_of(engine, workers, address, memory)
    part = None if shard is None else parse_part(shard)
    protocol = read_protocol(evaluation)
    if no_store:
        changes["outputs"] = [name for name in protocol.outputs if name != "adversarials"]
    protocol = protocol.changed(f"protocol '{evaluation}'", **changes) if changes else protocol
    if how is None:
        count = workers_of(engine, workers, part)
        return plan_and_show(protocol, engine, count, memory=memory, device=device, data_root=data_root, quiet=json_)
    place = out or default_run_directory(evaluation, model or (), data)
    if part is not None:
        shown = {"device": device, "data_root": data_root, "quiet": json_}
        return run_part_and_show(protocol, place, part, how, force=force, **shown)
    run_and_show(protocol, place, resume, force, device, data_root, json_, strict, how)


def _run_study(name: str, out: Path, refused: dict[str, Any], **options_: Any) -> None:
    from robustode.cli.study import run_study_file

    for option in refused:
        fix = "Change a copy of its file."
        raise OptionError(option, expected="a protocol; a study says it itself", got=f"study '{name}'", fix=fix)
    run_study_file(name, out, **options_)


def default_run_directory(evaluation: str, models: Sequence[str], data: str | None) -> Path:
    """Return runs/<protocol>, with the models and data that were given in place of its own behind that."""
    from robustode.models import peek

    given = ["+".join(peek(one)["label"] for one in models), "" if data is None else Path(data).stem or data]
    name = "-".join([Path(evaluation).stem, *filter(None, given)])
    return Path("runs") / re.sub(r"[^A-Za-z0-9._+-]", "_", name)
