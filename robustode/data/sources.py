"""`load_data`: from what the user writes after `--data`, or passes in Python, to `Data`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from robustode.data.catalogue import CATALOGUE
from robustode.data.dataset import Data, check_bounds, check_pair
from robustode.data.exported import exported_source
from robustode.data.external import factory_source, npz_source, object_source
from robustode.data.folder import PREFIX as FOLDER
from robustode.data.folder import folder_source
from robustode.data.images import cifar10, digits, mnist_like
from robustode.data.place import SPLITS
from robustode.data.points import moons, spirals
from robustode.data.source import Source
from robustode.data.subset import Limit, caption, choose, parse_limit
from robustode.data.table import parquet_source
from robustode.errors import DataError, unknown
from robustode.models.base import Classifier
from robustode.models.factory import PREFIX as PYTHON

Root = str | Path | None

_NAMED: dict[str, Callable[[str, Root], Source]] = {
    "digits": lambda split, root: digits(split),
    "mnist": lambda split, root: mnist_like("mnist", split, root),
    "mnist14": lambda split, root: mnist_like("mnist14", split, root),
    "fashion-mnist": lambda split, root: mnist_like("fashion-mnist", split, root),
    "fashion-mnist14": lambda split, root: mnist_like("fashion-mnist14", split, root),
    "cifar10": lambda split, root: cifar10(split, root),
    "moons": lambda split, root: moons(split),
    "spirals": lambda split, root: spirals(split),
}


def load_data(
    source: Any,
    *,
    split: str = "test",
    limit: int | str | None = None,
    seed: int = 0,
    root: Root = None,
    bounds: tuple[float, float] | None = None,
) -> Data:
    """Load labelled inputs: float32 images (channels, height, width) in [0, 1], points in [0, 1]², or the user's own.

    Args:
        source: a name of `list_data`, the path of an `.npz` or `.parquet` with x and y, `folder:PATH`, a directory
            written by `export` or `robustode generate`, `python:FILE.py:factory`, or in Python a `Data`, a torch
            Dataset, a DataLoader or (x, y).
        split: "train" or "test"; a source without splits is taken whole and has the split "all", a written data set
            that has one split is taken whole and keeps it: the `split` of what is returned says which it is.
        limit: n for a class-stratified random subset, "first:n" for the first n, None for all.
        seed: of the subset, ≥ 0.
        root: folder of the real image sets in torchvision's layout; $ROBUSTODE_DATA if None.
        bounds: the box that the inputs must lie in; None takes the source's own, if it has any.

    Raises:
        DataError: no such source, a file missing or not as published, data that are not valid or outside the
            bounds, or a limit that is not positive or more than there are.
    """
    if split not in SPLITS:
        raise unknown("split", str(split), SPLITS, DataError)
    wanted = parse_limit(limit)
    box = None if bounds is None else check_pair(bounds)
    found = _find(source, split, root, box)
    if isinstance(found, Data):
        return _part_of(found, wanted, seed, box)
    positions = choose(found.y, wanted, seed, f"data '{found.name}'")
    index = torch.arange(len(found.y)) if found.index is None else found.index
    said = caption(wanted, seed, total=len(found.y), split=found.split, noun=found.noun, title=found.title)
    return Data(
        name=found.name,
        split=found.split,
        x=found.read(positions),
        y=found.y if positions is None else found.y[positions],
        index=index if positions is None else index[positions],
        bounds=box or found.bounds,
        classes=found.classes if found.classes is not None else _count(found),
        caption=said + (found.note(positions) if found.note else ""),
    )


def check_fits(data: Data, model: Classifier) -> None:
    """Raise `DataError` unless the model takes the data: input shape, number of classes, bounds; both are shown."""
    shape, wanted = tuple(data.x.shape[1:]), tuple(model.input_shape)
    if shape != wanted:
        same = [name for name, info in CATALOGUE.items() if info.shape == wanted]
        raise DataError(
            f"data '{data.name}'",
            expected=f"inputs of shape {wanted}, as the model takes",
            got=f"{shape}",
            fix=f"Data sets of that shape: {', '.join(same)}" if same else None,
        )
    highest = int(data.y.max())
    if highest >= model.classes:
        raise DataError(
            f"labels of data '{data.name}'",
            expected=f"classes 0 to {model.classes - 1}, as the model has",
            got=f"labels up to {highest}",
        )
    check_bounds(data, model.bounds)


def _find(source: Any, split: str, root: Root, bounds: tuple[float, float] | None) -> Source | Data:
    """Open the source without reading inputs, as far as it allows that."""
    if not isinstance(source, (str, Path)):
        return object_source(source, bounds=bounds)
    name = str(source)
    if isinstance(source, str) and name in _NAMED:
        return _NAMED[name](split, root)
    if name.startswith(FOLDER):
        return folder_source(name)
    if name.startswith(PYTHON):
        return factory_source(name, split, bounds)
    if name.endswith(".npz"):
        return npz_source(name, bounds)
    if name.endswith(".parquet"):
        return parquet_source(name, bounds)
    path = Path(name).expanduser()
    if path.is_dir():
        return exported_source(name, split)
    if path.is_file():
        raise DataError(
            f"data file '{name}'",
            expected="an .npz or .parquet with x and y",
            got=f"a file that ends in '{path.suffix}'",
            fix="Save it with numpy.savez, or write a factory and give python:FILE.py:factory.",
        )
    if len(path.parts) > 1:
        raise DataError(f"data set '{name}'", expected="a directory or a file .npz or .parquet", got="no such path")
    raise unknown("data set", name, _NAMED, DataError)


def _part_of(data: Data, limit: Limit | None, seed: int, bounds: tuple[float, float] | None) -> Data:
    """Return a `Data` as it is, or a subset of it, in other bounds if given."""
    if bounds is not None and bounds != data.bounds:
        data = replace(data, bounds=bounds)
    positions = choose(data.y, limit, seed, f"data '{data.name}'")
    if positions is None:
        return data
    said = caption(limit, seed, total=len(data), split="all", noun="samples", title=f"({data.caption})")
    return replace(data, x=data.x[positions], y=data.y[positions], index=data.index[positions], caption=said)


def _count(source: Source) -> int | None:
    """One more than the largest label of the full split; None leaves an invalid one to `Data` to refuse."""
    highest = int(source.y.max()) if len(source.y) else -1
    return highest + 1 if highest >= 0 else None
