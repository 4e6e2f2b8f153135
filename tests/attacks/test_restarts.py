"""Restarts: other draws on what is left, the best point kept, passes added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from robustode.attacks.base import Status, assess
from robustode.attacks.cards import resolve
from robustode.attacks.direction import OneStepAttack
from robustode.attacks.random_search import RandomSearch
from robustode.attacks.restarts import Restarts
from robustode.errors import AttackError
from tests.attacks.adapter_problems import boxed_affine, exact_distance


@dataclass(frozen=True)
class Coin:
    """Breaks a sample with probability 0.4 for each run, by the exact step; keeps which samples each run had."""

    steps: Any
    clean: Any
    seen: list
    norm: str = "linf"
    eps: float = 0.2

    def __call__(self, model, x, y, *, target=None, generator=None):
        own = generator if isinstance(generator, list) else [generator] * len(x)
        lucky = torch.tensor([float(torch.rand((), generator=g)) < 0.4 for g in own])
        which = [int((self.clean == one).flatten(1).all(1).nonzero()[0]) for one in x]
        self.seen.append(which)
        point = torch.where(lucky[:, None], x + self.steps[which], x + 0.01)
        one = torch.ones(len(x), dtype=torch.float64)
        return assess(model, x, y, point, norm=self.norm, eps=self.eps, forwards=one, backwards=2 * one)


@pytest.fixture
def problem():
    model, x, y = boxed_affine((0.0, 1.0), input_shape=(9,), samples=12)
    w = model.weight.detach()
    direction = torch.stack([(w[1 - c] - w[c]).sign() for c in y.tolist()])
    steps = 1.01 * exact_distance(model, x, y, "linf")[:, None] * direction
    return model, x, y, Coin(steps=steps, clean=x, seen=[])


@pytest.mark.parametrize("each", [False, True])
def test_runs_again_on_what_is_left_and_keeps_what_was_found(problem, each):
    model, x, y, coin = problem
    y = y.clone()
    y[0] = 1 - y[0]
    source = [torch.Generator().manual_seed(i) for i in range(12)] if each else torch.Generator().manual_seed(5)
    result = Restarts(attack=coin, restarts=4)(model, x, y, generator=source)
    assert 2 <= len(coin.seen) <= 4
    for before, after in zip(coin.seen, coin.seen[1:], strict=False):
        assert set(after) < set(before)
        assert 0 not in after
    broken = {i for i, s in enumerate(result.status) if s is Status.SUCCESS}
    assert result.status[0] is Status.MISCLASSIFIED
    assert len(broken) > 6
    for i in range(12):
        runs = sum(i in seen for seen in coin.seen)
        assert result.forwards[i] == runs
        assert result.backwards[i] == 2 * runs
        if i in broken:
            assert torch.equal(result.returned[i], x[i] + coin.steps[i])
            assert torch.equal(result.x_adv[i], result.returned[i])
            assert result.adv_pred[i] == 1 - y[i]
            assert result.distance[i] == pytest.approx(float(coin.steps[i].abs().max()))
        elif i:
            assert torch.equal(result.returned[i], x[i] + 0.01)
            assert result.distance[i] == torch.inf


def test_draws_of_a_sample_do_not_depend_on_its_batch_mates():
    model, x, y = boxed_affine((0.0, 1.0), input_shape=(9,), samples=6)
    eps = float(exact_distance(model, x, y, "l2").median())
    attack = Restarts(attack=RandomSearch(norm="l2", eps=eps, queries=40), restarts=3)
    source = [[torch.Generator().manual_seed(i) for i in range(6)] for _ in range(2)]
    whole, part = attack(model, x, y, generator=source[0]), attack(model, x[3:], y[3:], generator=source[1][3:])
    assert torch.equal(whole.returned[3:], part.returned)
    assert whole.status[3:] == part.status
    assert torch.equal(whole.forwards[3:], part.forwards)


def test_more_random_steps_break_more():
    model, x, y = boxed_affine((0.0, 1.0), input_shape=(4,), samples=40)
    eps = 1.3 * float(exact_distance(model, x, y, "linf").max())
    one = OneStepAttack(norm="linf", eps=eps, kind="random")
    first = one(model, x, y, generator=torch.Generator().manual_seed(0)).success
    many = Restarts(attack=one, restarts=30)(model, x, y, generator=torch.Generator().manual_seed(0)).success
    assert many.all()
    assert first.sum() < 40
    assert Restarts(attack=one, restarts=30)(model, x, y).success.all()  # without a generator they differ too


def test_a_card_may_ask_for_them_and_hashes_of_other_cards_stay():
    (card,) = resolve("pgd-linf")
    assert "restarts" not in card.resolved()
    several = type(card).model_validate({**card.model_dump(), "restarts": 3})
    assert several.resolved() == {**card.resolved(), "restarts": 3}
    built = several.build(0.1)
    assert isinstance(built, Restarts)
    assert (built.norm, built.eps, built.restarts, built.attack) == ("linf", 0.1, 3, card.build(0.1))
    for value in (0, 1.5, True):
        with pytest.raises(ValueError, match="restarts"):
            type(card).model_validate({**card.model_dump(), "restarts": value})
    (minimal,) = resolve("sensitivity-l2")
    with pytest.raises(ValueError, match="expected 1 for a minimal-norm attack, got 2"):
        type(card).model_validate({**minimal.model_dump(), "restarts": 2})


def test_mistakes(problem):
    *_, coin = problem
    for value in (0, 2.0, True):
        with pytest.raises(AttackError, match="restarts: expected an integer ≥ 1"):
            Restarts(attack=coin, restarts=value)
    minimal = resolve("sensitivity-l2")[0].build(None)
    with pytest.raises(AttackError, match="expected an attack with a budget eps, got a minimal-norm attack"):
        Restarts(attack=minimal, restarts=2)
