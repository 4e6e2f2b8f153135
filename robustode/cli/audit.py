"""`robustode audit`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from robustode.cli import options
from robustode.cli.console import emit, progress, say, show_rows, watch_run
from robustode.cli.finished import finish
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
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Show the gallery of impostors to the checks instead (10 minutes).")
    ] = False,
) -> None:
    """Find out whether the numbers of a run are to be believed.

    Adds every check to a finished run. With --self-test: what the checks say of models, attacks and data of which it
    is known whether their numbers deserve belief; exits 1 if an impostor gets away or an honest model fails.

    Example: robustode audit runs/snode-digits-digits-standard
    """
    if self_test and run is not None:
        raise OptionError("--self-test", expected="no run", got=str(run), fix="Leave out one of the two.")
    if self_test:
        _self_test(json_)
        return
    if run is None:
        raise OptionError(
            "audit", expected="a run directory", got="none", fix="Name a finished run, or say --self-test."
        )
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


def _self_test(json_: bool) -> None:
    from robustode.audit.gallery import EXHIBITS
    from robustode.audit.gallery import self_test as show

    with progress(json_) as bar:
        task = None if bar is None else bar.add_task("gallery", total=len(EXHIBITS))

        def listen(name: str) -> None:
            if bar is not None and task is not None:
                bar.update(task, description=name, advance=1)

        test = show(EXHIBITS, listen=listen)
    if json_:
        emit({"passed": test.passed, "exhibits": test.table.to_dict("records"), "wrong": test.wrong()})
    else:
        show_rows("Gallery of impostors", ("", "half", "share", "95 % interval"), test.rates())
        for line in test.wrong():
            say(line)
    if not test.passed:
        raise typer.Exit(1)
