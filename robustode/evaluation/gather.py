"""The parts of a run, in one directory or several, put together in one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustode.errors import RunError
from robustode.evaluation.changes import changes
from robustode.evaluation.engines.tasks import groups_of, missing
from robustode.evaluation.hold import hold
from robustode.evaluation.plan import Plan
from robustode.files import atomic, read_json, write_json

SHOWN = 3  # units that an error names


def read_parts(folders: Sequence[Path]) -> dict[str, Any]:
    """Return run.json of the run that some directories hold parts of.

    Raises:
        RunError: no directory, one that holds no run, or parts of different runs.
    """
    if not folders:
        raise RunError("parts of a run", expected="at least one directory", got="none")
    metas = []
    for folder in folders:
        if not (folder / "run.json").is_file():
            raise RunError(f"'{folder}' is not a run directory", expected="a file run.json in it", got="none")
        metas.append(read_json(folder / "run.json", RunError))
    for folder, meta in zip(folders[1:], metas[1:], strict=True):
        if changed := changes(metas[0], meta, machine=True):
            raise RunError(f"parts '{folders[0]}' and '{folder}'", expected="parts of one run", got="; ".join(changed))
    return metas[0]


def check_complete(plan: Plan, folders: Sequence[Path]) -> None:
    """Raise `RunError`, which names them, if units of a plan are in none of the directories."""
    left = groups_of(plan)
    total = sum(map(len, left))
    for folder in folders:
        left = missing(left, folder)
    units = [task.words for group in left for task in group]
    if units:
        more = f" and {len(units) - SHOWN} more" if len(units) > SHOWN else ""
        where = ", ".join(f"'{folder}'" for folder in folders)
        raise RunError(
            f"the run in {where} is not finished",
            expected=f"all {total} units",
            got=f"{total - len(units)}; missing are {', '.join(units[:SHOWN])}{more}",
            fix="Run the parts that are missing, or the same command without --shard and with --resume.",
        )


def gather(folders: Sequence[Path], out: Path) -> None:
    """Copy what parts have computed into one directory, as a run that has not ended; what is there stays."""
    out.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        if folder.resolve() == out.resolve():
            continue
        with hold(folder, shared=True):
            if not (out / "run.json").is_file():
                meta = read_json(folder / "run.json", RunError)
                write_json({**meta, "status": "running", "files": {}}, out / "run.json")
            for file in sorted((folder / "shards").rglob("*"), key=_whole_last):
                target = out / file.relative_to(folder)
                if file.is_file() and not file.name.startswith(".") and not target.exists():
                    with atomic(target) as temporary:
                        shutil.copyfile(file, temporary)


def _whole_last(file: Path) -> tuple[bool, str]:
    """Order in which a unit that has its records has everything."""
    return file.suffix == ".parquet" and not file.name.endswith(".timings.parquet"), str(file)
