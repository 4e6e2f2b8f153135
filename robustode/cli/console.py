"""What the command line shows: tables, a progress bar on a terminal, one JSON document for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from robustode.evaluation.runner import Event, Listener
    from robustode.reporting.tables import Table


def console() -> Console:
    """Return the console of standard output; as wide as the terminal, 160 columns in a pipe."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(width=160, highlight=False)


def say(text: str, quiet: bool = False) -> None:
    """Print one line unless `quiet`."""
    if not quiet:
        console().print(text, markup=False, soft_wrap=True)


def emit(document: dict[str, Any]) -> None:
    """Print one JSON document; numbers that JSON does not have become null."""
    text = json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value


def show_tables(tables: Sequence[Table]) -> None:
    """Print tables, each caption once below its table."""
    from robustode.reporting.tables import to_rich

    out = console()
    for table in tables:
        out.print(to_rich(table, caption=False))
        out.print(table.caption, markup=False, style="dim")
        out.print()


def rows_of(table: Table) -> list[dict[str, Any]]:
    """Return the numbers of a table as JSON-able rows."""
    return json.loads(table.frame.to_json(orient="records") or "[]")


@contextmanager
def progress(quiet: bool) -> Iterator[Progress | None]:
    """Yield a progress bar on standard error if that is a terminal, else None."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield bar


@contextmanager
def watch_run(quiet: bool) -> Iterator[Listener]:
    """Yield a listener that prints clean accuracies and skipped attacks, and moves the bar."""
    with progress(quiet) as bar:
        task = bar.add_task("attacks", total=None) if bar is not None else None

        def listen(event: Event) -> None:
            if event.kind == "clean" and event.clean is not None:
                clean = event.clean
                say(f"{event.model}: clean accuracy {clean.accuracy:.1%} ({clean.correct}/{clean.n})", quiet)
                if event.text:
                    say(f"  {event.text}", quiet)
            elif event.kind == "skipped":
                say(event.text, quiet)
            elif bar is not None and task is not None:
                label = f"{event.model} · {event.text}"
                bar.update(task, description=label, completed=event.done, total=event.total)

        yield listen
