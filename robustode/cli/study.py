"""`robustode run` and `robustode report` of a study: progress, the report, the primary table at the end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from robustode.cli import options
from robustode.cli.console import emit, progress, rows_of, say, show_note, show_tables
from robustode.cli.evaluate import command_line

if TYPE_CHECKING:
    from robustode.evaluation.study_runner import StudyRun


def run_study_file(
    name: str, out: Path, *, resume: bool, seed: int | None, shard: str | None, data_root: Path | None, quiet: bool
) -> None:
    """Run the study `name` into `out`, write its report and show the primary table; Ctrl-C keeps finished units."""
    from robustode.evaluation.engines.options import parse_part
    from robustode.evaluation.study import read_study
    from robustode.evaluation.study_runner import run_study

    study, part = read_study(name), (0, 1) if shard is None else parse_part(shard)
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
                study,
                out,
                resume=resume,
                seed=seed,
                shard=part,
                data_root=data_root,
                command=command_line(),
                listen=listen,
            )
    except KeyboardInterrupt:
        if out.exists():
            sys.stderr.write(f"what is finished stays in {out}; go on with the same command and --resume\n")
        raise typer.Exit(130) from None
    _report(run, out, quiet)


def report_study(folder: Path, out: Path, *, quiet: bool) -> None:
    """Write the report of the finished units of a study's folder to `out`, and show the primary table."""
    from robustode.evaluation.study_runner import open_study_run

    options.check_place(out)
    _report(open_study_run(folder), out, quiet)


def _report(run: StudyRun, out: Path, quiet: bool) -> None:
    from robustode.evaluation.study_unit import units_of
    from robustode.reporting.study import write_study
    from robustode.reporting.study_frame import coverage
    from robustode.reporting.study_primary import primary

    write_study(run, out)
    total, table = len(units_of(run.study)), primary(run) if len(run.units) else None
    if quiet:
        rows = rows_of(table) if table is not None else []
        emit({"out": str(out), "study": run.study.hash, "units": len(run.units), "of": total, "primary": rows})
        return
    if table is not None and len(table.frame):
        show_tables([table])
    elif coverage(run):
        show_note(coverage(run))
    what = "units.csv, distances.parquet, tables/, figures/" if len(run.units) else "no unit is finished"
    say(f"{len(run.units)} of {total} units of study {run.study.hash} in {out}: {what}")
