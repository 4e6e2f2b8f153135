"""`FILE.parquet`: a table with the columns x and y, such as one shard of a written data set."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from robustode.data.convert import array_source
from robustode.data.formats.parquet import META, flatten
from robustode.data.source import Source
from robustode.errors import DataError


def parquet_source(path: str, bounds: tuple[float, float] | None) -> Source:
    """Read a Parquet file with `x` (lists of numbers, all of one length) and `y`, optionally `index`.

    Shape and bounds come from the file's metadata where `robustode generate` wrote it.

    Raises:
        DataError: missing, unreadable, a column missing (those found are listed), or columns that are not valid.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    what = f"data file '{path}'"
    try:
        with pq.ParquetFile(path) as file:
            found = list(file.schema_arrow.names)
            lacking = [name for name in ("x", "y") if name not in found]
            if lacking:
                raise DataError(what, expected="columns x and y", got=", ".join(found) or "no column")
            table = file.read(columns=[name for name in ("x", "y", "index") if name in found])
            said: dict[str, Any] = json.loads((file.schema_arrow.metadata or {}).get(META, b"{}"))
    except FileNotFoundError:
        raise DataError(what, expected="a file", got="no such file") from None
    except (OSError, ValueError) as reason:
        raise DataError(what, expected="a Parquet table", got=str(reason).splitlines()[0]) from reason
    if not len(table):
        raise DataError(what, expected="at least one sample", got="an empty table")
    columns: dict[str, np.ndarray] = {}
    for name in table.column_names:
        try:
            columns[name] = flatten(pa.concat_arrays(table.column(name).chunks))
        except (ValueError, TypeError) as reason:
            raise DataError(f"{what}, column {name}", expected="numbers", got=str(reason)) from reason
    size, rest = divmod(len(columns["x"]), len(table))
    shape = tuple(said.get("input_shape") or (size,))
    if rest or size != int(np.prod(shape)):
        got = f"{len(columns['x']):,} numbers in {len(table):,} rows"
        raise DataError(f"{what}, column x", expected=f"inputs of shape {shape} in every row", got=got)
    own = said.get("bounds")
    return array_source(
        columns["x"].reshape(len(table), *shape),
        columns["y"],
        name=path,
        title=path,
        bounds=bounds or (None if own is None else (float(own[0]), float(own[1]))),
        index=columns.get("index"),
    )
