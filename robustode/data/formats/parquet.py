"""Format `parquet`: tables for pandas, polars, DuckDB."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from robustode.data.formats.base import Arrays, Format, Layout

META = b"robustode"  # of the schema's metadata: JSON of input_shape, bounds, classes
_EXAMPLE = """
from pathlib import Path
import numpy as np
import pandas as pd

table = pd.concat([pd.read_parquet(file) for file in sorted(Path(DIR).glob("data-*.parquet"))], ignore_index=True)
x = np.stack(table["x"]).reshape(-1, {shape})
"""


class Parquet(Format):
    """`data-00000.parquet`, ...: a row per sample, its input as a list of numbers, in the order of its shape.

    Words are text, and what is the same for all samples (attack, norm, eps, params) has columns, too.
    """

    name = "parquet"
    patterns = ("data-?????.parquet",)
    table = "data-*.parquet"

    def save(self, path: Path, arrays: Arrays, layout: Layout) -> None:
        import pyarrow.parquet as pq

        pq.write_table(self.rows(arrays, layout), path, compression="zstd", row_group_size=1 << 12)

    def rows(self, arrays: Arrays, layout: Layout) -> Any:
        """Return a shard as an arrow table."""
        import pyarrow as pa

        columns = {name: self.cells(name, array, layout) for name, array in arrays.items()}
        n = len(arrays["y"])
        for name, value in layout.constants.items():
            kind = pa.float64() if name == "eps" else pa.string()
            columns.setdefault(name, pa.array([text_of(value)] * n, type=kind))
        described = {"input_shape": layout.input_shape, "bounds": layout.bounds, "classes": layout.classes}
        metadata = {META: json.dumps(described).encode(), **self.metadata(columns, layout)}
        fields = [pa.field(name, cells.type, metadata=self.kind(name, layout)) for name, cells in columns.items()]
        return pa.table(columns, schema=pa.schema(fields, metadata=metadata))

    def cells(self, name: str, array: np.ndarray, layout: Layout) -> Any:
        """Return one column as an arrow array."""
        import pyarrow as pa

        if name in layout.codes:
            return pa.array(layout.words(name, array), type=pa.string())
        return self.nested(array) if array.ndim > 1 else pa.array(array)

    def nested(self, array: np.ndarray) -> Any:
        """Return an array (n, ...) as an arrow array of lists."""
        import pyarrow as pa

        return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), int(np.prod(array.shape[1:])))

    def kind(self, name: str, layout: Layout) -> dict[str, str] | None:
        """Return what the field of a column says of its type."""
        return None

    def metadata(self, columns: dict[str, Any], layout: Layout) -> dict[bytes, bytes]:
        """Return what else the schema says."""
        return {}

    def names(self, path: Path) -> list[str]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            return list(file.schema_arrow.names)

    def column(self, path: Path, name: str, layout: Layout) -> np.ndarray:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            if name not in file.schema_arrow.names:
                raise KeyError(name)
            values = pa.concat_arrays(file.read(columns=[name]).column(name).chunks)
        if name in layout.codes:
            return layout.places(name, values.to_pylist())
        flat = flatten(values)
        shape = layout.input_shape if name == "x" else () if len(flat) == len(values) else (-1,)
        return flat.reshape(len(values), *shape)

    def headings(self, names: list[str], layout: Layout) -> list[str]:
        return list(dict.fromkeys([*names, *layout.constants]))

    def example(self, layout: Layout) -> str:
        return _EXAMPLE.strip().format(shape=", ".join(map(str, layout.input_shape)))


def flatten(values: Any) -> np.ndarray:
    """Return all numbers of an arrow array of lists of lists, in order.

    Raises:
        ValueError: some are missing, or lists differ in length.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(values, pa.ExtensionArray):  # a type of `datasets`, where that is imported
        values = values.storage
    while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        if values.null_count:
            break
        if len(lengths := pc.unique(pc.list_value_length(values))) > 1:  # pyright: ignore[reportAttributeAccessIssue]
            raise ValueError(f"lists of {lengths[0]} and of {lengths[1]}")
        values = values.flatten()
    if values.null_count:
        raise ValueError(f"no value in {values.null_count:,} places")
    return values.to_numpy(zero_copy_only=False)


def text_of(value: Any) -> Any:
    """Return a constant as it stands in a cell: a mapping as canonical JSON."""
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return value
