"""Format `png`: one 8-bit image a sample in a folder of its class, and tables of all columns."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustode.data.formats.base import Arrays, Format, Layout
from robustode.data.formats.parquet import text_of
from robustode.errors import DataError
from robustode.files import atomic

TABLE = "metadata.csv"  # the name that `datasets` looks for beside images
FILE, DIGEST = "file_name", "sha256"
BOXES = ((0.0, 1.0), (0.0, 255.0))
_EXAMPLE = """
from pathlib import Path
import pandas as pd
from PIL import Image

table = pd.read_csv(Path(DIR) / "metadata.csv")
image = Image.open(Path(DIR) / table["file_name"][0])
"""


class Png(Format):
    """`images/CLASS/INDEX.png`, tables of the shards `data-00000.csv`, ... and of all samples, `metadata.csv`.

    A channel is rounded to one of 256 levels of the box, so whoever writes a point asks `rounded` what may become of
    it: the nearest levels; those towards the clean input, which stay in a ball; those away from it, which stay beyond
    a decision boundary.
    """

    name = "png"
    patterns = ("data-?????.csv", TABLE, "images/*/*.png")
    whole = (TABLE,)

    def check(self, layout: Layout) -> None:
        shape = layout.input_shape
        fix = "Choose another format: npz, safetensors, parquet or huggingface."
        if len(shape) != 3 or shape[0] not in (1, 3):
            expected = "images of shape (1, height, width) or (3, height, width)"
            raise DataError("format png", expected=expected, got=f"inputs of shape {shape}", fix=fix)
        if layout.bounds not in BOXES:
            got = "none" if layout.bounds is None else f"[{layout.bounds[0]:g}, {layout.bounds[1]:g}]"
            raise DataError("format png", expected="bounds [0, 1] or [0, 255]", got=got, fix=fix)

    def file(self, number: int, layout: Layout) -> str:
        return f"data-{number:05d}.csv"

    def rounded(self, x: Tensor, clean: Tensor, layout: Layout) -> list[Tensor]:
        exact = _scaled(x.cpu().numpy(), layout)
        raised = exact > _scaled(clean.cpu().numpy(), layout)
        down, up = np.floor(exact), np.ceil(exact)
        ways = (np.rint(exact), np.where(raised, down, up), np.where(raised, up, down))
        return [torch.from_numpy(_values(way, layout)).to(x) for way in ways]

    def save(self, path: Path, arrays: Arrays, layout: Layout) -> None:
        n = len(arrays["y"])
        levels = _levels(arrays["x"], layout)
        index = arrays["index"] if "index" in arrays else np.arange(n)
        width = len(str(max((layout.classes or 1) - 1, int(arrays["y"].max()))))
        files = [
            f"images/{label:0{width}d}/{place:06d}.png"
            for label, place in zip(arrays["y"].tolist(), index.tolist(), strict=True)
        ]
        digests = [_write_image(path.parent / file, level) for file, level in zip(files, levels, strict=True)]
        columns: dict[str, list[Any]] = {FILE: files}
        for name, array in arrays.items():
            if name != "x":
                columns[name] = layout.words(name, array) if name in layout.codes else array.tolist()
        for name, value in layout.constants.items():
            columns.setdefault(name, [text_of(value)] * n)
        columns[DIGEST] = digests
        with path.open("w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(columns)
            table.writerows(zip(*columns.values(), strict=True))

    def names(self, path: Path) -> list[str]:
        with path.open(encoding="utf-8", newline="") as stream:
            return ["x" if name == FILE else name for name in next(csv.reader(stream), [])]

    def column(self, path: Path, name: str, layout: Layout) -> np.ndarray:
        if name == "x":
            return _values(np.stack([_read_image(path.parent / file, layout) for file in _cells(path, FILE)]), layout)
        cells = _cells(path, name)
        if name in layout.codes:
            return layout.places(name, cells)
        return np.array(_numbers(cells))

    def parts(self, path: Path) -> list[tuple[str, str]]:
        return list(zip(_cells(path, FILE), _cells(path, DIGEST), strict=True))

    def finish(self, place: Path, files: Sequence[str]) -> None:
        with atomic(place / TABLE) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
            for number, file in enumerate(files):
                with (place / file).open(encoding="utf-8", newline="") as stream:
                    head = stream.readline()
                    out.write(head if number == 0 else "")
                    out.writelines(stream)

    def headings(self, names: list[str], layout: Layout) -> list[str]:
        shown = [FILE, *(name for name in names if name != "x"), *layout.constants, DIGEST]
        return list(dict.fromkeys(shown))

    def example(self, layout: Layout) -> str:
        return _EXAMPLE.strip()


def _scaled(x: np.ndarray, layout: Layout) -> np.ndarray:
    """Return inputs in units of a level, 0 to 255 inside the box; a level that was stored comes back whole."""
    _, hi = layout.bounds or BOXES[0]
    exact = (x.astype(np.float64) * (255 / hi)).clip(0, 255)
    near = np.rint(exact)
    return np.where(np.abs(exact - near) < 1e-4, near, exact)


def _levels(x: np.ndarray, layout: Layout) -> np.ndarray:
    """Return inputs inside the box as the nearest of 256 levels, uint8."""
    return np.rint(_scaled(x, layout)).astype(np.uint8)


def _values(levels: np.ndarray, layout: Layout) -> np.ndarray:
    """Return levels as inputs, float32: those of `folder:` where the box is [0, 1]."""
    _, hi = layout.bounds or BOXES[0]
    return levels.astype(np.float32) if hi == 255 else levels.astype(np.float32) / np.float32(255)


def _write_image(path: Path, levels: np.ndarray) -> str:
    """Write (channels, height, width) uint8 as PNG and return its sha256."""
    from PIL import Image

    stream = io.BytesIO()
    pixels = levels[0] if len(levels) == 1 else np.moveaxis(levels, 0, -1)
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format="PNG")
    with atomic(path) as temporary:
        temporary.write_bytes(stream.getvalue())
    return hashlib.sha256(stream.getvalue()).hexdigest()


def _read_image(path: Path, layout: Layout) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.asarray(image)
    levels = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    if levels.shape != layout.input_shape:
        raise ValueError(f"image '{path}' of shape {levels.shape}, not {layout.input_shape}")
    return levels


def _cells(path: Path, name: str) -> list[str]:
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream)
        place = next(reader, [])
        if name not in place:
            raise KeyError(name)
        column = place.index(name)
        return [row[column] for row in reader]


def _numbers(cells: list[str]) -> list[float] | list[int]:
    try:
        return [int(cell) for cell in cells]
    except ValueError:
        return [float(cell) for cell in cells]
