"""`robustode`: the application, its commands, and what happens to errors."""

from __future__ import annotations

import sys

import typer

from robustode.cli import data, evaluate, generate, listing, report, train, uncertainty, verify
from robustode.errors import RobustODEError

app = typer.Typer(
    name="robustode",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Adversarial robustness of continuous-depth classifiers (sNODE) and of any torch.nn.Module.",
    epilog="Start with: robustode eval --model zoo:snode-digits --limit 100",
)
app.command("eval")(evaluate.eval_command)
app.command("run")(evaluate.run_command)
app.command("train")(train.train_command)
app.command("generate")(generate.generate_command)
app.command("report")(report.report_command)
app.command("verify")(verify.verify_command)
app.command("uncertainty")(uncertainty.uncertainty_command)
app.command("list")(listing.list_command)
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line: a user's error is one message and exit status 2, Ctrl-C is 130."""
    try:
        app(standalone_mode=True)
    except RobustODEError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
