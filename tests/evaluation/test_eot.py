"""Averaging over a model's randomness, and noticing that there is some."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustode.errors import OptionError
from robustode.evaluation.eot import Averaged, answers_differently
from robustode.models import wrap
from tests.evaluation.problem import Noisy, affine, refused


class Faint(nn.Module):
    """Labels never change, logits do, by `scale`."""

    def __init__(self, model, scale):
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, x):
        return self.model(x) + self.scale * torch.randn(1)


def test_the_mean_approaches_the_noiseless_logits():
    model, data = affine()
    torch.manual_seed(0)
    noisy = Noisy(model, 1.0)
    error = (Averaged(noisy, 400)(data.x) - model(data.x)).abs()
    assert 0 < error.max() < 4.5 / 400**0.5  # four and a half standard errors of 90 values
    assert (noisy(data.x) - model(data.x)).abs().max() > 1


def test_gradients_are_averaged_alike():
    model, data = affine()
    x = data.x.clone().requires_grad_(True)
    (mean,) = torch.autograd.grad(Averaged(Noisy(model, 1.0), 3)(x)[:, 0].sum(), x)
    (plain,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    torch.testing.assert_close(mean, plain)  # the noise is additive


def test_it_is_a_classifier_of_its_model():
    averaged = Averaged(affine()[0], 2)
    assert (averaged.bounds, averaged.classes, averaged.input_shape) == ((0.0, 1.0), 3, (1, 3, 4))
    assert wrap(averaged).classes == 3
    refused(OptionError, "eot: expected a number of draws ≥ 1, got 0", lambda: Averaged(affine()[0], 0))


@pytest.mark.parametrize(("scale", "differs"), [(0.0, False), (1e-7, False), (1e-2, True), (5.0, True)])
def test_different_answers_are_noticed(scale, differs):
    model, data = affine()
    torch.manual_seed(0)
    assert answers_differently(Noisy(model, scale), data.x) is differs
    assert answers_differently(Faint(model, scale), data.x) is differs


def test_it_does_not_mind_values_that_are_not_finite():
    class Broken(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 2), torch.nan)

    assert not answers_differently(Broken(), torch.zeros(3, 2))
