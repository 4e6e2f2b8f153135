"""`robustode data`: the only command that downloads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from robustode.cli import options
from robustode.cli.console import emit, progress, say
from robustode.errors import DataError

app = typer.Typer(help="Published data sets.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _data() -> None:
    """Published data sets."""


@app.command("fetch")
def fetch_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="mnist, fashion-mnist or cifar10.")],
    data_root: options.DataRoot = None,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="A mirror that holds the published files.")
    ] = None,
    json_: options.Json = False,
) -> None:
    """Download a published data set and check it.

    Example: robustode data fetch mnist --data-root data
    """
    from robustode.data import fetch

    root = data_root or (Path(os.environ["ROBUSTODE_DATA"]) if os.environ.get("ROBUSTODE_DATA") else None)
    if root is None:
        fix = "Say where: --data-root DIR, or set ROBUSTODE_DATA."
        raise DataError("folder for the data", expected="--data-root or ROBUSTODE_DATA", got="neither", fix=fix)
    with progress(json_) as bar:
        tasks: dict[str, object] = {}

        def show(file: str, done: int, total: int | None) -> None:
            if bar is not None:
                task = tasks.setdefault(file, bar.add_task(file, total=total))
                bar.update(task, completed=done, total=total)  # type: ignore[arg-type]

        files = fetch(name, root, progress=show, url=url)
    if json_:
        emit({"files": [str(file) for file in files]})
    else:
        say(f"{name} is in {root}: {len(files)} files, checked")
