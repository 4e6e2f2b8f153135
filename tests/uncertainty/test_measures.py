"""Sensitivity norms, directions, effective margins and rankings."""

import math

import pytest
import torch

from robustode import sensitivity
from robustode.uncertainty import Uncertainty, int8, measure, propagate
from tests.problems import random_affine, random_conv_snode, random_points, random_snode


@pytest.mark.parametrize("make", [random_snode, random_conv_snode, random_affine])
def test_sensitivity_and_direction_are_the_leading_singular_pair(make):
    model = make(scale=2.0) if make is not random_affine else make()
    x = random_points(model.input_shape, 4)
    found = measure(model, x, input_cov=0.01)
    assert found.direction.shape == x.shape
    assert torch.allclose(found.direction.flatten(1).norm(dim=1), torch.ones(4).double())
    moved = sensitivity.tangent(model, x, found.direction).norm(dim=1)
    assert torch.allclose(moved, found.sensitivity, rtol=1e-9)
    norms = torch.linalg.matrix_norm(sensitivity.jacobian(model, x).flatten(2), 2).detach()
    assert torch.allclose(found.sensitivity, norms, rtol=1e-9)
    linear = propagate(model, x, input_cov=0.01)
    assert torch.equal(found.cov, linear.cov)
    assert torch.equal(found.mean, linear.mean)
    assert found.sensitivity_along is None


def test_sensitivity_along_depth_of_a_linear_field():
    model = random_snode(scale=0.7, activation="identity", steps=6, foreground=2.0)
    x = random_points(model.input_shape, 2)
    found = measure(model, x, input_cov=0.01, weight_cov=int8(), along_depth=True)
    power = torch.eye(12, dtype=torch.float64)
    assert found.sensitivity_along is not None
    for n in range(7):
        assert torch.allclose(found.sensitivity_along[:, n], 2 * torch.linalg.matrix_norm(power[:4], 2).expand(2))
        if n < 6:
            power = power + model.flow.step * model.flow.parameters(n, 0)[0].detach() @ power
    assert torch.allclose(found.sensitivity_along[:, -1], found.sensitivity, rtol=1e-12)


def test_effective_margin_by_hand():
    mean = torch.tensor([[3.0, 2.0, 0.0], [0.0, 1.0, 5.0]]).double()
    cov = torch.diag_embed(torch.tensor([[0.5, 0.5, 12.0], [0.0, 0.0, 0.0]])).double()
    found = Uncertainty(mean=mean, cov=cov).effective_margin()
    assert found.other.tolist() == [2, 0]  # the margin to class 2 is larger, but less certain
    assert found.value.tolist() == pytest.approx([3 / math.sqrt(12.5), math.inf])
    assert found.margin.tolist() == [3.0, 5.0]
    assert found.std.tolist() == pytest.approx([math.sqrt(12.5), 0.0])
    wrong = Uncertainty(mean=mean, cov=cov).effective_margin(torch.tensor([1, 1]))
    assert wrong.other.tolist() == [0, 2]
    assert wrong.value.tolist() == pytest.approx([-1.0, -math.inf])
    assert Uncertainty(mean=mean, cov=cov).ranking().tolist() == [0, 1]


def test_effective_margin_of_two_classes_is_the_quantile_of_p():
    model = random_affine(classes=2)
    x = random_points(model.input_shape, 9)
    found = propagate(model, x, input_cov=0.2)
    y = found.mean.argmax(1)
    expected = torch.special.ndtr(found.effective_margin(y).value)
    assert torch.allclose(found.p_correct(y), expected, atol=1e-14)


def test_ranking_puts_those_at_risk_first():
    model = random_affine(classes=5)
    x = random_points(model.input_shape, 40)
    found = propagate(model, x, input_cov=0.5)
    order = found.ranking()
    assert sorted(order.tolist()) == list(range(40))
    p = found.p_correct(found.mean.argmax(1))[order]
    assert float(p[:10].mean()) + 0.2 < float(p[-10:].mean())
    nan = Uncertainty(mean=torch.tensor([[1.0, 0.0], [math.nan, 0.0]]), cov=torch.eye(2).expand(2, 2, 2))
    assert nan.ranking().tolist() == [1, 0]
