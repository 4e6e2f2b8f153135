"""`repair`: take the broken shards out of a written data set, so that the rest can be used."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from robustode.data.exported import StoredShard, read_index, shards_of
from robustode.data.formats import FORMATS, Format
from robustode.data.index import index_of
from robustode.data.place import BROKEN, INDEX, sets_in
from robustode.data.publish import publish
from robustode.errors import DataError
from robustode.files import write_json


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """What `repair` did.

    Attributes:
        dropped: the broken shards, "FILE (reason)", relative to the folder.
        lost: samples in them.
        count: samples that are left.
    """

    dropped: tuple[str, ...]
    lost: int
    count: int


def repair(place: str | Path) -> Repaired:
    """Write the index of a data set (of each of its splits) anew, without the shards that are not as they were written.

    The index lists them as `dropped`, the captions and the data card say so, and their files go to the folder
    `broken`. `robustode generate --resume` makes exactly them again. An intact set is left as it is.

    Raises:
        DataError: no finished data set, or one of which nothing would be left.
    """
    root = Path(place).expanduser()
    folders = sets_in(root) or {"": root}
    found = [(name, folder, *_sort(folder)) for name, folder in folders.items()]
    dropped: list[str] = []
    lost = count = 0
    for name, folder, good, bad in found:
        count += sum(shard.count for shard in good)
        if bad:
            _drop(folder, good, bad)
        lost += sum(shard.count for shard, _ in bad)
        dropped += [f"{name + '/' if name else ''}{shard.entry['file']} ({reason})" for shard, reason in bad]
    if dropped or any(read_index(folder).get("dropped") for folder in folders.values()):
        publish(root)  # also after a repair that was interrupted
    return Repaired(dropped=tuple(dropped), lost=lost, count=count)


def _sort(folder: Path) -> tuple[list[StoredShard], list[tuple[StoredShard, str]]]:
    """Return the shards that are as they were written, and those that are not, with the reason."""
    shards = shards_of(folder, read_index(folder))
    reasons = [shard.damage() for shard in shards]
    bad = [(shard, reason[1]) for shard, reason in zip(shards, reasons, strict=True) if reason is not None]
    good = [shard for shard, reason in zip(shards, reasons, strict=True) if reason is None]
    if not good:
        fix = "Make it again: the command in it with --resume."
        raise DataError(f"data set '{folder}'", expected="at least one shard that is intact", got="none", fix=fix)
    return good, bad


def _drop(folder: Path, good: list[StoredShard], bad: list[tuple[StoredShard, str]]) -> None:
    index = read_index(folder)
    header = {key: index[key] for key in ("schema", "format", "meta", "bounds", "classes", "input_shape", "codes")}
    entries = [{**shard.entry, "columns": index["columns"]} for shard in good]
    gone = [{"file": shard.entry["file"], "count": shard.count, "reason": reason} for shard, reason in bad]
    form = FORMATS[index["format"]]
    write_json(index_of(header, entries, dropped=[*index.get("dropped", []), *gone]), folder / INDEX)
    for shard, _ in bad:
        for name in _files(shard, form):
            target = folder / BROKEN / name.relative_to(folder)
            if name.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(name, target)
    form.finish(folder, [shard.entry["file"] for shard in good])


def _files(shard: StoredShard, form: Format) -> list[Path]:
    """Return the files of a shard as far as a broken one still tells them, itself last."""
    try:
        names = [name for name, _ in form.parts(shard.path)]
    except (OSError, ValueError, KeyError, IndexError):
        names = []
    return [*(shard.path.parent / name for name in names), shard.path]
