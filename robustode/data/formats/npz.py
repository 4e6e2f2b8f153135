"""Format `npz`: NumPy archives."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robustode.data.formats.base import Arrays, Format, Layout

_EXAMPLE = """
from pathlib import Path
import numpy as np

shards = [np.load(file) for file in sorted(Path(DIR).glob("data-*.npz"))]
x, y, distance = (np.concatenate([shard[name] for shard in shards]) for name in ("x", "y", "distance"))
"""


class Npz(Format):
    """`data-00000.npz`, ...: one array per column, and the bounds; words as their places in `dataset.json`."""

    name = "npz"
    patterns = ("data-?????.npz",)

    def save(self, path: Path, arrays: Arrays, layout: Layout) -> None:
        box = {} if layout.bounds is None else {"bounds": np.array(layout.bounds)}
        with path.open("wb") as stream:
            np.savez(stream, **arrays, **box)  # pyright: ignore[reportArgumentType]

    def names(self, path: Path) -> list[str]:
        with np.load(path, allow_pickle=False) as archive:
            return [name for name in archive.files if name != "bounds"]

    def column(self, path: Path, name: str, layout: Layout) -> np.ndarray:
        with np.load(path, allow_pickle=False) as archive:
            return archive[name]

    def example(self, layout: Layout) -> str:
        return _EXAMPLE.strip()
