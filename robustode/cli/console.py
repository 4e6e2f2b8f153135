"""What the command line shows: tables, a progress bar on a terminal, one JSON document for machines."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from robustode.evaluation.runner import Event, Listener
    from robustode.reporting.tables import Table

PIPE_WIDTH = 160
FIRST_COLUMN = 25  # columns of the terminal that the first column of a table keeps before the others
_BESIDE = re.compile(r"^([\d.,]\S*(?: %)?) [\[(].*[\])]$")  # a number with an interval, or a mean with its median
_NARROW = (
    f"What stands in brackets is left out: the terminal is narrow. See tables/, or widen it to {PIPE_WIDTH} columns."
)


def console() -> Console:
    """Return the console of standard output: as wide as the terminal or $COLUMNS, else 160 columns."""
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if known else PIPE_WIDTH, highlight=False)


def say(text: str, quiet: bool = False) -> None:
    """Print one line unless `quiet`; above the progress bar, if there is one."""
    if not quiet:
        sys.stdout.write(f"{text}\n")


def show_note(text: str) -> None:
    """Print a paragraph of small print."""
    console().print(text, markup=False, style="dim")


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


def show_tables(tables: Sequence[Table], summary: Table | None = None) -> None:
    """Print tables, then what their captions say, each sentence once, then the summary without its caption.

    Where the terminal is too narrow for a table, its intervals are left out, and that is said.
    """
    out = console()
    fitting = [_fitting(table, out) for table in tables]
    for shown, _ in fitting:
        out.print(shown)
    for note in [*notes(tables), *([_NARROW] if any(short for _, short in fitting) else [])]:
        show_note(note)
    out.print()
    if summary is not None:
        out.print(_fitting(summary, out)[0])


def notes(tables: Sequence[Table]) -> list[str]:
    """Return one paragraph for each kind of table: the sentences of its caption that no earlier table had."""
    said: set[str] = set()
    paragraphs: dict[str, list[str]] = {}
    for table in tables:
        for sentence in table.caption.split(". "):
            text = sentence.removesuffix(".")
            if text and text not in said and not text.startswith("Norm: "):  # the title has the norm
                said.add(text)
                paragraphs.setdefault(table.title.partition(",")[0], []).append(text)
    return [f"{kind}. {'. '.join(sentences)}." for kind, sentences in paragraphs.items()]


def _fitting(table: Table, out: Console) -> tuple[RichTable, bool]:
    """Return the table for `out`, and whether intervals were left out to make it fit."""
    from robustode.reporting.tables import to_rich

    full = to_rich(table, caption=False)
    if Measurement.get(out, out.options, full).maximum < out.width:
        return full, False
    numbers = table.columns[1:]
    display = table.display.copy()
    display[numbers] = display[numbers].map(lambda cell: _BESIDE.sub(r"\1", cell))
    short = to_rich(replace(table, display=display), caption=False)
    short.columns[0].min_width = min(FIRST_COLUMN, max(display[table.columns[0]].map(cell_len)))
    return short, True


def percent(share: float, digits: int = 1) -> str:
    """Return a share of 1 as the tables write it."""
    return f"{100 * share:.{digits}f} %"


def show_rows(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a small table of texts, in the style of the others."""
    from rich import box
    from rich.table import Table as RichTable

    table = RichTable(title=Text(title), box=box.SIMPLE_HEAD)
    for number, name in enumerate(columns):
        table.add_column(Text(name), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console().print(table)


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
    both = sys.stdout.isatty()  # else what goes to a file or pipe would end up on the terminal
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=both) as bar:
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
            elif event.kind in ("skipped", "memory"):
                say(event.text, quiet)
            elif bar is not None and task is not None:
                label = f"{event.model} · {event.text}"
                bar.update(task, description=label, completed=event.done, total=event.total)

        yield listen
