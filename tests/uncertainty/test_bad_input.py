"""What is wrong, by how much, and what to do about it."""

import pytest
import torch

from robustode.errors import ModelError, OptionError
from robustode.uncertainty import LowRank, Uncertainty, int8, measure, propagate
from tests.problems import random_affine, random_points, random_snode

EYE = torch.eye(12, dtype=torch.float64)
SKEW = EYE.clone()
SKEW[0, 1] = 0.25
INDEFINITE = torch.diag(torch.tensor([-0.5] + [2.0] * 11))


@pytest.mark.parametrize(
    ("cov", "message"),
    [
        (-1.0, r"input_cov: expected variances ≥ 0, got -1\. It is σ², the square"),
        (torch.full((12,), -0.5), "expected variances ≥ 0, got -0.5"),
        (float("nan"), "expected finite values, got 1 of 1 that are not finite"),
        (torch.tensor([1.0] * 11 + [float("inf")]), "got 1 of 12 that are not finite"),
        (torch.ones(5), r"expected a number, variances of shape \(1, 3, 4\) or \(12,\), a \(12, 12\) matrix, .*\(5,\)"),
        (torch.ones(12, 2), r"LowRank\(factor\), got shape \(12, 2\)"),
        (SKEW, "a symmetric matrix, got one that differs from its transpose by up to 0.25, its largest entry being 1"),
        (INDEFINITE, "positive semidefinite matrix, got a most negative eigenvalue of -0.5, the largest being 2"),
        (LowRank(torch.ones(5, 2)), r"low-rank factor: expected 12 rows, .* got shape \(5, 2\)"),
    ],
)
def test_covariance(cov, message):
    model = random_affine()
    with pytest.raises(OptionError, match=message):
        propagate(model, random_points(model.input_shape, 1), input_cov=cov)


def test_low_rank_factor():
    with pytest.raises(OptionError, match=r"low-rank factor: expected a matrix \(d, r\), got shape \(3,\)"):
        LowRank(torch.ones(3))
    with pytest.raises(OptionError, match="low-rank factor: expected finite values, got 1 of 2"):
        LowRank(torch.tensor([[1.0], [torch.nan]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "unscentid"}, "unknown method of uncertainty propagation: .* Did you mean 'unscented'"),
        ({"input_cov": None}, "uncertainty propagation: expected input_cov, weight_cov or both, got neither"),
        ({"weight_cov": "int8"}, r"weight_cov: expected IIDWeights\(sigma=...\), .* got str"),
        ({"method": "monte-carlo"}, "generator: expected one, for Monte Carlo, got none"),
        ({"method": "monte-carlo", "generator": torch.Generator(), "draws": 1}, "draws: expected at least 2, got 1"),
        ({"along_depth": True}, "depth: expected an sNODE or layered model on a fixed grid, got Affine. Ask for the"),
    ],
)
def test_arguments(change, message):
    model = random_affine()
    with pytest.raises(OptionError, match=message):
        propagate(model, random_points(model.input_shape, 2), **({"input_cov": 0.1} | change))


def test_depth_of_an_adaptive_solver():
    model = random_snode().with_solver(method="dopri5")
    x = random_points(model.input_shape, 1)
    for call in (propagate, measure):
        with pytest.raises(OptionError, match=r"adaptive solver .* Take a fixed grid: model.with_solver\(method='rk4'"):
            call(model, x, input_cov=0.1, along_depth=True)
    assert propagate(model, x, input_cov=0.1).cov.shape == (1, 4, 4)  # the output alone is no problem


@pytest.mark.parametrize("call", [propagate, measure])
def test_inputs(call):
    model = random_snode()
    x = random_points(model.input_shape, 3)
    x[2, 0, 0, 0] = torch.nan
    with pytest.raises(OptionError, match="x: expected finite inputs, got values that are not in sample 2"):
        call(model, x, weight_cov=int8())
    with pytest.raises(OptionError, match=r"x: expected \(batch, 1, 3, 4\), batch ≥ 1, got \(3, 12\)"):
        call(model, x.flatten(1), input_cov=0.1)
    with pytest.raises(OptionError, match=r"got \(0, 1, 3, 4\)"):
        call(model, x[:0], input_cov=0.1)


def test_labels():
    found = Uncertainty(mean=torch.zeros(2, 3), cov=torch.eye(3).expand(2, 3, 3))
    for ask in (found.p_correct, found.probability, found.effective_margin, found.ranking):
        with pytest.raises(OptionError, match=r"labels y: expected \(2,\) classes 0 to 2, got 0 to 3"):
            ask(torch.tensor([0, 3]))
        with pytest.raises(OptionError, match=r"got \(3,\)"):
            ask(torch.tensor([0, 1, 2]))


def test_weights_of_a_function():
    class Function:
        bounds, classes, input_shape = (0.0, 1.0), 2, (2,)

        def __call__(self, x):
            return x * 2

    x = random_points((2,), 1)
    assert torch.allclose(propagate(Function(), x, input_cov=0.25).cov[0], torch.eye(2).double())
    with pytest.raises((OptionError, ModelError), match=r"weight_cov: expected a torch.nn.Module, got Function"):
        propagate(Function(), x, weight_cov=int8())
