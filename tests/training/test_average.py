"""The running mean of the weights: its closed form, its two ends, and how it is restored."""

import math

import pytest
import torch
from torch import nn

from robustode.training.average import Average


def moved(steps, constant):
    """A module whose weights are drawn anew `steps` times, its average, and all weights it had."""
    g = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    average, seen = Average(model, constant), []
    for _ in range(steps):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=g, dtype=torch.float64))
            model[1].running_mean.add_(1.0)
        average.take(model)
        seen.append({name: value.detach().clone() for name, value in model.named_parameters()})
    return model, average, seen


@pytest.mark.parametrize("constant", [0.5, 3.0, 100.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_closed_form(constant, steps):
    model, average, seen = moved(steps, constant)
    factors = [math.exp(-(steps - i) / constant) for i in range(1, steps + 1)]
    exported = average.export(model)
    for name in seen[0]:
        mean = sum(f * weights[name] for f, weights in zip(factors, seen, strict=True)) / sum(factors)
        assert torch.allclose(exported[name], mean, rtol=1e-12)
        assert torch.equal(dict(model.named_parameters())[name], seen[-1][name])  # the model itself is left alone


def test_zero_keeps_the_last_weights_to_the_bit():
    model, average, seen = moved(5, 0.0)
    assert all(torch.equal(average.export(model)[name], value) for name, value in seen[-1].items())


def test_before_the_first_mini_batch_it_is_the_model():
    model, average, _ = moved(0, 2.0)
    exported = average.export(model)
    assert list(exported) == list(model.state_dict())
    assert all(torch.equal(exported[name], value) for name, value in model.state_dict().items())


def test_buffers_are_those_of_the_model():
    model, average, _ = moved(4, 2.0)
    exported = average.export(model)
    assert exported["1.running_mean"].tolist() == [4.0, 4.0]
    assert set(exported) == set(model.state_dict())
    model[1].running_mean.add_(1.0)
    assert exported["1.running_mean"].tolist() == [4.0, 4.0]  # a copy


def test_it_goes_on_from_its_state_to_the_bit():
    model, average, _ = moved(3, 2.0)
    other = Average(model, 2.0)
    other.restore(average.state())
    with torch.no_grad():
        model[0].weight.add_(0.3)
    average.take(model)
    other.take(model)
    first, second = average.export(model), other.export(model)
    assert all(torch.equal(first[name], second[name]) for name in first)
    fresh = Average(model, 2.0)
    fresh.take(model)
    assert not torch.equal(fresh.export(model)["0.weight"], first["0.weight"])
