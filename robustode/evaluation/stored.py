"""Adversarial data sets of other runs, judged again as if they were an attack (`--also DIR`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustode.attacks.norms import check_norm
from robustode.data import Data, load_data
from robustode.data.exported import find_set
from robustode.data.place import INDEX
from robustode.errors import DataError
from robustode.files import read_json


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A directory that `generate` wrote: points by index in the full split, and the norm they were made for.

    Attributes:
        name: "stored-" and the name of the folder.
        norm: what its distances are measured in.
        data: its rows, adversarial or clean.
        kind: "minimal": its points are judged without a ball.
    """

    name: str
    norm: str
    data: Data
    kind: ClassVar[str] = "minimal"

    def params_at(self, eps: float | None) -> dict[str, Any]:
        """Return what says which points these are, at any ε."""
        return {"stored": self.data.fingerprint[:16]}

    def points(self, index: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stored points of the samples `index` (clean where there is none), and which were there."""
        rows = self._rows(index)
        there = rows >= 0
        points = x.clone()
        points[there.to(x.device)] = self.data.x[rows[there]].to(x)
        return points, there

    def check_made_from(self, data: Data) -> None:
        """Raise `DataError` unless the set was made from samples of `data`: same shape, and same labels by index."""
        what, fix = (
            f"adversarial data set '{self.data.name}'",
            "Name a set that was generated from the run's data.",
        )
        if self.data.x.shape[1:] != data.x.shape[1:]:
            shapes = tuple(data.x.shape[1:]), tuple(self.data.x.shape[1:])
            raise DataError(what, expected=f"inputs of shape {shapes[0]}", got=shapes[1], fix=fix)
        rows = self._rows(data.index)
        there = rows >= 0
        same = int((self.data.y[rows[there]] == data.y[there]).sum())
        if not same or same < int(there.sum()):
            got = f"{same} with their labels among {int(there.sum())} with their index"
            raise DataError(what, expected=f"samples of '{data.name}' ({data.split})", got=got, fix=fix)

    def _rows(self, index: Tensor) -> Tensor:
        """Return the row of each sample, −1 where the set does not have it."""
        place = {sample: row for row, sample in enumerate(self.data.index.tolist())}
        return torch.tensor([place.get(sample, -1) for sample in index.tolist()], dtype=torch.int64)


def read_stored(folder: Path, split: str = "test") -> Stored:
    """Read a stored adversarial data set; of one with several splits, the one asked for.

    Raises:
        DataError: it is none, it is damaged, or it does not say its norm.
    """
    data = load_data(str(folder), split=split)
    meta = read_json(find_set(folder, split) / INDEX, DataError)["meta"]
    if "norm" not in meta:
        fix = "Name a directory that `robustode generate` wrote."
        raise DataError(f"adversarial data set '{folder}'", expected=f"a norm in its {INDEX}", got="none", fix=fix)
    return Stored(name=f"stored-{folder.resolve().name}", norm=check_norm(str(meta["norm"])), data=data)
