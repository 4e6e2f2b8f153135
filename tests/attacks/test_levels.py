"""Coarser levels: chosen where a sample's margins are the same, and counted as what they cost."""

import torch

from robustode.attacks import SensitivityAttack
from robustode.attacks.levels import cheaper, level_of_each
from robustode.attacks.search import Search
from robustode.evaluation.counting import Counted
from robustode.models.layered import Layered
from tests.problems import random_affine, random_points, random_snode


def smooth(steps=60):
    """A network whose weights hardly change in depth: coarse grids answer alike."""
    return random_snode(scale=1.5, steps=steps, knots=2, horizon=1.0)


def test_levels_are_those_of_an_snode_on_a_fixed_grid():
    model = smooth()
    assert [level.model.steps for level in cheaper(model)] == [6, 12, 20]
    assert [level.share for level in cheaper(model)] == [0.1, 0.2, 20 / 60]
    assert not list(cheaper(random_affine()))
    assert not list(cheaper(model.with_solver(method="dopri5")))
    assert not list(cheaper(Layered(input_shape=(6,), classes=3, steps=30)))
    assert not list(cheaper(smooth(steps=3)))


def levels(model, x, y):
    """Share of the level of each row, 1 for the network itself; and the search that found them."""
    search = Search.of(model, x, y, None, "l2")
    clean = search.plane(search.every, x, temperature=0.05).value
    groups, rest = level_of_each(search, clean, 0.05)
    share = torch.ones(len(x), dtype=torch.float64)
    seen = rest.tolist()
    for level, rows in groups:
        share[rows] = level.share
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(x)))
    return share, search


def test_each_row_has_the_level_that_agrees_whatever_its_batch():
    model = smooth()
    x = random_points(model.input_shape, 30)
    y = model(x).argmax(1)
    share, search = levels(model, x, y)
    assert (share < 1).sum() >= 5
    assert share.unique().numel() >= 2
    alone = torch.cat([levels(model, x[i : i + 1], y[i : i + 1])[0] for i in range(30)])
    assert torch.equal(alone, share)
    # what it costs: the plane at the clean input, and of each level tried its share
    tried = {0.1: 0.1, 0.2: 0.3, 20 / 60: 0.3 + 20 / 60, 1.0: 0.3 + 20 / 60}
    assert torch.allclose(search.passes.forwards, torch.tensor([1 + tried[float(s)] for s in share]).double())


def test_the_attack_is_as_good_on_levels_and_cheaper(monkeypatch):
    model = smooth(steps=200)
    x = random_points(model.input_shape, 30)
    y = model(x).argmax(1)
    levelled = SensitivityAttack(norm="l2", setting="thorough")(model, x, y)
    monkeypatch.setattr("robustode.attacks.levels.SHARES", ())
    alone = SensitivityAttack(norm="l2", setting="thorough")(model, x, y)
    both = levelled.success & alone.success
    assert both.sum() >= 25
    assert ((levelled.distance / alone.distance)[both] < 1.01).double().mean() > 0.9
    assert (levelled.forwards + levelled.backwards).mean() < 0.9 * (alone.forwards + alone.backwards).mean()
    assert (model(levelled.x_adv[levelled.success]).argmax(1) != y[levelled.success]).all()


def test_the_harness_counts_a_level_as_its_share():
    model = smooth()
    counted = Counted(model)
    x = random_points(model.input_shape, 4)
    level = counted.at_steps(12)
    level(x)
    assert counted.forwards == 4 * 12 / 60
    level.linearise(x).vjp(torch.ones(4, model.classes, dtype=torch.float64))
    assert counted.forwards == 8 * 12 / 60
    assert counted.backwards == 4 * 12 / 60
    assert torch.equal(level(x), model.at_steps(12)(x))
