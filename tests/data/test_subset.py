"""`limit`: shares by the largest remainder, fixed draws, exact captions, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustode.data.draws import ranks, uniform
from robustode.data.subset import Limit, caption, choose, parse_limit, stratified
from robustode.errors import DataError

Y = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)[torch.from_numpy(ranks(100, 5))]


def test_draws_are_those_of_the_raw_generator_for_ever():
    np.testing.assert_array_equal(uniform(3, 0), [0.6369616873214543, 0.2697867137638703, 0.04097352393619469])
    assert ranks(8, 0).tolist() == np.argsort(np.argsort(uniform(8, 0))).tolist()
    assert sorted(ranks(1000, 3)) == list(range(1000))


@pytest.mark.parametrize(("n", "shares"), [(10, [5, 3, 2]), (20, [10, 6, 4]), (100, [50, 30, 20]), (4, [2, 1, 1])])
def test_shares_by_largest_remainder(n, shares):
    chosen = stratified(Y, n, 0)
    assert torch.bincount(Y[chosen], minlength=3).tolist() == shares
    assert chosen.tolist() == sorted(set(chosen.tolist()))


def test_tied_remainders_depend_on_the_seed_and_not_on_the_class():
    y = torch.arange(100) % 10
    winners = {tuple(y[stratified(y, 5, seed)].unique().tolist()) for seed in range(20)}
    assert len(winners) > 10
    assert {c for w in winners for c in w} == set(range(10))


def test_same_seed_same_subset_other_seed_another():
    first = stratified(Y, 40, 7)
    assert torch.equal(first, stratified(Y, 40, 7))
    assert not torch.equal(first, stratified(Y, 40, 8))


def test_larger_subset_contains_the_smaller_where_shares_are_exact():
    assert set(stratified(Y, 10, 1).tolist()) < set(stratified(Y, 50, 1).tolist())


def test_every_sample_is_drawn_about_equally_often():
    counts = torch.zeros(100)
    for seed in range(400):
        counts[stratified(Y, 10, seed)] += 1
    assert counts.sum() == 4000
    assert float((counts - 40).abs().max()) < 4 * (400 * 0.1 * 0.9) ** 0.5  # four standard deviations, seeds fixed


@pytest.mark.parametrize(
    ("text", "limit"),
    [(None, None), (5, Limit(n=5)), ("12", Limit(n=12)), ("first:3", Limit(n=3, first=True))],
)
def test_parse(text, limit):
    assert parse_limit(text) == limit


@pytest.mark.parametrize("bad", [0, -3, 2.5, True, "0", "first:0", "first:", "last:3", "1e3", "", "first:-2", "²"])
def test_unreadable_limit(bad):
    with pytest.raises(DataError) as caught:
        parse_limit(bad)
    assert str(caught.value) == f"limit: expected a positive whole number, or first:N, got '{bad}'"


def test_choose():
    assert choose(Y, None, 0, "it") is None
    assert choose(Y, Limit(n=100), 0, "it") is None
    first = choose(Y, Limit(n=3, first=True), 0, "it")
    assert first is not None
    assert first.tolist() == [0, 1, 2]
    with pytest.raises(DataError) as caught:
        choose(Y, Limit(n=1000), 0, "data 'mine'")
    assert str(caught.value) == (
        "limit for data 'mine': expected at most 100, which is all there are, got 1,000. "
        "Leave the limit out to take all."
    )


@pytest.mark.parametrize("seed", [-1, 1.0, "0", True])
def test_bad_seed(seed):
    with pytest.raises(DataError, match="seed of the subset: expected a whole number"):
        choose(Y, None, seed, "it")


def test_captions():
    words = {"total": 10_000, "split": "test", "noun": "images", "title": "MNIST 14x14"}
    assert caption(None, 0, **words) == "all 10,000 test images of MNIST 14x14"
    assert caption(Limit(n=1000), 3, **words) == ("1,000 random test images of MNIST 14x14, class-stratified, seed 3")
    assert caption(Limit(n=1000, first=True), 0, **words) == "the first 1,000 test images of MNIST 14x14"
    assert caption(Limit(n=1), 0, **words).startswith("1 random test image of")
    assert caption(None, 0, **{**words, "split": "train"}) == "all 10,000 training images of MNIST 14x14"
    assert caption(None, 0, **{**words, "split": "all"}) == "all 10,000 images of MNIST 14x14"
