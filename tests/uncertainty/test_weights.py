"""The weight term against explicit Jacobians, and 8-bit rounding against networks that were rounded."""

import math

import pytest
import torch
from torch import nn

from robustode.data import load_data
from robustode.errors import OptionError
from robustode.models import load_model, wrap
from robustode.models.layered import Layered
from robustode.models.snode import SNODE
from robustode.uncertainty import DepthWeights, IIDWeights, RoundedWeights, int8, propagate
from robustode.uncertainty.linear import weight_covariance
from robustode.uncertainty.sweep import window
from tests.problems import random_conv_snode, random_points, random_snode

ONE = DepthWeights(variance=(0.1,))


class Residual(nn.Module):
    """A small residual network with normalisation, as users have."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Linear(3 * 12, 4)

    def forward(self, x):
        h = torch.tanh(self.norm(self.conv(x)))
        return self.head((h + x).flatten(1))


def explicit(model, x, variances):
    """Σ_θ G_θ var_θ G_θᵀ with every entry of G_θ from autograd."""
    total = 0
    for name, parameter in model.named_parameters():
        rows = [[torch.autograd.grad(z, parameter, retain_graph=True)[0] for z in model(one)[0]] for one in x.split(1)]
        gradient = torch.stack([torch.stack(row) for row in rows])
        variance = variances[name]
        variance = variance.reshape(-1, *([1] * (parameter.dim() - 1))) if variance.dim() else variance
        total = total + torch.einsum("bkp,bjp->bkj", (gradient * variance).flatten(2), gradient.flatten(2))
    return total.detach()


def models():
    yield "euler, 4 knots", random_snode(scale=2.0)
    yield "euler, 8 knots", random_snode(scale=2.0, knots=8)
    yield "euler, a knot a step", random_snode(scale=2.0, knots=12)
    yield "one knot", random_snode(scale=1.0, knots=1)
    yield "midpoint", random_snode(scale=2.0, method="midpoint", knots=5)
    yield "rk4", random_snode(scale=2.0, method="rk4", steps=6, knots=5)
    yield "relu", random_snode(scale=2.0, activation="relu", knots=12)
    yield "coarse view", random_snode(scale=2.0, knots=12).at_steps(5)
    yield "convolutional", random_conv_snode(scale=2.0)
    yield "convolutional, midpoint, patches", random_conv_snode(scale=2.0, patch=2, channels=9, method="midpoint")
    yield "layered", Layered(input_shape=(1, 3, 4), classes=4, steps=5, knots=5, horizon=2.0).double().eval()
    residual = Residual().double()
    yield "residual", wrap(residual, bounds=(0, 1), input_shape=(1, 3, 4))
    yield "adaptive", random_snode(scale=1.0).with_solver(method="dopri5", rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, _ in models()])
@pytest.mark.parametrize("noise", [IIDWeights(sigma=0.3), int8()], ids=["iid", "int8"])
def test_weight_term_is_that_of_the_explicit_jacobian(name, noise):
    model = dict(models())[name]
    x = random_points(model.input_shape, 3)
    expected = explicit(model, x, noise.variances(model))
    found = propagate(model, x, weight_cov=noise).cov
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))
    assert float(expected.abs().max()) > 0


def test_both_ways_of_the_sweep_are_used():
    assert window(random_snode(knots=12).flow) == 1
    assert window(random_snode(knots=8).flow) * 4 <= 12 < window(random_snode(knots=4).flow) * 4


def test_variance_of_one_knot_only():
    model = random_snode(scale=2.0, knots=6)
    x = random_points(model.input_shape, 2)
    noise = DepthWeights(variance=(0, 0, 0.5, 0, 0, 0))
    found = propagate(model, x, weight_cov=noise).cov
    assert torch.allclose(found, explicit(model, x, noise.variances(model)), rtol=1e-10)
    whole = propagate(model, x, weight_cov=DepthWeights(variance=[0.5] * 6)).cov
    assert torch.allclose(whole, propagate(model, x, weight_cov=IIDWeights(sigma=0.5**0.5)).cov, rtol=1e-12)
    assert float(found.diagonal(dim1=1, dim2=2).sum()) < 0.6 * float(whole.diagonal(dim1=1, dim2=2).sum())


def test_inner_depths_are_those_of_a_shorter_net():
    """At depth t_n, the weight term is that of a run that ends there."""
    model = random_snode(scale=2.0, steps=6, knots=6, horizon=1.5)
    x = random_points(model.input_shape, 2)
    along = propagate(model, x, weight_cov=int8(), input_cov=0.01, along_depth=True).along
    assert along is not None
    config = {"input_shape": (1, 3, 4), "classes": 4, "steps": 4, "knots": 4, "horizon": 1.0}
    shorter = Layered(**config).double()
    with torch.no_grad():
        shorter.weight.copy_(model.weight[:4])
        shorter.bias.copy_(model.bias[:4])
    assert torch.allclose(along.cov[:, 4], propagate(shorter, x, weight_cov=int8(), input_cov=0.01).cov, rtol=1e-10)


def rounded(values, bits, generator, offsets):
    """Really round a tensor to grids of the step that `bits` give, at random offsets of the given shape."""
    step = (values.max() - values.min()) / (2**bits - 1)
    offset = step * torch.rand(offsets, generator=generator, dtype=values.dtype)
    return torch.round((values - offset) / step) * step + offset if float(step) else values


def variance_of_rounded(model, x, draws):
    """Variance of the logits over networks rounded to 8 bits, each entry at an offset of its own."""
    g, knots, found = torch.Generator().manual_seed(0), isinstance(model, SNODE), []
    for _ in range(draws):
        parameters = {}
        for name, p in model.named_parameters():
            parts = [rounded(k.detach(), 8, g, k.shape) for k in (p if knots else p[None])]
            parameters[name] = torch.stack(parts).reshape(p.shape)
        with torch.no_grad():
            found.append(torch.func.functional_call(model, parameters, (x,)))
    return torch.stack(found).var(0)


@pytest.mark.parametrize("name", ["euler, a knot a step", "residual"])
def test_rounding_of_every_weight_at_an_offset_of_its_own(name):
    torch.manual_seed(0)
    model, draws = dict(models())[name], 800
    x = random_points(model.input_shape, 4)
    predicted = propagate(model, x, weight_cov=int8()).cov.diagonal(dim1=1, dim2=2)
    ratio = variance_of_rounded(model, x, draws) / predicted
    assert float((ratio - 1).abs().max()) < 4.5 * math.sqrt(2 / draws)
    coarse = propagate(model, x, weight_cov=RoundedWeights(bits=4)).cov.diagonal(dim1=1, dim2=2)
    assert torch.allclose(coarse / predicted, torch.tensor((255 / 15) ** 2, dtype=torch.float64), rtol=1e-9)


@pytest.mark.parametrize("name", ["snode", "layered"])
def test_rounding_of_a_trained_network_as_it_is_done(name):
    """One grid for each tensor, with zero on it: over samples and classes, the change is as large as predicted."""
    model = load_model(f"zoo:{name}-digits").double()
    x = load_data("digits", split="test", limit=60).x.double()
    parameters = {}
    for key, p in model.named_parameters():
        steps = (p.detach().flatten(1).amax(1) - p.detach().flatten(1).amin(1)) / 255
        steps = steps.reshape(-1, *([1] * (p.dim() - 1)))
        parameters[key] = torch.round(p.detach() / steps) * steps
    with torch.no_grad():
        change = torch.func.functional_call(model, parameters, (x,)) - model(x)
    predicted = propagate(model, x, weight_cov=int8()).cov.diagonal(dim1=1, dim2=2)
    assert float((change.square() / predicted).mean().sqrt()) == pytest.approx(1.0, abs=0.25)


def test_drawn_weights_have_the_stated_moments():
    model = random_snode(knots=3)
    g = torch.Generator().manual_seed(0)
    for noise in (int8(), DepthWeights(variance=(0.1, 0.0, 0.4)), IIDWeights(sigma=0.2)):
        draws = [noise.draw(model, g)["weight"] - model.weight.detach() for _ in range(300)]
        deviation = torch.stack(draws).flatten(2)
        variance = noise.variances(model)["weight"].expand(3)
        assert torch.allclose(deviation.square().mean((0, 2)), variance, rtol=0.03)
        assert float(deviation.mean().abs()) < 4 * float(variance.mean() / deviation.numel()) ** 0.5
        if isinstance(noise, RoundedWeights):
            assert bool((deviation.abs().amax((0, 2)) <= (3 * variance).sqrt() * (1 + 1e-6)).all())


def test_a_model_of_frozen_or_unused_parameters():
    model = dict(models())["residual"].requires_grad_(False)
    model.module.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
    x = random_points(model.input_shape, 2)
    variances = IIDWeights(sigma=0.1).variances(model)
    found = weight_covariance(model, x, variances)
    assert float(found.diagonal(dim1=1, dim2=2).min()) > 0
    assert all(p.grad is None and not p.requires_grad for n, p in model.named_parameters() if n != "module.unused")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IIDWeights(sigma=-0.1), "sigma of the weights: expected a finite number ≥ 0, got -0.1"),
        (lambda: IIDWeights(sigma=float("nan")), "sigma of the weights"),
        (lambda: DepthWeights(variance=(0.1, -1.0)), "variance of the weights: .* got -1.0"),
        (lambda: RoundedWeights(bits=0), "bits: expected a whole number from 1 to 32, got 0"),
        (
            lambda: DepthWeights(variance=(0.1,)).variances(random_snode()),
            "expected 4 variances, one for each knot, got 1",
        ),
        (
            lambda: DepthWeights(variance=(0.1,)).variances(nn.Linear(2, 2)),
            "expected an sNODE or layered model, got Linear",
        ),
        (lambda: int8().variances(nn.Identity()), "expected a model with parameters, got Identity without any"),
        (lambda: int8().variances(torch.tanh), "weight_cov: expected a torch.nn.Module"),  # type: ignore[arg-type]
    ],
)
def test_bad_weight_noise(make, message):
    with pytest.raises(OptionError, match=message):
        make()
