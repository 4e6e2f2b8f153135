"""`limit`: a class-stratified random subset with a fixed seed, or the first n."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robustode.data.draws import ranks
from robustode.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How many samples to take, and whether the first ones (else a class-stratified random subset)."""

    n: int
    first: bool = False


def parse_limit(limit: int | str | None) -> Limit | None:
    """Read `n`, "n" or "first:n"; None takes all.

    Raises:
        DataError: not a positive whole number.
    """
    if limit is None:
        return None
    text = str(limit)
    digits = text.removeprefix("first:")
    if isinstance(limit, bool) or not (digits.isascii() and digits.isdigit()) or int(digits) == 0:
        raise DataError("limit", expected="a positive whole number, or first:N", got=f"'{text}'")
    return Limit(n=int(digits), first=digits != text)


def stratified(y: Tensor, n: int, seed: int) -> Tensor:
    """Draw n positions in which every class has its share, ascending.

    Class c with n_c of N samples gets n n_c / N of the places, rounded by the largest remainder (ties in random order).
    Within a class the samples with the smallest random ranks are taken, so a larger n mostly adds to a smaller one.

    Args:
        y: (N,) int64 labels.
        n: how many, 1 to N.
        seed: whole number ≥ 0.
    """
    labels = y.numpy()
    classes, counts = np.unique(labels, return_counts=True)
    share = n * counts
    quota, remainder = share // len(labels), share % len(labels)
    order = np.lexsort((ranks(len(classes), (seed, 1)), -remainder))
    quota[order[: n - quota.sum()]] += 1
    rank = ranks(len(labels), (seed, 0))
    chosen = []
    for label, places in zip(classes, quota, strict=True):
        members = np.flatnonzero(labels == label)
        chosen.append(members[np.argsort(rank[members])[:places]])
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def check_seed(seed: object) -> None:
    """Raise `DataError` unless the seed of a subset is a whole number ≥ 0."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise DataError("seed of the subset", expected="a whole number ≥ 0", got=repr(seed))


def choose(y: Tensor, limit: Limit | None, seed: int, what: str) -> Tensor | None:
    """Return the positions that `limit` takes of the labels y, ascending; None for all.

    Raises:
        DataError: more than there are, or a seed that is not a whole number ≥ 0.
    """
    check_seed(seed)
    if limit is None or limit.n == len(y):
        return None
    if limit.n > len(y):
        raise DataError(
            f"limit for {what}",
            expected=f"at most {len(y):,}, which is all there are",
            got=f"{limit.n:,}",
            fix="Leave the limit out to take all.",
        )
    return torch.arange(limit.n) if limit.first else stratified(y, limit.n, seed)


def caption(limit: Limit | None, seed: int, *, total: int, split: str, noun: str, title: str) -> str:
    """Say which samples were taken: "all 360 test images of digits", "the first ...", "1,000 random ..., seed 0"."""
    n = total if limit is None else limit.n
    things = noun.removesuffix("s") if n == 1 else noun
    part = {"train": "training ", "all": ""}.get(split, f"{split} ")
    tail = f"{part}{things} of {title}"
    if n == total:
        return f"all {n:,} {tail}"
    if limit is not None and limit.first:
        return f"the first {n:,} {tail}"
    return f"{n:,} random {tail}, class-stratified, seed {seed}"
