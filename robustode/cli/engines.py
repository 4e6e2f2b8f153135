"""The engine of a run on the command line: its options, one part of a job array, and parts put together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustode.cli import options
from robustode.cli.console import emit, say, watch_run
from robustode.cli.finished import finish
from robustode.errors import OptionError, RunError

if TYPE_CHECKING:
    from robustode.evaluation.engines.options import Engine
    from robustode.evaluation.protocol import Protocol

SHARD_HELP = "Samples in a unit of work, N; or i/N: only the i-th of N parts of the units, counted from 0."


def engine_of(name: str, workers: int | None, address: str | None, memory: str | None) -> Engine:
    """Return the engine that the options describe, found to be there.

    Raises:
        OptionError: an unknown engine, an option that is not the engine's, or a size that cannot be read.
        MissingDependency: its library is not installed.
    """
    from robustode.evaluation.engines.options import Engine, check_installed, parse_size

    limit = None if memory is None else parse_size(memory)
    return check_installed(Engine(name=name, workers=workers, address=address, memory=limit))


def size_and_part(text: str | None) -> tuple[int | None, tuple[int, int] | None]:
    """Read --shard: N samples in a unit, or the part i/N of the units; None for what is not said.

    Raises:
        OptionError: neither.
    """
    from robustode.evaluation.engines.options import parse_part

    if text is None:
        return None, None
    if "/" in text:
        return None, parse_part(text)
    if not text.isdecimal() or int(text) < 1:
        expected = "a whole number ≥ 1 of samples in a unit, or i/N with 0 ≤ i < N for a part of the units"
        raise OptionError("--shard", expected=expected, got=text)
    return int(text), None


def workers_of(engine: str, workers: int | None, part: tuple[int, int] | None) -> int:
    """Return how many workers a command that only plans would have: those named, parts of a job array, or cores.

    Raises:
        OptionError: an unknown engine.
    """
    from robustode.evaluation.engines.options import Engine

    local = Engine(name=engine).name == "local"
    return workers or (part[1] if part is not None else 1 if local else os.cpu_count() or 1)


def run_part_and_show(
    protocol: Protocol,
    out: Path,
    part: tuple[int, int],
    engine: Engine,
    *,
    force: bool,
    device: str,
    data_root: Path | None,
    quiet: bool,
) -> None:
    """Compute one part of a run and say how far the run is.

    Raises:
        OptionError: --force, which would delete what other parts have computed.
    """
    from robustode.api import run_part
    from robustode.cli.evaluate import command_line, going_on

    if force:
        fix = "Delete the directory before the first part begins."
        raise OptionError("--force", expected="none with --shard i/N", got="--force", fix=fix)
    options.check_place(out)
    place = options.check_device(device)
    with going_on(out), watch_run(quiet) as listen:
        done = run_part(
            protocol,
            out,
            part,
            data_root=data_root,
            device=place,
            command=command_line(),
            listen=listen,
            engine=engine,
        )
    if quiet:
        facts = {"out": str(out), "part": list(part), "units": done.units, "of": done.total}
        emit({**facts, "missing": list(done.missing)})
        return
    say(f"Part {part[0]}/{part[1]}: its {done.units} units are in {out}")
    if done.missing:
        say(f"{len(done.missing)} of {done.total} units are not there yet, the first: {done.missing[0]}")
    say(f"When all parts have ended: robustode report {out}, or the same command without --shard and with --resume")


def report_parts(folders: Sequence[Path], out: Path | None, *, data_root: Path | None, quiet: bool) -> None:
    """Make one run of unfinished parts and show it.

    Raises:
        RunError: finished runs among them, or several directories and no --out.
    """
    from robustode.api import merge_parts
    from robustode.cli.evaluate import going_on
    from robustode.evaluation.part import is_unfinished

    for folder in folders:
        if not is_unfinished(folder):
            raise RunError(f"'{folder}'", expected="unfinished parts of one run, or finished runs", got="both")
    if out is None and len(folders) > 1:
        fix = "Name the directory of the whole run with --out."
        raise RunError("--out", expected="a directory for the parts together", got="none", fix=fix)
    place = out or folders[0]
    options.check_place(place)
    with going_on(place), watch_run(quiet) as listen:
        run: Any = merge_parts(folders, place, data_root=data_root, listen=listen)
    finish(run, quiet)
