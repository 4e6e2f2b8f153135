"""Passes counted at the model's boundary equal those counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch.func import jacrev

from robustode.attacks import SensitivityAttack
from robustode.attacks.cards import resolve
from robustode.evaluation.counting import Counted
from robustode.evaluation.eot import Averaged
from robustode.sensitivity.linearise import linearise
from tests.problems import random_affine, random_points, random_snode

N, CLASSES = 5, 4


@pytest.fixture
def x():
    return random_points((1, 3, 4), N)


@pytest.fixture(params=["affine", "snode"])
def counted(request):
    return Counted(random_affine() if request.param == "affine" else random_snode(scale=2.0))


def spent(counted):
    return counted.forwards, counted.backwards


def test_forward_and_backward_of_plain_autograd(counted, x):
    with torch.no_grad():
        counted(x[:3])
    assert spent(counted) == (3, 0)
    counted.reset()
    assert spent(counted) == (0, 0)
    point = x.clone().requires_grad_(True)
    logits = counted(point)
    assert torch.equal(logits, counted.bare(x))
    assert spent(counted) == (N, 0)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), point, retain_graph=True)
    expected = linearise(counted.bare, x).vjp(torch.eye(CLASSES, dtype=x.dtype)[0].expand(N, -1))
    torch.testing.assert_close(gradient, expected)
    assert spent(counted) == (N, N)
    torch.autograd.grad(logits[:, 1].sum(), point)
    assert spent(counted) == (N, 2 * N)


def test_the_model_itself_is_not_counted(counted, x):
    counted.bare(x)
    assert spent(counted) == (0, 0)


def test_second_derivatives_count_once_more_where_the_loss_is_not_linear():
    counted, x = Counted(random_affine()), random_points((1, 3, 4), N).requires_grad_(True)
    y = torch.zeros(N, dtype=torch.int64)
    loss = torch.nn.functional.cross_entropy(counted(x), y)
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    assert spent(counted) == (N, N)
    torch.autograd.grad(gradient.square().sum(), x)
    assert spent(counted) == (N, 2 * N)


def test_torch_func_goes_through():
    counted, x = Counted(random_affine()), random_points((1, 3, 4), N)
    jacobian = jacrev(lambda point: counted(point).sum(0))(x)
    torch.testing.assert_close(jacobian[:, 0].flatten(1), counted.bare.weight.detach())
    assert counted.forwards == N


def test_linearisation_counts_each_cotangent(counted, x):
    linear = linearise(counted, x)
    assert spent(counted) == (N, 0)
    linear.vjp(torch.ones(N, CLASSES, dtype=x.dtype))
    assert spent(counted) == (N, N)
    linear.vjp(torch.ones(N, 3, CLASSES, dtype=x.dtype))
    assert spent(counted) == (N, N + 3 * N)
    linear.jvp(torch.ones_like(x))
    assert spent(counted) == (2 * N, 4 * N)


@pytest.mark.parametrize(
    ("card", "forwards", "backwards"),
    [
        ("fgsm-linf", 1, 1),
        ("pgd-linf", 40, 40),
        ("pgd-l2", 40, 40),
        ("fgm-linf", 2, 1),  # foolbox looks once more at the point that it returns
        ("pgd-foolbox-l2", 41, 40),
        ("one-step-margin-l2", 1, CLASSES),
        ("one-step-random-linf", 1, 0),
        ("sensitivity-paper-l2", 60, 30 * CLASSES),  # a linearisation and a look at the new point, 30 times
    ],
)
def test_attacks_cost_what_they_cost_by_hand(counted, x, card, forwards, backwards):
    (found,) = resolve(card)
    y = counted.bare(x).argmax(1)
    counted.reset()
    found.build(0.1)(counted, x, y, generator=torch.Generator().manual_seed(0))
    assert spent(counted) == (N * forwards, N * backwards)


def test_the_sensitivity_attack_counts_as_the_harness_does(counted, x):
    y = counted.bare(x).argmax(1)
    result = SensitivityAttack(norm="l2")(counted, x, y)
    assert spent(counted) == pytest.approx((float(result.forwards.sum()), float(result.backwards.sum())))
    assert result.backwards.min() >= CLASSES


def test_averaged_answers_cost_every_draw():
    counted, x = Counted(Averaged(random_affine(), 3)), random_points((1, 3, 4), N).requires_grad_(True)
    torch.autograd.grad(counted(x)[:, 0].sum(), x)
    assert spent(counted) == (3 * N, 3 * N)
    linearise(counted, x.detach()).vjp(torch.ones(N, 2, CLASSES, dtype=x.dtype))
    assert spent(counted) == (6 * N, 9 * N)


def test_it_knows_what_the_model_knows():
    counted = Counted(random_snode())
    assert (counted.bounds, counted.classes, counted.input_shape) == ((0.0, 1.0), 4, (1, 3, 4))
    assert counted.nfe == 12
    assert Counted(Averaged(random_snode(), 2)).nfe == 12
    assert Counted(random_affine()).nfe is None


def test_evaluations_of_an_adaptive_solver_are_those_taken(x):
    model = random_snode(scale=3.0).with_solver(method="dopri5", rtol=1e-7)
    counted = Counted(model)
    assert (counted.nfe, counted.evaluations, counted.row_evaluations) == (None, None, None)
    model(x)
    each = model.last_nfe
    assert len(set(each.tolist())) > 1
    counted(x)
    counted(x)
    assert counted.evaluations == 2 * int(each.sum())
    assert counted.row_evaluations.tolist() == (2 * each).tolist()
    linear = linearise(counted, x)
    linear.vjp(torch.ones(N, CLASSES, dtype=x.dtype))
    assert counted.evaluations == 3 * int(each.sum())
    linear.jvp(torch.ones_like(x))
    assert counted.evaluations == 4 * int(each.sum())
    counted(x[:2])
    assert counted.evaluations == 4 * int(each.sum()) + int(each[:2].sum())
    assert counted.row_evaluations is None
    counted(x)
    assert counted.row_evaluations is None
    counted.reset()
    assert (counted.evaluations, counted.row_evaluations) == (None, None)
    averaged = Counted(Averaged(model, 3))
    averaged(x)
    assert averaged.row_evaluations.tolist() == (3 * each).tolist()


def test_evaluations_on_a_fixed_grid_are_passes_times_stages(x):
    counted = Counted(random_snode(method="rk4"))
    counted(x)
    assert (counted.evaluations, counted.row_evaluations) == (N * 48, None)
    unknown = Counted(random_affine())
    unknown(x)
    assert unknown.evaluations is None
