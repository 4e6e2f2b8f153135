"""Whether a directory can take a run: never overwritten without being told, resumed only by the same run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from robustode.errors import RunError
from robustode.evaluation.changes import changes
from robustode.evaluation.rundir import SCHEMA, hash_files
from robustode.files import half_written, read_json

FILES = (
    "records.parquet",
    "timings.parquet",
    "run.json",
    "audit.json",
    "depth.parquet",
    "uncertainty.parquet",
    "certificates.parquet",
    "smoothed.parquet",
    "report.html",
)
RUN = "run.json"
FOLDERS = ("shards", "adversarials", "tables", "figures")


def check_directory(out: Path, meta: dict[str, Any], *, resume: bool, force: bool, other_machine: bool = False) -> None:
    """Raise `RunError` unless `out` can take the run that `meta`, its run.json, describes.

    With `other_machine` a run is resumed, too, whose units were computed with other libraries or on another device.
    """
    if resume and force:
        raise RunError("resume and force", expected="one of them", got="both")
    if not out.exists():
        return
    what = f"output directory '{out}'"
    if not (resume or force):
        fix = "Choose another --out, continue it with --resume, or replace it with --force."
        raise RunError(what, expected="a directory that does not exist", got="it exists", fix=fix)
    if out.is_dir() and set(out.iterdir()) <= set(half_written(out)):
        return
    old = read_json(out / "run.json", RunError) if (out / "run.json").is_file() else {}
    if not {"schema", "protocol_hash"} <= set(old):
        fix = "Choose another --out; --resume and --force take runs only."
        raise RunError(what, expected="an earlier run", got="something else", fix=fix)
    if resume:
        if old["schema"] != SCHEMA:
            newer = isinstance(old["schema"], int) and old["schema"] > SCHEMA
            fix = "Update robustode to go on with it." if newer else "Start anew with --force, or choose another --out."
            raise RunError(f"schema of run '{out}'", expected=SCHEMA, got=old["schema"], fix=fix)
        if changed := changes(old, meta, machine=not other_machine):
            fix = "Give the same command as before, or start anew with --force."
            expected, got = "the run that was interrupted", "; ".join(changed)
            raise RunError(f"cannot resume '{out}'", expected=expected, got=got, fix=fix)


def begun(out: Path, meta: dict[str, Any]) -> dict[str, Any]:
    """Return run.json of a run that goes on: what `meta` says, with when and by which command it was begun."""
    if not (out / "run.json").is_file():
        return meta
    old = read_json(out / "run.json", RunError)
    return {**meta, "created": old.get("created", meta["created"]), "command": old.get("command", meta["command"])}


def sweep(out: Path) -> None:
    """Delete what a killed process left half written in a run directory that is held."""
    for file in half_written(out):
        file.unlink(missing_ok=True)


def clear(out: Path) -> None:
    """Delete what a run writes, and nothing else."""
    for name in FOLDERS:
        if (out / name).exists():
            shutil.rmtree(out / name)
    for name in sorted(FILES, key=RUN.__eq__):  # run.json last: until then it is known as a run
        (out / name).unlink(missing_ok=True)


def own_files(out: Path) -> dict[str, str]:
    """Return {relative path: sha256} of what a run wrote, without run.json, shards, others' and half-written files."""
    hashed = hash_files(out)
    return {name: digest for name, digest in hashed.items() if _is_own(Path(name))}


def _is_own(path: Path) -> bool:
    return not path.name.startswith(".") and (str(path) in FILES or path.parts[0] in FOLDERS)
