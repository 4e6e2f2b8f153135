"""Every method on a linear field, where mean and covariance are known; semidefiniteness on any net."""

import pytest
import torch
from torch import Tensor

from robustode.models.snode import SNODE
from robustode.uncertainty import DepthWeights, IIDWeights, LowRank, int8, propagate
from tests.problems import random_affine, random_conv_snode, random_points, random_snode

EXACT = ["linear", "gaussian", "unscented", "auto"]


def linear_field(**config) -> SNODE:
    return random_snode(scale=0.7, activation="identity", **config)


def propagators(model: SNODE) -> list[Tensor]:
    """∂x(t_n)/∂x(0) of Euler's method with identity activation: Π (I + h W_n)."""
    found = [torch.eye(model.weight.shape[-1], dtype=torch.float64)]
    for n in range(model.steps):
        weight, _ = model.flow.parameters(n, 0)
        found.append((found[0] + model.flow.step * weight.detach()) @ found[-1])
    return found


def covariances(d: int) -> dict[str, tuple]:
    g = torch.Generator().manual_seed(5)
    root = torch.randn(d, d, generator=g, dtype=torch.float64)
    eye = torch.eye(d, dtype=torch.float64)
    return {
        "isotropic": (0.04, 0.04 * eye),
        "diagonal": (root[0].square(), torch.diag(root[0].square())),
        "shaped": (root[0].square().reshape(1, 3, 4), torch.diag(root[0].square())),
        "full": (root @ root.t(), root @ root.t()),
        "low rank": (LowRank(root[:, :2]), root[:, :2] @ root[:, :2].t()),
    }


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("kind", ["isotropic", "diagonal", "shaped", "full", "low rank"])
def test_input_noise_of_a_linear_field_at_every_depth(method, kind):
    model = linear_field(steps=8, knots=4, foreground=-2.0)
    x = random_points(model.input_shape, 3)
    cov, full = covariances(12)[kind]
    out = propagate(model, x, input_cov=cov, method=method, along_depth=True)
    assert out.along is not None
    states = torch.stack([s[:, :4] for s in model.flow.states(model.encode(x))], 1)
    assert torch.allclose(out.along.mean, states, atol=1e-12)
    for n, power in enumerate(propagators(model)):
        rows = power[:4] * model.encoding_scale
        assert torch.allclose(out.along.cov[:, n], (rows @ full @ rows.t()).expand(3, -1, -1), rtol=1e-9, atol=1e-12)
    assert torch.equal(out.along.cov[:, -1], out.cov)
    assert torch.equal(out.along.mean[:, -1], out.mean)
    assert out.along.depth.tolist() == pytest.approx([0.25 * n for n in range(9)])
    alone = propagate(model, x, input_cov=cov, method=method)
    assert alone.along is None
    assert torch.allclose(alone.cov, out.cov, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("method", EXACT)
def test_matrix_exponential(method):
    model = linear_field(steps=60, knots=1, method="rk4", horizon=1.5)
    power = torch.matrix_exp(1.5 * model.weight[0].detach())[:4] * model.encoding_scale
    found = propagate(model, random_points(model.input_shape, 2), input_cov=0.09, method=method).cov
    assert torch.allclose(found, (0.09 * power @ power.t()).expand(2, -1, -1), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize(("knots", "shared"), [(1, 1.0), (6, 1 / 6)])
def test_weight_noise_in_closed_form(method, knots, shared):
    """With W = 0 and b = 0, x(T) = x₀ + ∫ (δW x₀ + δb): variance T² (v ‖x₀‖² + v), over as many knots as are apart."""
    model = SNODE(input_shape=(5,), classes=3, steps=6, knots=knots, activation="identity", horizon=1.5).double()
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
    x = random_points((5,), 4)
    size = model.encode(x).square().sum(1)
    expected = 1.5**2 * shared * 0.01 * (size + 1)
    out = propagate(model, x, weight_cov=IIDWeights(sigma=0.1), method=method, along_depth=True)
    assert torch.allclose(out.cov, expected[:, None, None] * torch.eye(3), rtol=1e-12)
    assert out.along is not None
    depth = torch.arange(7, dtype=torch.float64) / 6
    growth = depth**2 if knots == 1 else depth / 6
    inner = out.along.cov[:, :, 0, 0]
    assert torch.allclose(inner, 1.5**2 * 0.01 * (size + 1)[:, None] * growth, rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize("method", EXACT)
def test_both_noises_add_and_depths_differ(method):
    model = linear_field(steps=6, knots=6)
    x = random_points(model.input_shape, 3)
    weights = DepthWeights(variance=(0.0, 0.0, 0.03, 0.0, 0.01, 0.0))
    parts = [
        propagate(model, x, method=method, **noise).cov for noise in ({"input_cov": 0.01}, {"weight_cov": weights})
    ]
    both = propagate(model, x, input_cov=0.01, weight_cov=weights, method=method)
    assert torch.allclose(both.cov, parts[0] + parts[1], rtol=1e-10)
    expected, powers = torch.zeros(3, 4, 4, dtype=torch.float64), propagators(model)
    states = list(model.flow.states(model.encode(x)))
    for k, variance in ((2, 0.03), (4, 0.01)):
        later = (powers[-1] @ torch.linalg.inv(powers[k + 1]))[:4] * model.flow.step
        expected += variance * (states[k].square().sum(1) + 1)[:, None, None] * (later @ later.t())
    assert torch.allclose(parts[1], expected, rtol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_covariance_is_symmetric_and_semidefinite(seed):
    """Random nets, saturated too, in both precisions, all methods and kinds of noise."""
    g = torch.Generator().manual_seed(seed)
    scale = 0.5 + 4 * float(torch.rand((), generator=g))
    dtype = torch.float32 if seed % 2 else torch.float64
    dense = random_snode(scale=scale, seed=seed, dtype=dtype, knots=(3, 12)[seed % 2])
    conv = random_conv_snode(scale=scale, seed=seed, dtype=dtype)
    affine = random_affine(classes=10, input_shape=(2,), dtype=dtype, seed=seed)
    for model in (dense, conv, affine):
        x = random_points(model.input_shape, 2, seed=seed, dtype=dtype)
        factor = torch.randn(x[0].numel(), 2, generator=g)
        methods = ["linear", "unscented", "auto", "monte-carlo", *(["gaussian"] if model is dense else [])]
        for method in methods:
            for noise in ({"input_cov": LowRank(factor)}, {"input_cov": 0.3, "weight_cov": int8()}):
                drawn = {"draws": 5, "generator": g}
                cov = propagate(model, x, method=method, along_depth=model is not affine, **noise, **drawn)
                found = cov.cov if cov.along is None else torch.cat([cov.cov, cov.along.cov.flatten(0, 1)])
                assert found.dtype == torch.float64
                assert torch.equal(found, found.mT)
                values = torch.linalg.eigvalsh(found)
                assert bool((values[:, 0] >= -1e-13 * values[:, -1].clamp_min(1e-30)).all())
                assert float(values.max()) > 0
