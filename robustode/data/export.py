"""`export`: write a data set that is in memory, with any further columns, so that `load_data(DIR)` reads it back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustode.data.dataset import Data
from robustode.data.place import INDEX
from robustode.data.writer import DatasetWriter
from robustode.errors import DataError


def export(
    directory: str | Path,
    data: Data,
    *,
    format: str = "npz",
    meta: Mapping[str, Any] | None = None,
    force: bool = False,
    shard_size: int = 10_000,
    **columns: Any,
) -> Path:
    """Write a data set that is in memory, with more columns if given, and return the path of its `dataset.json`.

    Args:
        directory: new or empty, unless `force`.
        data: inputs, labels and indices (`load_data((x, y), bounds=...)` makes one of arrays).
        format: npz, safetensors, parquet, huggingface or png.
        meta: what made the set; the source, split and caption of `data` are added.
        force: replace a data set that is there.
        shard_size: samples in a file.
        columns: as in `DatasetWriter.write`.

    Raises:
        RunError: the directory is not empty.
        DataError: a column that does not fit.
    """
    if shard_size < 1:
        raise DataError("shard_size", expected="a positive whole number", got=shard_size)
    writer = DatasetWriter(
        directory,
        format=format,
        bounds=data.bounds,
        classes=data.classes,
        input_shape=tuple(data.x.shape[1:]),
        meta={"source": data.name, "split": data.split, "caption": data.caption, **(meta or {})},
        shards=-(-len(data) // shard_size),
        force=force,
    )
    with writer:
        for k, start in enumerate(range(0, len(data), shard_size)):
            rows = slice(start, start + shard_size)
            part = {name: values[rows] for name, values in columns.items()}
            writer.write(k, x=data.x[rows], y=data.y[rows], index=data.index[rows], **part)
    return writer.directory / INDEX
