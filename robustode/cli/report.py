"""`robustode report`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from robustode.cli import options
from robustode.cli.console import emit, rows_of, say, show_tables
from robustode.cli.engines import report_parts
from robustode.errors import RunError


def report_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="One or several finished run directories.")],
    out: options.Out = None,
    seed: options.Seed = 0,
    force: options.Force = False,
    data_root: options.DataRoot = None,
    json_: options.Json = False,
) -> None:
    """Compare finished runs, or put the parts of one together.

    Tables side by side, paired intervals, figures, one HTML page. Of the parts of one run (--shard i/N), in one
    directory or several, the run is made as if it had been computed at once.

    Example: robustode report runs/a runs/b --out comparison
    """
    from robustode.evaluation.part import is_unfinished
    from robustode.evaluation.rundir import read_run
    from robustode.reporting.charts import all_charts
    from robustode.reporting.compare import compare
    from robustode.reporting.figures import write_figures
    from robustode.reporting.html import write_report
    from robustode.reporting.join import join
    from robustode.reporting.views import all_tables, save_tables, tables_beside

    if len(runs) == 1 and (runs[0] / "study.json").is_file():
        from robustode.cli.study import report_study

        if out is not None and out.resolve() != runs[0].resolve():
            _check_new(out, force)
        return report_study(runs[0], out or runs[0], quiet=json_)
    for path in runs:
        if (path / "study.json").is_file():
            raise RunError(f"'{path}'", expected="one study alone, or finished runs", got="a study among others")
    if any(is_unfinished(path) for path in runs):
        return report_parts(runs, out, data_root=data_root, quiet=json_)
    read = [read_run(path) for path in runs]
    place = out or Path("runs") / ("report-" + "+".join(path.resolve().name for path in runs))
    _check_new(place, force)
    if len(read) == 1 and len(read[0].meta["models"]) == 1:
        tables = all_tables(read[0].records, read[0].meta, read[0].timings, read[0].audit)
    else:
        tables = compare(read, seed=seed)
    for name in ("tables", "figures"):
        shutil.rmtree(place / name, ignore_errors=True)
    joined = join(read)
    tables += tables_beside(joined)
    save_tables(tables, place / "tables")
    charts = all_charts(joined)
    write_figures(charts, place / "figures")
    page = write_report(read, place / "report.html", charts=charts)
    if json_:
        emit({"out": str(place), "tables": {table.name: rows_of(table) for table in tables}})
        return
    show_tables(tables)
    say(f"Files in {place}: {page.name}, tables/, figures/")


def _check_new(place: Path, force: bool) -> None:
    """Raise `RunError` unless `place` is new, or an earlier report that `force` replaces."""
    options.check_place(place)
    if not place.exists():
        return
    if not force:
        fix = "Choose another --out, or use --force."
        raise RunError(f"output directory '{place}'", expected="a new one", got="it exists", fix=fix)
    left = {path.name for path in place.iterdir() if not path.name.startswith(".")}
    half = left <= {"tables", "figures"}  # of a report that was interrupted
    if (place / "run.json").exists() or not ((place / "report.html").is_file() or half):
        fix = "Choose another --out; --force replaces reports only."
        raise RunError(f"output directory '{place}'", expected="an earlier report", got="something else", fix=fix)
