"""What belongs to a data set in its directory: names, and what a killed writer left."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from robustode.data.formats import FORMATS

INDEX, HEADER = "dataset.json", "dataset.partial.json"
CARD, SUMS = "README.md", "SHA256SUMS"
SPLITS = ("train", "test")
BROKEN = "broken"  # folder of shards that `repair` dropped
_TEMPORARY = re.compile(r"\.(.+)\.\d+\.tmp")
_FIXED = (INDEX, HEADER, CARD, SUMS, "data-?????.json")
_PATTERNS = (*_FIXED, *(pattern for form in FORMATS.values() for pattern in form.patterns))


def sets_in(place: Path) -> dict[str, Path]:
    """Return the finished data sets in a folder: {"": place} if it is one, else {split: folder} of its splits."""
    if (place / INDEX).is_file():
        return {"": place}
    return {split: place / split for split in SPLITS if (place / split / INDEX).is_file()}


def own_files(place: Path) -> list[Path]:
    """Return the files of a data set, and no other."""
    return sorted({file for pattern in _PATTERNS for file in place.glob(pattern) if file.is_file()})


def unfinished_files(place: Path) -> list[Path]:
    """Return what a writer left beside the place of one of its files when it was killed."""
    own = []
    for file in place.rglob(".*.tmp") if place.is_dir() else ():
        found = _TEMPORARY.fullmatch(file.name)
        if found is None:
            continue
        target = file.with_name(found[1]).relative_to(place)
        if any(target.match(pattern) for pattern in _PATTERNS):
            own.append(file)
    return sorted(own)


def is_empty(place: Path) -> bool:
    """Whether a directory is absent, or holds nothing but what a writer left that was killed before its first file."""
    return not place.is_dir() or {*place.iterdir()} <= {*unfinished_files(place)}


def remove(place: Path, files: Iterable[Path]) -> None:
    """Delete files of a data set, and the folders below `place` that are empty then."""
    for file in files:
        file.unlink(missing_ok=True)
        for folder in file.parents:
            if folder == place or any(folder.iterdir()):
                break
            folder.rmdir()
