"""Adversarial data sets of other runs, judged again as if they were an attack (`--also DIR`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from robustode.attacks.norms import check_norm
from robustode.data import Data, load_data
from robustode.data.files import read_json
from robustode.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A directory that `generate` wrote: points by index in the full split, and the norm they were made for."""

    name: str
    norm: str
    data: Data

    def points(self, index: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stored points of the samples `index` (clean where there is none), and which were there."""
        place = {int(i): row for row, i in enumerate(self.data.index)}
        rows = [place.get(int(i), -1) for i in index]
        there = torch.tensor([row >= 0 for row in rows])
        points = x.clone()
        if bool(there.any()):
            points[there.to(x.device)] = self.data.x[[row for row in rows if row >= 0]].to(x)
        return points, there


def read_stored(folder: Path) -> Stored:
    """Read a stored adversarial data set.

    Raises:
        DataError: it is none, it is damaged, or it does not say its norm.
    """
    meta = read_json(folder / "dataset.json", DataError).get("meta", {})
    data = load_data(str(folder))
    if "norm" not in meta:
        raise DataError(f"adversarial data set '{folder}'", expected="a norm in its dataset.json", got="none")
    return Stored(name=f"stored-{folder.resolve().name}", norm=check_norm(str(meta["norm"])), data=data)
