"""Reads back a data set that `DatasetWriter` wrote."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustode.data.formats import FORMATS, Format, Layout, format_of
from robustode.data.index import SCHEMA
from robustode.data.place import HEADER, INDEX, SPLITS
from robustode.data.source import Source
from robustode.errors import DataError
from robustode.files import read_json

_SUCCESS = "success"


def exported_source(name: str, split: str = "test") -> Source:
    """Return every row of a written data set: the adversarial input, or the clean one where none was found.

    Args:
        name: its directory, or that of its splits.
        split: which of several splits; a set that has only one is taken as it is, under the split that it says.

    Raises:
        DataError: unfinished, of another schema, without that split, or with a shard that is missing or not as it was
            written (named).
    """
    place = find_set(Path(name).expanduser(), split)
    index = read_index(place)
    shards = shards_of(place, index)
    _check(place, shards)
    y = torch.from_numpy(np.concatenate([shard.column("y") for shard in shards]).astype(np.int64))
    has_index = "index" in index["columns"]
    kept = torch.from_numpy(np.concatenate([shard.column("index") for shard in shards])) if has_index else None
    codes = index["codes"].get("status", [])
    broken: np.ndarray | None = None
    if "status" in index["columns"] and _SUCCESS in codes:
        broken = np.concatenate([shard.column("status") for shard in shards]) == codes.index(_SUCCESS)
    dropped = ", ".join(entry["file"] for entry in index.get("dropped", ()))

    def note(positions: Tensor | None) -> str:
        said = []
        if broken is not None:
            chosen = broken if positions is None else broken[positions.numpy()]
            said.append(f"{int(chosen.sum()):,} adversarial")
        if dropped:
            said.append(f"without the broken {dropped}")
        return f" ({'; '.join(said)})" if said else ""

    layout = Layout.of(index)
    return Source(
        name=name,
        title=name,
        y=y,
        read=lambda positions: _read(shards, layout.input_shape, positions),
        split=layout.split,
        index=kept,
        bounds=layout.bounds,
        classes=layout.classes,
        note=note,
    )


def find_set(place: Path, split: str) -> Path:
    """Return the directory of the data set in a folder: the folder, or that of the split.

    Raises:
        DataError: there are splits, but not this one.
    """
    begun = [one for one in SPLITS if (place / one / INDEX).is_file() or (place / one / HEADER).is_file()]
    if (place / INDEX).is_file() or (place / HEADER).is_file() or not begun:
        return place
    if split not in begun:
        fix = f"Ask for it, or name {place / begun[0]}."
        raise DataError(f"split of data set '{place}'", expected=" or ".join(begun), got=f"'{split}'", fix=fix)
    return place / split


def read_index(place: Path) -> dict[str, Any]:
    """Return the content of `dataset.json`, with every key that reading needs.

    Raises:
        DataError: there is none, it is unfinished, of another schema, or has no inputs or labels.
    """
    path = place / INDEX
    if not path.exists():
        raise _no_index(place)
    index = read_json(path, DataError)
    absent = {"format", "meta", "bounds", "classes", "input_shape", "codes", "columns", "shards"} - set(index)
    if index.get("schema") != SCHEMA or absent or not index["shards"]:
        got = f"schema {index.get('schema')}" + (f" without {', '.join(sorted(absent))}" if absent else "")
        raise DataError(f"file '{path}'", expected=f"schema {SCHEMA} with shards", got=got)
    format_of(index["format"])
    lacking = [name for name in ("x", "y") if name not in index["columns"]]
    if lacking:
        expected = f"a column {' and '.join(lacking)}"
        raise DataError(f"data set '{place}'", expected=expected, got=", ".join(index["columns"]) or "no column")
    return index


def _no_index(place: Path) -> DataError:
    if (place / HEADER).exists():
        return DataError(
            f"unfinished data set '{place}'",
            expected=f"a file {INDEX}",
            got=f"{len(list(place.glob('data-?????.json')))} finished shards",
            fix="Finish it with the command that began it and --resume.",
        )
    return DataError(
        f"data set '{place}'",
        expected=f"a directory with {INDEX}, as written by `robustode generate`",
        got=f"no {INDEX}",
        fix=f"For a folder of images write folder:{place}",
    )


class StoredShard:
    """One shard of a written data set; its columns are read one at a time."""

    def __init__(self, place: Path, entry: dict[str, Any], form: Format, layout: Layout) -> None:
        self.path, self.count, self.entry = place / entry["file"], int(entry["count"]), entry
        self._form, self._layout = form, layout

    def damage(self) -> tuple[str, str] | None:
        """Return (what was expected, what was found) if the shard is not as it was written."""
        return self._form.damage(self.path, self.entry["sha256"])

    def column(self, name: str) -> np.ndarray:
        """Return one column; raise `DataError`, with the columns that are there, if it cannot be read."""
        what = f"shard '{self.path}'"
        try:
            values = np.require(self._form.column(self.path, name, self._layout), requirements=["C", "W"])
        except KeyError:
            got = f"columns {', '.join(self._form.names(self.path)) or 'none'}"
            raise DataError(what, expected=f"a column {name}", got=got) from None
        except (OSError, ValueError, SyntaxError, zipfile.BadZipFile, zlib.error) as reason:
            got = str(reason).splitlines()[0] if str(reason) else type(reason).__name__
            raise DataError(what, expected=f"an array {name} in {self._form.name}", got=got) from reason
        if len(values) != self.count:
            raise DataError(what, expected=f"{self.count:,} values of {name}", got=f"{len(values):,}")
        return values


def shards_of(place: Path, index: dict[str, Any]) -> list[StoredShard]:
    """Return the shards that an index lists, unread."""
    form, layout = FORMATS[index["format"]], Layout.of(index)
    return [StoredShard(place, entry, form, layout) for entry in index["shards"]]


def _check(place: Path, shards: list[StoredShard]) -> None:
    """Raise `DataError`, naming the shards, if some are not as they were written."""
    damaged = [(shard, found) for shard in shards if (found := shard.damage()) is not None]
    if not damaged:
        return
    shard, (expected, got) = damaged[0]
    others = f"; broken, too: {', '.join(other.entry['file'] for other, _ in damaged[1:])}" if len(damaged) > 1 else ""
    usable = sum(shard.count for shard in shards) - sum(other.count for other, _ in damaged)
    fix = (
        f"Make it again: the command in {INDEX} with --resume. Or use the {usable:,} samples of the other shards: "
        f"robustode data repair {place}"
    )
    raise DataError(f"shard '{shard.path}'", expected=expected, got=f"{got}{others}", fix=fix)


def _read(shards: list[StoredShard], shape: tuple[int, ...], positions: Tensor | None) -> Tensor:
    """Read the inputs of some rows (ascending), one shard in memory at a time."""
    total = sum(shard.count for shard in shards)
    out = torch.empty(total if positions is None else len(positions), *shape)
    start = filled = 0
    for shard in shards:
        rows = slice(None)
        if positions is not None:
            rows = (positions[(positions >= start) & (positions < start + shard.count)] - start).numpy()
        chosen = shard.column("x")[rows]
        out[filled : filled + len(chosen)] = torch.from_numpy(chosen)
        filled += len(chosen)
        start += shard.count
    return out
