"""more-effort: a PGD of few short steps breaks more with twice as many; one that has converged does not."""

import pytest
import torch

from robustode.attacks.cards import resolve
from robustode.audit.checks.more_effort import CHECK, doubled_iterations
from robustode.audit.finding import Verdict
from tests.audit.cases import make_case
from tests.audit.problems import affine, distances, healthy_case, write_card

EPS, STEP = 0.25, 0.025
SHORT = f"[params]\nsteps = 2\nrandom_start = false\n[per_eps]\nalpha = {STEP / EPS}\n"
HALVES = """
import torch

def halves(model, x, y, *, norm, eps, generator):
    # Breaks what it draws, half of the samples.
    w = model.bare.weight[1] - model.bare.weight[0]
    toward = torch.where(y == 0, 1.0, -1.0)[:, None] * w / w.norm()
    chosen = torch.rand(len(x), generator=generator) < 0.5
    return torch.where(chosen[:, None], x.flatten(1) + eps * toward, x.flatten(1)).reshape(x.shape).detach()

def wrecks(model, x, y, *, norm, eps, generator):
    wrecks.calls += 1
    if wrecks.calls > 1:
        model.bare.weight.data.mul_(-1)
    return x

wrecks.calls = 0
"""


def short_case(tmp_path, between: int, others: int = 10):
    """Samples of which so many are between two and four steps away, and so many further."""
    model, x, y = affine(n=100)
    reach = distances(model, x, y)
    near = ((reach > 2.05 * STEP) & (reach < 3.95 * STEP)).nonzero().squeeze(1)
    far = (reach > 4.1 * STEP).nonzero().squeeze(1)
    rows = torch.cat([near[:between], far[:others]])
    assert len(rows) == between + others
    card = write_card(tmp_path, "short", "torchattacks:PGDL2", "l2", SHORT)
    return make_case(model, x[rows], y[rows], attacks=[card], budgets={"l2": [EPS]}, full=True)


@pytest.mark.parametrize(("between", "verdict"), [(1, Verdict.PASS), (2, Verdict.WARN), (3, Verdict.FAIL)])
def test_exactly_what_twice_the_steps_reach(tmp_path, between, verdict):
    case = short_case(tmp_path, between)
    found = CHECK(case)
    assert len(case.survivors("l2", EPS)) == between + 10
    assert (found.status, found.value, found.threshold) == (verdict, between, 2)
    assert found.samples == tuple(range(between))
    assert found.details["radii"][0]["by"] == {"short, steps 4, draw 1": between, "short, steps 4, draw 2": 0}


def test_a_run_that_has_converged_passes():
    found = CHECK(healthy_case())
    assert (found.status, found.value) == (Verdict.PASS, 0)
    assert found.details["radii"][0]["tried"] > 10


def test_the_users_own_attack_is_drawn_again(tmp_path):
    (tmp_path / "own.py").write_text(HALVES)
    model, x, y = affine()
    card = write_card(tmp_path, "own", "python:own.py:halves", "l2")
    case = make_case(model, x, y, attacks=[card], budgets={"l2": [EPS]}, full=True)
    left = len(case.survivors("l2", EPS))
    found = CHECK(case)
    assert found.status is Verdict.FAIL
    assert found.details["radii"][0]["by"].keys() == {"own, another draw"}
    assert 0.25 * left < found.value < 0.75 * left


def test_an_attack_that_changes_the_model_is_told_and_put_back(tmp_path):
    (tmp_path / "wreck.py").write_text(HALVES)
    model, x, y = affine()
    card = write_card(tmp_path, "wreck", "python:wreck.py:wrecks", "l2")
    case = make_case(model, x, y, attacks=[card], budgets={"l2": [EPS]}, full=True)
    before = model.weight.detach().clone()
    found = CHECK(case)
    assert torch.equal(model.weight, before)
    assert (found.status, found.value) == (Verdict.WARN, 0)
    assert "did not end (AttackError: the attack changed the model" in found.text


@pytest.mark.parametrize("attack", ["sensitivity-l2", "fgm-l2", "one-step-margin-l2"])
def test_not_applicable_without_iterations_within_a_budget(attack):
    model, x, y = affine()
    found = CHECK(make_case(model, x, y, attacks=[attack], budgets={"l2": [0.05]}, full=True))
    assert found.status is Verdict.NOT_APPLICABLE
    assert found.text == "the run has no iterative attack within a budget"


@pytest.mark.parametrize(
    ("name", "norm", "params", "doubled"),
    [
        ("torchattacks:PGD", "linf", {}, {"steps": 20}),
        ("torchattacks:PGD", "linf", {"steps": 7}, {"steps": 14}),
        ("torchattacks:Square", "linf", {}, {"n_queries": 10000}),
        ("foolbox:L2PGD", "l2", {}, {"steps": 100}),
        ("foolbox:L2FastGradientAttack", "l2", {}, {}),
        ("one-step", "l2", {}, {}),
    ],
)
def test_iterations_are_known_by_name(name, norm, params, doubled):
    (card,) = resolve(name, norms=[norm], params=params)
    assert doubled_iterations(card) == doubled
