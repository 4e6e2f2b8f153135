"""Format `safetensors`: tensors that load without running code, in torch, JAX, NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robustode.data.formats.base import Arrays, Format, Layout

_EXAMPLE = """
from pathlib import Path
from safetensors.torch import load_file
from torch.utils.data import ConcatDataset, TensorDataset

shards = [load_file(file) for file in sorted(Path(DIR).glob("data-*.safetensors"))]
data = ConcatDataset([TensorDataset(shard["x"], shard["y"]) for shard in shards])
x, y = data[0]
"""


class Safetensors(Format):
    """`data-00000.safetensors`, ...: one tensor per column; words as their places in `dataset.json`."""

    name = "safetensors"
    patterns = ("data-?????.safetensors",)

    def save(self, path: Path, arrays: Arrays, layout: Layout) -> None:
        from safetensors.numpy import save

        # `save_file` writes beside the path under a name of its own, which stays when it is killed.
        path.write_bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))

    def names(self, path: Path) -> list[str]:
        with _opened(path) as archive:
            return list(archive.keys())

    def column(self, path: Path, name: str, layout: Layout) -> np.ndarray:
        from safetensors import SafetensorError

        try:
            with _opened(path) as archive:
                return archive.get_tensor(name)
        except SafetensorError as reason:
            raise (ValueError if name in self.names(path) else KeyError)(str(reason)) from reason

    def example(self, layout: Layout) -> str:
        return _EXAMPLE.strip()


def _opened(path: Path):
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="np")
    except SafetensorError as reason:
        raise ValueError(str(reason)) from reason
