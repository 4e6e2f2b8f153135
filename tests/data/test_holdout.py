"""Data held out: every sample in one of two parts, every class with its share, the same draw for the same seed."""

import re

import pytest
import torch

from robustode.data import holdout, load_data
from robustode.data.dataset import Data
from robustode.errors import DataError


def unequal(n=100):
    """50 % of class 0, 30 % of class 1, 20 % of class 2, in random order, with places from a larger split."""
    g = torch.Generator().manual_seed(3)
    y = torch.tensor([0] * (n // 2) + [1] * (3 * n // 10) + [2] * (n // 5))[torch.randperm(n, generator=g)]
    x = torch.rand(n, 4, generator=g)
    index = torch.randperm(10 * n, generator=g)[:n]
    values = {"name": "d", "split": "train", "bounds": (0.0, 1.0), "classes": 3, "caption": "all 100 samples"}
    return Data(x=x, y=y, index=index, **values)


@pytest.mark.parametrize("n", [1, 10, 37, 99])
def test_disjoint_exhaustive_and_named_by_their_index(n):
    data = unequal()
    rest, held = holdout(data, n)
    assert (len(rest), len(held)) == (100 - n, n)
    assert sorted([*rest.index.tolist(), *held.index.tolist()]) == sorted(data.index.tolist())
    place = {int(index): row for row, index in enumerate(data.index)}
    for part in (rest, held):
        rows = [place[int(index)] for index in part.index]
        assert rows == sorted(rows)
        assert torch.equal(part.x, data.x[rows])
        assert torch.equal(part.y, data.y[rows])
        assert (part.name, part.split, part.bounds, part.classes) == ("d", "train", (0.0, 1.0), 3)
    assert rest.caption == f"all 100 samples, without {n} held out (seed 0)"
    assert held.caption == f"all 100 samples, only {n} held out (seed 0)"


@pytest.mark.parametrize(("n", "shares"), [(10, [5, 3, 2]), (40, [20, 12, 8])])
def test_every_class_has_its_share(n, shares):
    rest, held = holdout(unequal(), n, seed=7)
    assert torch.bincount(held.y).tolist() == shares
    assert torch.bincount(rest.y).tolist() == [all_ - share for all_, share in zip([50, 30, 20], shares, strict=True)]


def test_the_same_seed_gives_the_same_split_and_another_another():
    first, again, other = (holdout(unequal(), 30, seed=seed)[1] for seed in (5, 5, 6))
    assert torch.equal(first.index, again.index)
    assert first.fingerprint == again.fingerprint
    assert set(first.index.tolist()) != set(other.index.tolist())


def test_of_a_limited_set_it_names_places_of_the_full_split():
    data = load_data("digits", split="train", limit=200, seed=1)
    rest, held = holdout(data, 50, seed=1)
    full = load_data("digits", split="train")
    for part in (rest, held):
        assert torch.equal(part.x, full.x[part.index])
    assert torch.bincount(held.y, minlength=10).min() >= 4


@pytest.mark.parametrize("n", [0, -1, 100, 101, 2.0, True, "10", None])
def test_how_many(n):
    message = (
        "samples held out of data 'd': expected a whole number from 1 to 99, so that samples are left to train on, got "
        f"{n!r}"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        holdout(unequal(), n)


@pytest.mark.parametrize("seed", [-1, 1.5, True])
def test_seed(seed):
    with pytest.raises(DataError, match=f"seed of the subset: expected a whole number ≥ 0, got {seed!r}"):
        holdout(unequal(), 10, seed=seed)
