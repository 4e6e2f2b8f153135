"""Format `huggingface`: a folder that `datasets.load_dataset(DIR)` reads as it stands; written with pyarrow alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from robustode.data.formats.base import Layout
from robustode.data.formats.parquet import Parquet
from robustode.errors import DataError

DEEPEST = 5  # dimensions that the library's array types have
_EXAMPLE = """
from datasets import load_dataset

data = load_dataset(DIR, split="{split}").with_format("torch")
x, y = data[0]["x"], data[0]["y"]
"""


class HuggingFace(Parquet):
    """`data/SPLIT-00000-of-00012.parquet`, ...: Parquet whose schema says what the inputs and the classes are.

    An input is `Array2D` to `Array5D` (`Sequence` if it is a vector), a label a `ClassLabel`.
    """

    name = "huggingface"
    patterns = ("data/*-?????-of-?????.parquet",)
    table = "data/{split}-*.parquet"

    def check(self, layout: Layout) -> None:
        if not 1 <= len(layout.input_shape) <= DEEPEST:
            expected = f"inputs of 1 to {DEEPEST} dimensions"
            fix = "Use --format parquet."
            raise DataError("format huggingface", expected=expected, got=f"shape {layout.input_shape}", fix=fix)

    def file(self, number: int, layout: Layout) -> str:
        if layout.shards is None:
            fix = "Say it: DatasetWriter(shards=...)."
            raise DataError("format huggingface", expected="the number of shards", got="none", fix=fix)
        return f"data/{layout.split}-{number:05d}-of-{layout.shards:05d}.parquet"

    def nested(self, array: np.ndarray) -> Any:
        import pyarrow as pa

        values = pa.array(array.reshape(-1))
        for axis in range(array.ndim - 1, 0, -1):
            size = array.shape[axis]
            offsets = np.arange(0, len(values) + 1, size, dtype=np.int32)
            values = pa.ListArray.from_arrays(pa.array(offsets), values)
        return values

    def kind(self, name: str, layout: Layout) -> dict[str, str] | None:
        if name != "x" or len(layout.input_shape) < 2:
            return None
        return {
            "ARROW:extension:name": f"datasets.features.features.Array{len(layout.input_shape)}DExtensionType",
            "ARROW:extension:metadata": json.dumps([layout.input_shape, "float32"]),
        }

    def metadata(self, columns: dict[str, Any], layout: Layout) -> dict[bytes, bytes]:
        features = {name: _feature(name, cells, layout) for name, cells in columns.items()}
        return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}

    def example(self, layout: Layout) -> str:
        return _EXAMPLE.strip().format(split=layout.split)


def _feature(name: str, cells: Any, layout: Layout) -> dict[str, Any]:
    """Return what the library calls the feature of a column."""
    import pyarrow as pa

    if name == "y" and layout.classes is not None:
        return {"names": [str(label) for label in range(layout.classes)], "_type": "ClassLabel"}
    if name == "x" and len(layout.input_shape) > 1:
        return {"shape": list(layout.input_shape), "dtype": "float32", "_type": f"Array{len(layout.input_shape)}D"}
    kind, depth = cells.type, 0
    while pa.types.is_list(kind):
        kind, depth = kind.value_type, depth + 1
    feature: dict[str, Any] = {"dtype": _DTYPES.get(str(kind), str(kind)), "_type": "Value"}
    for _ in range(depth):
        feature = {"feature": feature, "_type": "Sequence"}
    return feature


_DTYPES = {"double": "float64", "float": "float32", "halffloat": "float16"}
