"""The fork of the global random states."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from robustode.attacks.adapters.rng import forked_rng


def draws():
    return torch.rand(3).tolist() + np.random.rand(3).tolist() + [random.random() for _ in range(3)]


def seed_everything(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def test_inside_all_draws_follow_from_the_generator_and_outside_nothing_moved():
    inside = []
    for global_seed in (1, 2):
        seed_everything(global_seed)
        expected = draws()
        seed_everything(global_seed)
        with forked_rng(torch.Generator().manual_seed(4)) as seed:
            assert 0 <= seed < 2**31
            inside.append([seed, *draws()])
            torch.manual_seed(99)
        assert draws() == expected
    assert inside[0] == inside[1]


def test_the_generator_moves_on_and_none_is_seed_zero():
    g = torch.Generator().manual_seed(4)
    with forked_rng(g) as first:
        one = draws()
    with forked_rng(g) as second:
        two = draws()
    assert first != second
    assert not set(one) & set(two)
    with forked_rng(None) as zero:
        assert zero == 0


def test_states_come_back_after_an_error():
    seed_everything(3)
    expected = draws()
    seed_everything(3)
    with pytest.raises(KeyError), forked_rng(None):
        seed_everything({}["no such seed"])
    assert draws() == expected


@pytest.mark.gpu
def test_cuda_is_forked_too():
    torch.cuda.manual_seed(1)
    expected = torch.rand(3, device="cuda").tolist()
    torch.cuda.manual_seed(1)
    inside = []
    for _ in range(2):
        with forked_rng(torch.Generator().manual_seed(4)):
            inside.append(torch.rand(3, device="cuda").tolist())
    assert inside[0] == inside[1]
    assert torch.rand(3, device="cuda").tolist() == expected
