"""`publish`: the data card and the checksums beside a data set, or beside the splits of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robustode.data.card import card
from robustode.data.formats import FORMATS
from robustode.data.place import CARD, INDEX, SUMS, sets_in
from robustode.errors import DataError
from robustode.files import file_digest, read_json, write_text


def publish(place: Path) -> None:
    """Write README.md and SHA256SUMS of the finished data sets in a folder; the same sets give the same bytes."""
    sets = sets_in(place)
    indices = {split: read_json(folder / INDEX, DataError) for split, folder in sets.items()}
    write_text(card(indices), place / CARD)
    lines = [f"{file_digest(place / CARD)}  {CARD}"]
    for split, folder in sets.items():
        prefix = f"{split}/" if split else ""
        lines += [f"{digest}  {prefix}{name}" for name, digest in _files(folder, indices[split])]
    write_text("".join(f"{line}\n" for line in lines), place / SUMS)


def _files(folder: Path, index: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Give (name, sha256) of every file of a data set; those of the shards are known, and not read again."""
    form = FORMATS[index["format"]]
    yield INDEX, file_digest(folder / INDEX)
    for entry in index["shards"]:
        path = folder / entry["file"]
        yield entry["file"], entry["sha256"]
        for name, digest in form.parts(path):
            yield str((Path(entry["file"]).parent / name).as_posix()), digest
    for name in form.whole:
        yield name, file_digest(folder / name)
