"""The user's arrays as tensors: float32 inputs and int64 labels, with nothing guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustode.data.source import Source
from robustode.errors import DataError


def array_of(values: Any, what: str) -> np.ndarray:
    """Return a numpy view (a copy where none is possible) of a tensor, an array or nested lists of numbers."""
    if isinstance(values, Tensor):
        plain = values.detach().cpu()
        values = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    try:
        out = np.asarray(values)
    except ValueError as reason:
        raise DataError(what, expected="an array", got=f"{type(values).__name__}: {reason}") from reason
    if out.dtype.kind not in "fiu":
        raise DataError(what, expected="an array of numbers", got=f"{type(values).__name__} of dtype {out.dtype}")
    return out


def check_scale(values: np.ndarray, bounds: tuple[float, float] | None, what: str) -> None:
    """Refuse whole-number inputs whose bounds nobody has given: 0 to 255 is never divided by a guess."""
    if values.dtype.kind in "iu" and bounds is None:
        raise DataError(
            f"{what}, inputs x",
            expected="floating point",
            got=str(values.dtype),
            fix="Divide by 255 and save as float32, or give the bounds of the whole numbers (--bounds 0,255).",
        )


def inputs(values: np.ndarray) -> Tensor:
    """Return float32, contiguous; the same memory where it is so already."""
    with np.errstate(over="ignore"):  # becomes infinite, and is refused as such
        return torch.from_numpy(np.require(values, np.float32, ["C", "W"]))


def labels(values: np.ndarray, what: str) -> Tensor:
    """Return int64 of shape (n,); raise `DataError` for anything but a vector of whole numbers."""
    if values.ndim != 1 or values.dtype.kind not in "iu":
        fix = "Turn one-hot rows into numbers with argmax(1)." if values.ndim == 2 else None
        raise DataError(
            what, expected="whole numbers of shape (n,)", got=f"{values.dtype} of shape {values.shape}", fix=fix
        )
    return torch.from_numpy(np.require(values, np.int64, ["C", "W"]))


def array_source(
    x: Any,
    y: Any,
    *,
    name: str,
    title: str,
    bounds: tuple[float, float] | None,
    index: Any = None,
) -> Source:
    """Return a source over arrays in memory; only the samples that are chosen get converted.

    Raises:
        DataError: not numbers, whole-number inputs without bounds, labels that are not a vector of whole numbers,
            lengths that differ, no sample.
    """
    what = f"data '{name}'"
    values = array_of(x, f"{what}, inputs x")
    check_scale(values, bounds, what)
    targets = labels(array_of(y, f"{what}, labels y"), f"{what}, labels y")
    if values.ndim < 2:
        raise DataError(f"{what}, inputs x", expected="shape (n, ...)", got=values.shape)
    place = None if index is None else labels(array_of(index, f"{what}, index"), f"{what}, index")
    for kind, vector in (("labels y", targets), ("index", place)):
        if vector is not None and len(vector) != len(values):
            raise DataError(
                f"{what}, {kind}", expected=f"one for each of the {len(values):,} inputs", got=f"{len(vector):,}"
            )
    if values.size == 0:
        raise DataError(what, expected="at least one sample", got=f"an empty set, x of shape {values.shape}")
    noun = "images" if values.ndim == 4 else "points" if values.shape[1:] == (2,) else "samples"
    return Source(
        name=name,
        title=title,
        y=targets,
        read=lambda positions: inputs(values if positions is None else values[positions.numpy()]),
        noun=noun,
        index=place,
        bounds=bounds,
    )
