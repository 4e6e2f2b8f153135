"""`robustode audit`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from robustode.cli import options
from robustode.cli.console import watch_run
from robustode.cli.evaluate import finish
from robustode.errors import OptionError


def audit_command(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="A finished run directory.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="MODEL", help="Where a model of the run is now. Repeats, in its order."),
    ] = None,
    audit: options.Audit = "full",
    transfer: options.Transfer = None,
    strict: options.Strict = False,
    device: options.Device = "cpu",
    data_root: options.DataRoot = None,
    json_: options.Json = False,
) -> None:
    """Find out whether the numbers of a run are to be believed.

    Adds every check to a finished run.

    Example: robustode audit runs/snode-digits-digits-standard
    """
    if run is None:
        raise OptionError("audit", expected="a run directory", got="none", fix="Name a finished run.")
    from robustode.api import publish
    from robustode.audit.finished import audit_run

    place = options.check_device(device)
    try:
        with watch_run(json_) as listen:
            audited = audit_run(
                run,
                scope=audit,
                models=model or (),
                transfer=transfer or (),
                data_root=data_root,
                device=place,
                listen=listen,
                publish=publish,
            )
    except KeyboardInterrupt:
        sys.stderr.write(f"the run in {run} is as it was; go on with the same command\n")
        raise typer.Exit(130) from None
    finish(audited, json_, strict)
