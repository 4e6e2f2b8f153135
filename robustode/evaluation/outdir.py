"""Whether a directory can take a run: never overwritten without being told, resumed only by the same run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from robustode.errors import RunError
from robustode.evaluation.rundir import hash_files
from robustode.files import read_json

FILES = ("records.parquet", "timings.parquet", "run.json", "audit.json", "depth.parquet", "report.html")
FOLDERS = ("shards", "adversarials", "tables", "figures")
_MACHINE = ("the versions of libraries", "the device")


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
    if out.is_dir() and not any(out.iterdir()):
        return
    old = read_json(out / "run.json", RunError) if (out / "run.json").is_file() else {}
    if not {"schema", "protocol_hash"} <= set(old):
        fix = "Choose another --out; --resume and --force take runs only."
        raise RunError(what, expected="an earlier run", got="something else", fix=fix)
    if resume:
        _check_same(old, meta, out, other_machine)


def _check_same(old: dict[str, Any], new: dict[str, Any], out: Path, other_machine: bool) -> None:
    facts = {
        "the protocol (attacks, budgets, data, seed or shard size)": lambda meta: meta["protocol_hash"],
        "the models": lambda meta: [(model["label"], model["hash"]) for model in meta["models"]],
        "the data": lambda meta: meta["data"]["fingerprint"],
        "whether adversarials are kept": lambda meta: meta["protocol"]["store"],
        _MACHINE[0]: lambda meta: meta["versions"],
        _MACHINE[1]: lambda meta: meta["machine"]["device"],
    }
    if other_machine:
        facts = {name: fact for name, fact in facts.items() if name not in _MACHINE}
    changed = [name for name, fact in facts.items() if fact(old) != fact(new)]
    if changed:
        fix = "Give the same command as before, or start anew with --force."
        got = f"changes in {', '.join(changed)}"
        raise RunError(f"cannot resume '{out}'", expected="the run that was interrupted", got=got, fix=fix)


def clear(out: Path) -> None:
    """Delete what a run writes, and nothing else."""
    for name in FILES:
        (out / name).unlink(missing_ok=True)
    for name in FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)


def own_files(out: Path) -> dict[str, str]:
    """Return {relative path: sha256} of what a run wrote, without run.json, shards, others' and half-written files."""
    hashed = hash_files(out)
    return {name: digest for name, digest in hashed.items() if _is_own(Path(name))}


def _is_own(path: Path) -> bool:
    return not path.name.startswith(".") and (str(path) in FILES or path.parts[0] in FOLDERS)
