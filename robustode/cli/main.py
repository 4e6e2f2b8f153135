"""`robustode`: the application, its commands, and what happens to errors."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from robustode import __version__
from robustode.cli import (
    audit,
    certify,
    data,
    deploy,
    evaluate,
    generate,
    listing,
    report,
    run,
    sensitivity,
    train,
    uncertainty,
    verify,
)
from robustode.errors import OptionError, RobustODEError
from robustode.files import unwritable

# Before torch starts its threads: on a machine that does other work too, threads that wait by spinning slow everything
# down several times. It changes no result.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

WRONG_USE, INTERRUPTED = 2, 130

app = typer.Typer(
    name="robustode",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Start with: robustode eval --model zoo:snode-digits --limit 100",
)
app.command("eval")(evaluate.eval_command)
app.command("run")(run.run_command)
app.command("train")(train.train_command)
app.command("deploy")(deploy.deploy_command)
app.command("generate")(generate.generate_command)
app.command("report")(report.report_command)
app.command("audit")(audit.audit_command)
app.command("verify")(verify.verify_command)
app.command("sensitivity")(sensitivity.sensitivity_command)
app.command("uncertainty")(uncertainty.uncertainty_command)
app.command("certify")(certify.certify_command)
app.command("list")(listing.list_command)
app.add_typer(data.app, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"robustode {__version__}\n")
        raise typer.Exit


@app.callback()
def _robustode(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it and exit.")] = (
        False
    ),
) -> None:
    """Adversarial robustness of continuous-depth classifiers (sNODE) and of any torch.nn.Module."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 1 (a result is incomplete or does not hold), 2 (wrong use), 3
    (a defect under --strict), 130 (Ctrl-C).

    A user's error, and a place that cannot be written, is one message on stderr; any other exception is a defect of
    this package and keeps its traceback.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ε shows "?"
    try:
        _refuse_empty(arguments)
        app(arguments, prog_name="robustode", standalone_mode=True)
    except RobustODEError as error:
        _stop(str(error))
    except SystemExit as end:
        if end.code == INTERRUPTED:
            sys.stderr.write("interrupted\n")
        raise
    except Exception as error:
        if (wrong := unwritable(error)) is None:
            raise
        place = f" '{wrong.filename}'" if wrong.filename else ""
        _stop(f"cannot write{place}: {wrong.strerror}. Make room, or choose another place with --out.")


def _stop(message: str) -> None:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(WRONG_USE)


def _refuse_empty(arguments: list[str]) -> None:
    """Raise `OptionError` for an empty value, which is most often a shell variable that is not set."""
    for before, text in zip(["", *arguments], arguments, strict=False):
        if text == "" or (text.startswith("--") and text.endswith("=")):
            option = text.rstrip("=") or before or "argument"
            raise OptionError(option, expected="a value", got="an empty text", fix="Is a shell variable not set?")
