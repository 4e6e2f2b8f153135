"""black-box: quantised inputs hide their gradients; what logits alone break is known in closed form."""

import importlib.util

import pytest
import torch

from robustode.audit.checks import black_box
from robustode.audit.checks.black_box import CHECK, takes_squares
from robustode.audit.finding import Verdict
from tests.audit.cases import make_case
from tests.audit.problems import Through, affine, healthy_case, quantised

EPS, LEVELS = 0.03, 16
QUERIES = 400  # enough for 36 coordinates


@pytest.fixture(autouse=True)
def few_queries(monkeypatch):
    monkeypatch.setattr(black_box, "QUERIES", QUERIES)


def quantised_case(input_shape=(1, 6, 6), n=60, eps=EPS, **options):
    """A quantised affine classifier of two classes after PGD, and the exact smallest margin of each sample in the ball.

    z_y − z_k = w·q(x) + b with q monotone in each coordinate: its least is Σ min(w q(x − ε), w q(x + ε)) + b.
    """
    model, x, y = affine(n=n, input_shape=input_shape)
    q = quantised(LEVELS)
    masked = Through(model, inputs=q)
    y = masked(x).argmax(1)
    sign = torch.where(y == 0, 1.0, -1.0)[:, None]
    row = sign * (model.weight[0] - model.weight[1]).detach()
    bias = sign[:, 0] * (model.bias[0] - model.bias[1]).detach()
    ends = [row * q((x.flatten(1) + step).clamp(0, 1)) for step in (-eps, eps)]
    least = torch.minimum(*ends).sum(1) + bias
    case = make_case(masked, x, y, attacks=["pgd-linf"], budgets={"linf": [eps]}, full=True, **options)
    return case, least


@pytest.mark.parametrize(("shape", "name"), [((1, 6, 6), "Square"), ((36,), "random search")])
def test_what_can_be_broken_is_and_nothing_else(shape, name):
    case, least = quantised_case(shape)
    survivors = case.survivors("linf", EPS)
    possible = set(case.samples(survivors[least[survivors] < 0]))
    found = CHECK(case)
    assert 10 < len(possible) < len(survivors) - 10
    assert found.status is Verdict.FAIL
    assert set(found.samples) <= possible
    assert found.value == len(found.samples) >= 0.5 * len(possible)
    assert list(found.details["radii"][0]["by"]) == [name]


def test_an_honest_network_passes():
    found = CHECK(healthy_case())
    assert (found.status, found.value) == (Verdict.PASS, 0)
    assert list(found.details["radii"][0]["by"]) == ["Square"]
    assert found.details["radii"][0]["tried"] > 10


def test_at_most_so_many_survivors_and_the_count_is_scaled_up(monkeypatch):
    monkeypatch.setattr(black_box, "SURVIVORS", 15)
    case, _ = quantised_case()
    survivors = len(case.survivors("linf", EPS))
    found = CHECK(case)
    (cell,) = found.details["radii"]
    assert (cell["tried"], cell["survivors"]) == (15, survivors)
    assert found.value == pytest.approx(cell["broken"] * survivors / 15)
    assert f"drawn from {survivors}: about" in found.text


def test_without_torchattacks_random_search_draws_the_squares(monkeypatch):
    find = importlib.util.find_spec
    hidden = {"torchattacks"}
    case, _ = quantised_case()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in hidden else find(name, *rest))
    monkeypatch.setattr(black_box, "find_spec", importlib.util.find_spec)
    found = CHECK(case)
    assert found.status is Verdict.FAIL
    assert "Square left out (torchattacks is not installed" in found.text
    assert list(found.details["radii"][0]["by"]) == ["random search"]


@pytest.mark.parametrize(
    ("shape", "fits"),
    [((1, 8, 8), True), ((3, 5, 5), True), ((3, 4, 4), False), ((1, 6, 30), False), ((2,), False), ((8, 8), False)],
)
def test_square_is_for_images_that_its_squares_fit_into(shape, fits):
    assert takes_squares(shape) is fits


@pytest.mark.parametrize(
    ("shape", "norm"),
    [((1, 5, 5), "l2"), ((2, 5, 6), "l2"), ((1, 14, 14), "l2"), ((2, 5, 6), "linf"), ((30,), "l1")],
)
def test_every_shape_and_norm_has_an_attack_that_runs(shape, norm, monkeypatch):
    monkeypatch.setattr(black_box, "QUERIES", 20)
    model, x, y = affine(n=8, input_shape=shape)
    found = CHECK(make_case(model, x, y, budgets={norm: [0.5]}, full=True))
    assert found.details["raised"] == {}
    assert found.value > 0
