"""What the command line shows of a finished run, and with which status it then exits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from robustode.cli.console import emit, rows_of, say, show_tables

if TYPE_CHECKING:
    from robustode.evaluation.rundir import RunDir

FILES = (
    "report.html",
    "tables/",
    "figures/",
    "records.parquet",
    "uncertainty.parquet",
    "certificates.parquet",
    "smoothed.parquet",
    "adversarials/",
    "audit.json",
    "run.json",
)


def finish(run: RunDir, quiet: bool, strict: bool = False) -> None:
    """Show a finished run; exit with status 1 if a table has a cell that is not known because an attack raised, with 3
    if `strict` and a check of the audit failed."""
    from robustode.reporting import audit
    from robustode.reporting.captions import partial
    from robustode.reporting.html import summary
    from robustode.reporting.views import run_tables

    tables = run_tables(run)
    unknown = any("incomplete" in t.frame and bool((t.frame["incomplete"] > 0).any()) for t in tables)
    if quiet:
        emit(
            {
                "out": str(run.path),
                "status": run.meta["status"],
                "protocol": run.meta["protocol_hash"],
                "skipped": run.meta["skipped"],
                "not_applicable": run.meta.get("not_applicable", []),
                "errors": run.meta["errors"],
                "audit": run.audit,
                "tables": {table.name: rows_of(table) for table in tables},
            }
        )
    else:
        title = "Clean accuracy and worst case of all attacks"
        attacked = not run.records.empty
        brief = replace(summary(tables, run.records, run.meta), title=title) if attacked else None
        show_tables([table for table in tables if table.name != "audit"], brief)
        for line in audit.lines(run.audit):
            say(line)
        for error in run.meta["errors"]:
            say(f"{error['attack']} on {error['model']} raised for {error['count']} rows: {error['message']}")
        for line in _refused(run):
            say(line)
        if run.meta["skipped"]:
            say(partial(run.meta))
        written = [name for name in FILES if (run.path / name).exists()]
        say(f"Files in {run.path}: {', '.join(written)}")
    if unknown:
        raise typer.Exit(1)
    if strict and audit.failed(run.audit):
        raise typer.Exit(3)


def _refused(run: RunDir) -> list[str]:
    """One line for each attack whose points the judge refused: not finite, outside the box or the ball."""
    refused = run.records[(run.records["status"] == "failed") & run.records["message"].str.startswith("the attack")]
    groups = refused.groupby(["model", "attack"], sort=True)["message"]
    return [
        f"{attack} on {model}: {len(said)} points were refused, for example: {said.iloc[0]}"
        for (model, attack), said in groups  # type: ignore[misc]
    ]
