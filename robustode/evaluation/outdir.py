"""Whether a directory can take a run: never overwritten without being told, resumed only by the same run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from robustode.data.files import read_json
from robustode.errors import RunError
from robustode.evaluation.plan import Plan

OWNED = ("records.parquet", "timings.parquet", "run.json", "report.html")
OWNED_FOLDERS = ("shards", "adversarials", "tables", "figures")


def check_directory(out: Path, plan: Plan, *, resume: bool, force: bool) -> None:
    """Raise `RunError` unless `out` can take this run."""
    if not out.exists():
        return
    file = out / "run.json"
    if resume:
        if file.is_file():
            _check_same(plan, read_json(file, RunError), out)
        return
    if not force:
        fix = "Choose another --out, continue it with --resume, or replace it with --force."
        raise RunError(
            f"output directory '{out}'", expected="a directory that does not exist", got="it exists", fix=fix
        )
    if not out.is_dir() or (any(out.iterdir()) and not file.is_file()):
        fix = "Choose another --out; --force replaces runs only."
        raise RunError(f"output directory '{out}'", expected="an earlier run", got="something else", fix=fix)


def _check_same(plan: Plan, old: dict[str, Any], out: Path) -> None:
    changed = []
    if old.get("protocol_hash") != plan.hash:
        changed.append("the protocol (attacks, budgets, data, seed or shard size)")
    if [m.get("hash") for m in old.get("models", [])] != [model.hash for model in plan.models]:
        changed.append("the models")
    if old.get("data", {}).get("fingerprint") != plan.data.fingerprint:
        changed.append("the data")
    if changed:
        fix = "Give the same command as before, or start anew with --force."
        raise RunError(
            f"cannot resume '{out}'",
            expected="the run that was interrupted",
            got=f"changes in {', '.join(changed)}",
            fix=fix,
        )


def clear(out: Path) -> None:
    """Delete what a run writes, and nothing else."""
    for name in OWNED:
        (out / name).unlink(missing_ok=True)
    for name in OWNED_FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)
