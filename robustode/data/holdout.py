"""Validation data: a class-stratified part of the training data, held out."""

from __future__ import annotations

from dataclasses import replace

import torch

from robustode.data.dataset import Data
from robustode.data.subset import check_seed, stratified
from robustode.errors import DataError


def holdout(data: Data, n: int, *, seed: int = 0) -> tuple[Data, Data]:
    """Return (the rest, n samples held out), class-stratified and drawn with `seed`; `index` still names the samples.

    Raises:
        DataError: n is not a whole number from 1 to all but one of the samples, or the seed is not one ≥ 0.
    """
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n < len(data):
        expected = f"a whole number from 1 to {len(data) - 1:,}, so that samples are left to train on"
        raise DataError(f"samples held out of data '{data.name}'", expected=expected, got=repr(n))
    check_seed(seed)
    chosen = stratified(data.y, n, seed)
    kept = torch.ones(len(data), dtype=torch.bool)
    kept[chosen] = False
    rest = kept.nonzero().squeeze(1)
    parts = []
    for rows, what in ((rest, "without"), (chosen, "only")):
        caption = f"{data.caption}, {what} {n:,} held out (seed {seed})"
        parts.append(replace(data, x=data.x[rows], y=data.y[rows], index=data.index[rows], caption=caption))
    return parts[0], parts[1]
