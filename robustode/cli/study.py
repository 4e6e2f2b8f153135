"""`robustode run` of a study: progress, and the summary at the end."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from robustode.cli import options
from robustode.cli.console import emit, progress, say
from robustode.cli.evaluate import command_line
from robustode.errors import OptionError


def parse_shard(text: str | None) -> tuple[int, int]:
    """Read i/N, the i-th of N parts counted from 0; None is the whole.

    Raises:
        OptionError: not two whole numbers with 0 ≤ i < N.
    """
    if text is None:
        return 0, 1
    first, slash, second = text.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal() and int(first) < int(second)):
        raise OptionError("--shard", expected="i/N with 0 ≤ i < N, such as 0/2", got=f"'{text}'")
    return int(first), int(second)


def run_study_file(
    name: str, out: Path, *, resume: bool, shard: str | None, data_root: Path | None, quiet: bool
) -> None:
    """Run the study `name` into `out`; Ctrl-C keeps every finished unit."""
    from robustode.evaluation.study import read_study
    from robustode.evaluation.study_runner import run_study

    study, part = read_study(name), parse_shard(shard)
    options.check_place(out, resume=resume)
    try:
        with progress(quiet) as bar:
            task = bar.add_task("study", total=None) if bar is not None else None

            def listen(unit: str, done: int, total: int) -> None:
                if bar is not None and task is not None:
                    bar.update(task, description=unit, completed=done, total=total)
                else:
                    say(f"{done}/{total} {unit}", quiet)

            run = run_study(
                study, out, resume=resume, shard=part, data_root=data_root, command=command_line(), listen=listen
            )
    except KeyboardInterrupt:
        if out.exists():
            sys.stderr.write(f"what is finished stays in {out}; go on with the same command and --resume\n")
        raise typer.Exit(130) from None
    if quiet:
        emit({"out": str(out), "study": study.hash, "units": len(run.units)})
    else:
        say(f"{len(run.units)} units of study {study.hash} in {out}: units.csv, distances.parquet")
