"""The user's own data: an `.npz` file, a torch Dataset or DataLoader, (x, y), or a factory that returns one of them."""

from __future__ import annotations

import inspect
import operator
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from robustode.data.convert import array_of, array_source, check_scale, inputs
from robustode.data.dataset import Data
from robustode.data.source import Source
from robustode.errors import DataError, RobustODEError
from robustode.models.factory import load_factory

Bounds = tuple[float, float] | None


def npz_source(path: str, bounds: Bounds) -> Source:
    """Read an `.npz` with `x` (n, ...) and `y` (n,), optionally `index` (n,) and `bounds` (2,).

    Raises:
        DataError: missing, unreadable, an array missing, or arrays that are not valid.
    """
    what = f"data file '{path}'"
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            found = sorted(archive.files)
            absent = [key for key in ("x", "y") if key not in found]
            if absent:
                raise DataError(what, expected="arrays x and y", got=", ".join(found) or "no array")
            arrays = {key: archive[key] for key in ("x", "y", "index", "bounds") if key in found}
    except FileNotFoundError:
        raise DataError(what, expected="a file", got="no such file") from None
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as reason:
        raise DataError(
            what, expected="an .npz archive of numeric arrays", got=f"{type(reason).__name__}: {reason}"
        ) from reason
    stored = arrays.get("bounds")
    if stored is not None and stored.shape != (2,):
        raise DataError(f"{what}, bounds", expected="two numbers", got=f"shape {stored.shape}")
    own = None if stored is None else (float(stored[0]), float(stored[1]))
    return array_source(
        arrays["x"], arrays["y"], name=path, title=path, bounds=bounds or own, index=arrays.get("index")
    )


def factory_source(spec: str, split: str, bounds: Bounds) -> Source | Data:
    """Call the user's factory, with `split=` if it has such a parameter, and read what it returns.

    Raises:
        DataError: it cannot be imported, it raises, or it returns something else.
    """
    factory = load_factory(spec, what="data factory", error=DataError)
    what = f"data factory '{spec}'"
    try:
        takes_split = "split" in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # built-in without a signature
        takes_split = False
    try:
        made = factory(split=split) if takes_split else factory()
    except RobustODEError:
        raise
    except Exception as reason:
        raise DataError(what, got=f"an error when called: {type(reason).__name__}: {reason}") from reason
    return object_source(made, name=spec, split=split if takes_split else "all", bounds=bounds)


def object_source(made: Any, *, name: str | None = None, split: str = "all", bounds: Bounds = None) -> Source | Data:
    """Read a `Data`, a torch Dataset of (x, y), a DataLoader of batches of them, or a pair of arrays (x, y).

    Raises:
        DataError: something else, a shuffling DataLoader, or items that do not fit together.
    """
    if isinstance(made, Data):
        return made
    label = name or ("(x, y)" if isinstance(made, (tuple, list)) else type(made).__name__)
    what = f"data '{label}'"
    if isinstance(made, (tuple, list)) and len(made) == 2:
        pair = (made[0], made[1])
    elif isinstance(made, DataLoader):
        pair = _stack_batches(made, what, bounds)
    elif isinstance(made, Dataset) or (hasattr(made, "__getitem__") and not isinstance(made, (dict, str))):
        pair = _stack_items(made, what, bounds)
    else:
        raise DataError(what, expected="a torch Dataset, a DataLoader or a pair (x, y)", got=type(made).__name__)
    source = array_source(*pair, name=label, title=label, bounds=bounds)
    return Source(**{**vars(source), "split": split})


def _stack_items(dataset: Any, what: str, bounds: Bounds) -> tuple[Tensor, list[int]]:
    """Read every item (x, y) of a Dataset; one block of memory where the length is known."""
    n = len(dataset) if hasattr(dataset, "__len__") else None
    items: Iterable[Any] = dataset if n is None else (dataset[i] for i in range(n))
    stack: Tensor | None = None
    grown: list[Tensor] = []
    targets: list[int] = []
    try:
        for i, item in enumerate(items):
            x, target = _item(item, f"{what}, item {i}", bounds)
            first = stack[0] if stack is not None else grown[0] if grown else x
            if x.shape != first.shape:
                raise DataError(f"{what}, item {i}", expected=f"shape {tuple(first.shape)}", got=tuple(x.shape))
            if n is None:
                grown.append(x)
            else:
                stack = torch.empty(n, *x.shape) if stack is None else stack
                stack[i] = x
            targets.append(target)
    except RobustODEError:
        raise
    except Exception as reason:
        raise DataError(f"{what}, item {len(targets)}", got=f"{type(reason).__name__}: {reason}") from reason
    if not targets:
        raise DataError(what, expected="at least one sample", got="an empty set")
    return (stack if stack is not None else torch.stack(grown)), targets


def _item(item: Any, what: str, bounds: Bounds) -> tuple[Tensor, int]:
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise DataError(what, expected="a pair (x, y)", got=type(item).__name__)
    if not isinstance(item[0], (Tensor, np.ndarray, list)):
        raise DataError(
            f"{what}, input x",
            expected="a tensor or array",
            got=type(item[0]).__name__,
            fix="Convert images in the Dataset, to float32 of shape (channels, height, width).",
        )
    values = array_of(item[0], f"{what}, input x")
    check_scale(values, bounds, what)
    try:
        return inputs(values), operator.index(item[1])
    except TypeError:
        raise DataError(f"{what}, label y", expected="a whole number", got=repr(item[1])) from None


def _stack_batches(loader: DataLoader, what: str, bounds: Bounds) -> tuple[Tensor, np.ndarray]:
    """Read every batch (x, y) of a DataLoader that keeps the order."""
    if isinstance(loader.sampler, RandomSampler):
        raise DataError(
            what,
            expected="a DataLoader that keeps the order, so that a sample can be found again",
            got="one that shuffles",
            fix="Build it with shuffle=False, or pass its dataset.",
        )
    xs: list[Tensor] = []
    ys: list[np.ndarray] = []
    for k, batch in enumerate(loader):
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise DataError(f"{what}, batch {k}", expected="a pair (x, y)", got=type(batch).__name__)
        values = array_of(batch[0], f"{what}, batch {k}, inputs x")
        check_scale(values, bounds, f"{what}, batch {k}")
        xs.append(inputs(values))
        ys.append(array_of(batch[1], f"{what}, batch {k}, labels y"))
        if xs[-1].shape[1:] != xs[0].shape[1:]:
            raise DataError(
                f"{what}, batch {k}", expected=f"inputs of shape {tuple(xs[0].shape[1:])}", got=tuple(values.shape[1:])
            )
    if not xs:
        raise DataError(what, expected="at least one sample", got="an empty set")
    return torch.cat(xs), np.concatenate(ys)
