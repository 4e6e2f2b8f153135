"""Reads back a data set that `DatasetWriter` wrote."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustode.data.source import Source
from robustode.data.writer import HEADER, INDEX, SCHEMA
from robustode.errors import DataError
from robustode.files import file_digest, read_json

_SUCCESS = "success"


def exported_source(name: str) -> Source:
    """Return every row of a written data set: the adversarial input, or the clean one where none was found.

    Raises:
        DataError: unfinished, of another schema, or with a shard that is missing or not as it was written (named).
    """
    place = Path(name).expanduser()
    index = _read_index(place)
    shards = [_Shard(place, entry, index["format"]) for entry in index["shards"]]
    for shard in shards:
        shard.check()
    y = torch.from_numpy(np.concatenate([shard.column("y") for shard in shards]))
    has_index = "index" in index["columns"]
    kept = torch.from_numpy(np.concatenate([shard.column("index") for shard in shards])) if has_index else None
    meta, codes = index["meta"], index["codes"].get("status", [])
    broken: np.ndarray | None = None
    if "status" in index["columns"] and _SUCCESS in codes:
        broken = np.concatenate([shard.column("status") for shard in shards]) == codes.index(_SUCCESS)

    def note(positions: Tensor | None) -> str:
        if broken is None:
            return ""
        chosen = broken if positions is None else broken[positions.numpy()]
        return f" ({int(chosen.sum()):,} adversarial)"

    return Source(
        name=name,
        title=name,
        y=y,
        read=lambda positions: _read(shards, tuple(index["input_shape"]), positions),
        split=str(meta.get("split", "all")),
        index=kept,
        bounds=None if index["bounds"] is None else (index["bounds"][0], index["bounds"][1]),
        classes=index["classes"],
        note=note,
    )


def _read_index(place: Path) -> dict[str, Any]:
    """Return the content of `dataset.json`, with every key that reading needs."""
    path = place / INDEX
    what = f"data set '{place}'"
    if not path.exists():
        if (place / HEADER).exists():
            raise DataError(
                f"unfinished data set '{place}'",
                expected=f"a file {INDEX}",
                got=f"{len(list(place.glob('data-?????.json')))} finished shards",
                fix="Finish it with the command that began it and --resume.",
            )
        raise DataError(
            what,
            expected=f"a directory with {INDEX}, as written by `robustode generate`",
            got=f"no {INDEX}",
            fix=f"For a folder of images write folder:{place}",
        )
    index = read_json(path, DataError)
    absent = {"format", "meta", "bounds", "classes", "input_shape", "codes", "columns", "shards"} - set(index)
    if index.get("schema") != SCHEMA or absent or not index["shards"]:
        got = f"schema {index.get('schema')}" + (f" without {', '.join(sorted(absent))}" if absent else "")
        raise DataError(f"file '{path}'", expected=f"schema {SCHEMA} with shards", got=got)
    return index


class _Shard:
    """One file of a written data set; its columns are read one at a time."""

    def __init__(self, place: Path, entry: dict[str, Any], format: str) -> None:
        self.path, self.count, self.sha256, self.format = place / entry["file"], entry["count"], entry["sha256"], format

    def check(self) -> None:
        what = f"shard '{self.path}'"
        if not self.path.is_file():
            raise DataError(what, expected="a file", got="no such file", fix="Generate the data set again.")
        digest = file_digest(self.path)
        if digest != self.sha256:
            raise DataError(
                what,
                expected=f"the bytes that were written, sha256 {self.sha256[:16]}",
                got=f"sha256 {digest[:16]}",
                fix="It is damaged or was changed: generate the data set again.",
            )

    def column(self, name: str) -> np.ndarray:
        try:
            if self.format == "npz":
                with np.load(self.path, allow_pickle=False) as archive:
                    return archive[name]
            from safetensors import SafetensorError, safe_open

            try:
                with safe_open(self.path, framework="np") as archive:
                    return archive.get_tensor(name)
            except SafetensorError as reason:
                raise ValueError(str(reason)) from reason
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as reason:
            raise DataError(
                f"shard '{self.path}'", expected=f"an array {name} in {self.format}", got=str(reason)
            ) from reason


def _read(shards: list[_Shard], shape: tuple[int, ...], positions: Tensor | None) -> Tensor:
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
