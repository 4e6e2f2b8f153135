"""`robustode deploy`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from robustode.cli import options
from robustode.cli.console import emit, percent, say
from robustode.cli.evaluate import command_line


def deploy_command(
    model: Annotated[str, typer.Argument(metavar="CKPT", help="Checkpoint of an sNODE, or zoo:NAME.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Checkpoint to write (.safetensors).")],
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help="dopri5, tsit5, heun; with torchdiffeq also dopri8, bosh3, fehlberg2, adaptive_heun; or on a fixed "
            "grid euler, midpoint, rk4. Default dopri5; with --steps the model's own.",
        ),
    ] = None,
    rtol: Annotated[float | None, typer.Option("--rtol", metavar="R", help="Relative tolerance; default 1e-5.")] = None,
    atol: Annotated[float | None, typer.Option("--atol", metavar="A", help="Absolute tolerance; default 1e-5.")] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            metavar="NAME",
            help="torchode (default): steps of each sample's own; or torchdiffeq: one step for the batch.",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", metavar="N", callback=options.at_least(1), help="Steps of a fixed grid."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DATA", help="Test data; default the checkpoint's own; none to skip."),
    ] = None,
    device: options.Device = "cpu",
    force: options.Force = False,
    data_root: options.DataRoot = None,
    json_: options.Json = False,
) -> None:
    """Write the same weights under another solver.

    Measures the accuracy of both on the test split, and on how many labels they agree.

    Example: robustode deploy zoo:snode-digits --method dopri5 --rtol 1e-4 --out deployed.safetensors
    """
    from robustode.errors import ModelError
    from robustode.evaluation.deploy import agreement, deployed_provenance
    from robustode.models import check_target, load_model, model_hash, peek, save_checkpoint
    from robustode.models.snode import SNODE

    check_target(out, force=force)
    options.check_place(out.parent)
    facts = peek(model)
    header = facts["header"]
    original = None if header is None else load_model(model, device=options.check_device(device))
    if header is None or not isinstance(original, SNODE):
        got = "a model without RobustODE's header" if header is None else f"a {header.arch}"
        raise ModelError(f"deploy '{model}'", expected="a checkpoint of an sNODE", got=got)
    wanted = method or (None if steps is not None else "dopri5")
    deployed = original.with_solver(method=wanted, steps=steps, rtol=rtol, atol=atol, backend=backend)
    pair: tuple[Any, Any] = (original, deployed)
    samples, note = _test_data(data, header.data, data_root)
    found = None if samples is None else agreement(*pair, samples)
    provenance: dict[str, Any] = deployed_provenance(
        header, deployed, found, source=model, source_hash=model_hash(original), command=command_line()
    )
    save_checkpoint(deployed, out, data=header.data, provenance=provenance, force=force)
    if json_:
        measured = None if found is None else asdict(found)
        emit({"out": str(out), "config": deployed.config, "measured": measured, "note": note})
        return
    solver = deployed.solver or f"{deployed.steps} {deployed.config['method']} steps"
    say(f"{facts['label']} under {solver}")
    if found is not None and samples is not None:
        say(f"accuracy {percent(found.accuracy)}, was {percent(found.original)} ({samples.caption})")
        say(f"same label on {percent(found.agreement)} of {found.samples} samples")
        say(f"evaluations in a pass {found.nfe:.1f}, were {found.original_nfe:.1f}")
    else:
        say(f"accuracy not measured: {note}")
    say(f"wrote {out}")
    say(f"Next: robustode eval --model {out}")


def _test_data(given: str | None, own: str | None, root: Path | None) -> tuple[Any, str]:
    """Return the test split, or None and why; a name that the user gave must load."""
    from robustode.data import load_data
    from robustode.errors import DataError

    if given == "none":
        return None, "--data none"
    if given is None and own is None:
        return None, "the checkpoint names no data; give --data"
    try:
        return load_data(given or own, split="test", root=root), ""  # type: ignore[arg-type]
    except DataError as reason:
        if given is not None:
            raise
        return None, str(reason)
