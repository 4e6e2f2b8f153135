"""Adversarial data sets of several splits: a folder each, under one data card and one list of checksums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from robustode.data.place import CARD, HEADER, INDEX, SPLITS, SUMS, remove, unfinished_files
from robustode.data.publish import publish
from robustode.errors import DataError, RunError
from robustode.evaluation.generate import Generated, check_request, generate
from robustode.evaluation.plan import Plan


def generate_splits(
    plans: Mapping[str, Plan],
    out: Path,
    *,
    format: str = "npz",
    command: str = "",
    resume: bool = False,
    force: bool = False,
    listen: Callable[[int, int], None] | None = None,
) -> dict[str, Generated]:
    """Write one data set with a folder for each split: {split: what was written}.

    Each folder is a whole data set; README.md and SHA256SUMS beside them are of all. The arguments are those of
    `generate`, and so is what is raised.

    Raises:
        DataError: a plan whose data are not of its split, as those of a source without splits.
    """
    for split, plan in plans.items():
        check_request(plan, format)
        if plan.data.split != split:
            got = f"samples of the split '{plan.data.split}'"
            fix = "Leave out --split, or give it once."
            raise DataError(f"data '{plan.data.name}'", expected=f"a split {split}", got=got, fix=fix)
    _check_root(out, resume=resume, force=force)
    done = 0
    total = sum(-(-len(plan.data) // plan.protocol.shard) for plan in plans.values())
    made = {}
    for split, plan in plans.items():

        def tell(shards: int, of: int, before: int = done) -> None:
            if listen is not None:
                listen(before + shards, total)

        options = {"format": format, "command": command, "resume": resume, "force": force}
        made[split] = generate(plan, out / split, card=False, listen=tell, **options)
        done += -(-len(plan.data) // plan.protocol.shard)
    publish(out)
    remove(out, unfinished_files(out))
    return made


def _check_root(out: Path, *, resume: bool, force: bool) -> None:
    """Raise `RunError` unless the folder of the splits is new, empty, or theirs and to be replaced or gone on with."""
    if not out.is_dir() or not (names := {file.name for file in out.iterdir()} - _left(out)):
        return
    theirs = any((out / split / name).is_file() for split in SPLITS for name in (INDEX, HEADER))
    if not (resume or force) or not theirs or names - {*SPLITS, CARD, SUMS}:
        fix = "Use --resume or --force." if theirs else "Choose another; --resume and --force take data sets only."
        raise RunError(f"output directory '{out}'", expected="an empty or new one", got="files in it", fix=fix)


def _left(out: Path) -> set[str]:
    return {file.name for file in unfinished_files(out)}
