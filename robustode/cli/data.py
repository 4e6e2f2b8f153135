"""`robustode data`: fetch published sets (the only command that downloads), repair written ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from robustode.cli import options
from robustode.cli.console import emit, progress, say
from robustode.errors import DataError

app = typer.Typer(
    help="Data sets: fetch published ones, repair written ones.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def _data() -> None:
    """Data sets: fetch published ones, repair written ones."""


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

    A download that was cut off goes on where it stopped.

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


@app.command("repair")
def repair_command(
    place: Annotated[Path, typer.Argument(metavar="DIR", help="A data set that generate wrote.")],
    json_: options.Json = False,
) -> None:
    """Take the broken shards out of a data set, so that the rest can be used.

    The index is written anew without them; it, the captions and the data card say which are gone. Their files go to
    DIR/broken. The command that made the set makes exactly them again with --resume.

    Example: robustode data repair adversarial-digits
    """
    from robustode.data import repair

    done = repair(place)
    if json_:
        emit({"dropped": list(done.dropped), "lost": done.lost, "samples": done.count})
    elif not done.dropped:
        say(f"{place} is intact: {done.count} samples")
    else:
        for shard in done.dropped:
            say(f"dropped {shard}")
        say(f"{done.count} samples are left, {done.lost} are gone; generate makes them again with --resume")
