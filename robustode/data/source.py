"""`Source`: the labels of a full split, and a way to read the inputs of some of its samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Read = Callable[[Tensor | None], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """What every kind of data source is turned into; inputs are read only after the subset is chosen.

    Attributes:
        name: the source as the user would write it again.
        title: its name in a caption.
        y: (n,) int64, the labels of the full split.
        read: maps positions (m,) int64, or None for all, to their inputs (m, *shape) float32.
        split: "train", "test", or "all" for a source without splits.
        noun: what a sample is ("images", "points", "samples").
        index: (n,) int64, place of each sample in the full split; 0 to n − 1 if None.
        bounds, classes: as in `Data`.
        note: maps positions to a remark that the caption ends with.
    """

    name: str
    title: str
    y: Tensor
    read: Read
    split: str = "all"
    noun: str = "samples"
    index: Tensor | None = None
    bounds: tuple[float, float] | None = None
    classes: int | None = None
    note: Callable[[Tensor | None], str] | None = None
