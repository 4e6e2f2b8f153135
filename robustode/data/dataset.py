"""`Data`: inputs, labels and where they come from, valid by construction."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from robustode.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """Labelled inputs in memory, of one split of one source.

    Attributes:
        name: the source as the user would write it again ("digits", a path, ...).
        split: "train", "test", or "all" for a source without splits.
        x: (n, *shape) float32 on the CPU, finite.
        y: (n,) int64, classes from 0.
        index: (n,) int64, distinct: the place of each sample in the full split.
        bounds: (lo, hi), the box that the inputs lie in; None if the source does not say.
        classes: number of classes; one more than the largest label if the source does not say.
        caption: which samples these are, for tables and figures.

    Raises:
        DataError: no samples, another dtype or length, NaN or infinite inputs, negative or too large labels,
            repeated indices, inputs outside `bounds`.
    """

    name: str
    split: str
    x: Tensor
    y: Tensor
    index: Tensor
    bounds: tuple[float, float] | None
    classes: int | None
    caption: str

    def __post_init__(self) -> None:
        what = f"data '{self.name}'"
        _check_arrays(what, self.x, self.y, self.index)
        _check_values(what, self.x, self.y, self.index, self.classes)
        if self.classes is None:
            object.__setattr__(self, "classes", int(self.y.max()) + 1)
        if self.bounds is not None:
            check_bounds(self, self.bounds)

    def __len__(self) -> int:
        return len(self.y)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hexadecimal) of the shape of x and the bytes of x, y and index."""
        digest = hashlib.sha256(repr(tuple(self.x.shape)).encode())
        for tensor in (self.x, self.y, self.index):
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def shard(self, start: int, stop: int) -> Data:
        """Return samples start to stop − 1, as views of the same memory."""
        part = slice(start, stop)
        return replace(self, x=self.x[part], y=self.y[part], index=self.index[part])

    def take(self, samples: Sequence[int]) -> Data:
        """Return the samples of these indices in the full split, in the order given; repeated ones once.

        Raises:
            DataError: an index that is not among those loaded.
        """
        place = {int(number): row for row, number in enumerate(self.index.tolist())}
        wanted = list(dict.fromkeys(samples))
        missing = [number for number in wanted if number not in place]
        if missing:
            expected = f"an index of {self.caption}, {min(place)} to {max(place)}"
            raise DataError(f"sample of data '{self.name}'", expected=expected, got=", ".join(map(str, missing)))
        rows = torch.tensor([place[number] for number in wanted], dtype=torch.int64)
        things = "sample" if len(wanted) == 1 else "samples"
        caption = f"{things} {', '.join(map(str, wanted))} of {self.caption}"
        return replace(self, x=self.x[rows], y=self.y[rows], index=self.index[rows], caption=caption)


def check_bounds(data: Data, bounds: tuple[float, float]) -> None:
    """Raise `DataError` unless every input lies in [lo, hi]; the message shows both ranges."""
    lo, hi = check_pair(bounds)
    low, high = (float(value) for value in torch.aminmax(data.x))
    if low < lo or high > hi:
        outside = int(((data.x < lo) | (data.x > hi)).flatten(1).any(1).sum())
        raise DataError(
            f"data '{data.name}'",
            expected=f"inputs inside the bounds [{lo:g}, {hi:g}]",
            got=f"inputs from {low:g} to {high:g} ({outside:,} of {len(data):,} samples outside)",
            fix="Scale the inputs, or give the bounds that the model was trained with (--bounds LO,HI).",
        )


def check_pair(bounds: tuple[float, float]) -> tuple[float, float]:
    """Return `bounds` as two floats; raise `DataError` unless they are finite and lo < hi."""
    try:
        lo, hi = (float(value) for value in bounds)
    except (TypeError, ValueError):
        raise DataError("bounds", expected="two numbers LO,HI", got=repr(bounds)) from None
    if not (-float("inf") < lo < hi < float("inf")):
        raise DataError("bounds", expected="two finite numbers LO < HI", got=f"{lo:g}, {hi:g}")
    return lo, hi


def _check_arrays(what: str, x: Tensor, y: Tensor, index: Tensor) -> None:
    if x.dim() < 2 or x.dtype != torch.float32 or x.device.type != "cpu":
        raise DataError(
            f"{what}, inputs x", expected="float32 of shape (n, ...) on the CPU", got=f"{x.dtype} {tuple(x.shape)}"
        )
    for name, values in (("labels y", y), ("index", index)):
        if values.dim() != 1 or values.dtype != torch.int64:
            raise DataError(
                f"{what}, {name}", expected="int64 of shape (n,)", got=f"{values.dtype} {tuple(values.shape)}"
            )
        if len(values) != len(x):
            raise DataError(
                f"{what}, {name}", expected=f"one for each of the {len(x):,} inputs", got=f"{len(values):,}"
            )
    if x.numel() == 0:
        raise DataError(what, expected="at least one sample", got=f"an empty set, x of shape {tuple(x.shape)}")


def _check_values(what: str, x: Tensor, y: Tensor, index: Tensor, classes: int | None) -> None:
    bad = ~torch.isfinite(x).flatten(1).all(1)
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise DataError(
            f"{what}, inputs x",
            expected="finite numbers",
            got=f"NaN or infinity in {int(bad.sum()):,} samples, first in sample {first} (counted from 0)",
            fix="Remove or repair them.",
        )
    low, high = int(y.min()), int(y.max())
    if low < 0 or (classes is not None and high >= classes):
        bound = "classes from 0" if classes is None else f"classes 0 to {classes - 1}"
        raise DataError(f"{what}, labels y", expected=bound, got=f"{low} to {high}")
    if int(index.min()) < 0 or len(torch.unique(index)) != len(index):
        raise DataError(f"{what}, index", expected="distinct numbers from 0", got="negative or repeated ones")
