"""How far each method can be trusted: order in σ, curvature, saturation, Monte Carlo errors, the flag."""

import importlib
import math

import numpy as np
import pytest
import torch
from scipy.stats import norm as normal

from robustode.errors import OptionError
from robustode.models.snode import SNODE
from robustode.solvers.activations import activation
from robustode.uncertainty import (
    DrawnUncertainty,
    IIDWeights,
    LowRank,
    Uncertainty,
    disagreement,
    int8,
    propagate,
)
from robustode.uncertainty.closure import averaged
from tests.problems import random_affine, random_conv_snode, random_points, random_snode


def plane_net(scale=1.5, **config) -> SNODE:
    """A smooth sNODE of two inputs and two classes."""
    return random_snode(scale=scale, input_shape=(2,), classes=2, steps=10, knots=5, foreground=-1.0, **config)


def quadrature(model, x, root, nodes=48):
    """Mean and covariance of the logits by the Gauss–Hermite product rule, for noise root ξ of two inputs."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    grid = torch.cartesian_prod(torch.tensor(points), torch.tensor(points))
    weight = torch.tensor(np.outer(weights, weights).reshape(-1) / (2 * math.pi))
    with torch.no_grad():
        z = model((x[:, None] + grid @ root.t()).flatten(0, 1)).unflatten(0, (len(x), -1))
    mean = (weight[:, None] * z).sum(1)
    off = z - mean[:, None]
    return mean, (weight[:, None, None] * off[..., None] * off[..., None, :]).sum(1)


def test_error_of_the_linear_covariance_falls_with_slope_two():
    model, x = plane_net(), random_points((2,), 6)
    sigmas = np.array([0.01, 0.02, 0.04, 0.08])
    errors = []
    for sigma in sigmas:
        _, reference = quadrature(model, x, sigma * torch.eye(2, dtype=torch.float64))
        found = propagate(model, x, input_cov=sigma**2).cov
        errors.append(float((found - reference).norm() / reference.norm()))
    slope = np.polyfit(np.log(sigmas), np.log(errors), 1)[0]
    assert slope == pytest.approx(2.0, abs=0.1)
    assert errors[-1] > 1e-3  # it is no rounding


def test_sigma_points_and_closure_improve_on_the_linear_method():
    """A saturating tanh net: both see the curvature, mean and covariance."""
    model, x = plane_net(2.5), random_points((2,), 12)
    root = torch.tensor([[0.25, 0.0], [0.1, 0.2]], dtype=torch.float64)
    mean, cov = quadrature(model, x, root)
    errors = {}
    for method in ("linear", "gaussian", "unscented"):
        found = propagate(model, x, input_cov=root @ root.t(), method=method)
        errors[method] = (float((found.mean - mean).norm()), float((found.cov - cov).norm() / cov.norm()))
    for method in ("gaussian", "unscented"):
        assert errors[method][0] < 0.4 * errors["linear"][0]
        assert errors[method][1] < 0.7 * errors["linear"][1]
    assert errors["linear"][1] > 0.05


def test_one_saturated_layer_by_closure():
    """One Euler step from a Gaussian state has its exact mean, where tanh is flat at the centre."""
    model = SNODE(input_shape=(2,), classes=2, steps=1, horizon=1.0, foreground=1.0).double()
    with torch.no_grad():
        model.weight.copy_(8 * torch.eye(2, dtype=torch.float64)[None])
        model.bias.fill_(-8.0)
    x = torch.full((1, 2), 1.6, dtype=torch.float64)
    found = propagate(model, x, input_cov=0.25, method="gaussian")
    points, weights = np.polynomial.hermite_e.hermegauss(200)
    exact = 1.6 + float((weights * np.tanh(8 * (1.6 + 0.5 * points) - 8)).sum()) / math.sqrt(2 * math.pi)
    assert found.mean[0].tolist() == pytest.approx([exact] * 2, abs=2e-2)
    assert abs(1.6 + math.tanh(4.8) - exact) > 0.2


class Quadratic(torch.nn.Module):
    """z = J δ + ½ Σ_j h_j (u_j·δ)² c_j at 0, with orthonormal u_j that are the rows' own directions."""

    bounds, classes = (0.0, 1.0), 3

    def __init__(self, d, separable=True):
        super().__init__()
        g = torch.Generator().manual_seed(4)
        u = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64)).Q
        left = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64)).Q
        self.jacobian = left @ torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)) @ u[:, :3].t()
        self.hessians = []
        for _ in range(3):
            h = torch.randn(d, d, generator=g, dtype=torch.float64)
            self.hessians.append(u @ torch.diag(h.diagonal()) @ u.t() if separable else (h + h.t()) / 2)
        self.input_shape = (d,)

    def forward(self, x):
        curved = torch.stack([((x @ h) * x).sum(1) / 2 for h in self.hessians], dim=1)
        return x @ self.jacobian.t() + curved

    def moments(self, sigma):
        linear = sigma**2 * self.jacobian @ self.jacobian.t()
        mean = torch.stack([h.trace() for h in self.hessians]) * sigma**2 / 2
        pairs = torch.tensor([[float((a @ b).trace()) for b in self.hessians] for a in self.hessians])
        return mean, linear + pairs.double() * sigma**4 / 2


@pytest.mark.parametrize("d", [3, 7])
def test_sigma_points_are_exact_for_quadratics(d):
    x = torch.zeros(2, d, dtype=torch.float64)
    mean, cov = Quadratic(d).moments(0.3)
    found = propagate(Quadratic(d), x, input_cov=0.09, method="unscented")
    if d == 3:  # the directions are those of J, in which the quadratic has no products
        assert torch.allclose(found.cov, cov.expand(2, -1, -1), rtol=1e-6)
    assert torch.allclose(found.mean, mean.expand(2, -1), rtol=1e-9)
    mixed = propagate(Quadratic(d, separable=False), x, input_cov=0.09, method="unscented")
    assert torch.allclose(mixed.mean, Quadratic(d, separable=False).moments(0.3)[0].expand(2, -1), rtol=1e-9)


def test_many_inputs_by_sigma_points():
    """60 inputs and 3 classes: the mean is shifted by all directions, of which the most are sampled."""
    d, sigma = 60, 0.1
    model = Quadratic(d)
    model.hessians = [torch.eye(d, dtype=torch.float64) * c for c in (1.0, -2.0, 0.5)]  # the same in every direction
    x = torch.zeros(1, d, dtype=torch.float64)
    mean, cov = model.moments(sigma)
    found = propagate(model, x, input_cov=sigma**2, method="unscented")
    assert torch.allclose(found.mean[0], mean, rtol=1e-9)
    assert float((found.cov[0] - cov).norm() / cov.norm()) < 0.02
    linear = propagate(model, x, input_cov=sigma**2)
    assert float(mean.norm()) > 0.5
    assert float(linear.mean.abs().max()) == 0.0


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "softplus", "identity"])
def test_averaged_activation(name):
    mean, std = torch.linspace(-2, 2, 9).double(), torch.linspace(0.0, 1.5, 9).double()
    value, slope = averaged(activation(name), mean, std)
    g = torch.Generator().manual_seed(0)
    a = mean + std * torch.randn(200_000, 9, generator=g, dtype=torch.float64)
    z = activation(name).apply(a)
    error = 5 * z.std(0) / math.sqrt(200_000)
    kink = 0.0 if activation(name).smooth else 0.02
    assert bool(((value - z.mean(0)).abs() <= error + 1e-6 + kink).all())
    expected = activation(name).slope(z).mean(0)
    assert torch.allclose(slope, expected, atol=5e-3 + 3 * kink)


def drawn_problems():
    yield "affine", random_affine(), 0.5
    yield "linear field", random_snode(scale=0.7, activation="identity"), 0.3
    yield "low rank", random_affine(), LowRank(torch.randn(12, 2, generator=torch.Generator().manual_seed(1)).double())
    yield "smooth net", plane_net(2.5), 0.3


@pytest.mark.parametrize("name", [name for name, *_ in drawn_problems()])
def test_monte_carlo_within_its_standard_error(name):
    _, model, noise = next(problem for problem in drawn_problems() if problem[0] == name)
    x = random_points(model.input_shape, 8)
    cov = noise if isinstance(noise, LowRank) else noise**2
    if name == "smooth net":
        mean, exact = quadrature(model, x, noise * torch.eye(2, dtype=torch.float64))
    else:
        reference = propagate(model, x, input_cov=cov)
        mean, exact = reference.mean, reference.cov
    scores = []
    for seed in range(6):
        g = torch.Generator().manual_seed(seed)
        found = propagate(model, x, input_cov=cov, method="monte-carlo", draws=2000, generator=g)
        assert isinstance(found, DrawnUncertainty)
        scores.append(((found.mean - mean) / found.mean_error).flatten())
        scores.append(((found.cov - exact) / found.cov_error).flatten())
    z = torch.cat(scores)
    assert float(z.abs().max()) < 5
    assert 0.7 < float(z.square().mean().sqrt()) < 1.3
    spread = propagate(model, x, input_cov=cov, method="monte-carlo", draws=8000, generator=g)  # type: ignore[possibly-unbound]
    assert isinstance(spread, DrawnUncertainty)
    assert float((found.mean_error / spread.mean_error).mean()) == pytest.approx(2.0, rel=0.1)  # type: ignore


def test_monte_carlo_of_the_weights_and_both():
    model = random_snode(scale=0.7, activation="identity", knots=12)
    x = random_points(model.input_shape, 3)
    noise = {"weight_cov": IIDWeights(sigma=0.01), "input_cov": 0.01**2}
    for draw in (noise, {"weight_cov": IIDWeights(sigma=0.01)}, {"weight_cov": int8()}):
        exact = propagate(model, x, **draw)
        g = torch.Generator().manual_seed(0)
        found = propagate(model, x, method="monte-carlo", draws=1500, generator=g, along_depth=True, **draw)
        assert isinstance(found, DrawnUncertainty)
        assert float(((found.cov - exact.cov) / found.cov_error).abs().max()) < 5
        inner = propagate(model, x, along_depth=True, **draw).along
        assert inner is not None
        assert found.along is not None
        assert torch.allclose(found.along.cov[:, 6], inner.cov[:, 6], atol=0.25 * float(inner.cov[:, 6].abs().max()))


def test_draws_are_those_of_the_generator():
    model, x = random_snode(), random_points((1, 3, 4), 2)
    a, b, c = (
        propagate(
            model, x, input_cov=0.1, method="monte-carlo", draws=50, generator=torch.Generator().manual_seed(seed)
        ).mean
        for seed in (0, 0, 1)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_drawn_probability():
    model = random_affine(classes=4)
    x = random_points(model.input_shape, 30)
    y = model(x).argmax(1)
    g = torch.Generator().manual_seed(0)
    found = propagate(model, x, input_cov=0.25, method="monte-carlo", draws=3000, generator=g)
    p, error = found.probability(y)
    exact = propagate(model, x, input_cov=0.25).probability(y)
    assert float(((p - exact.value) / (error + exact.error + 1e-3)).abs().max()) < 5
    assert torch.allclose(error, (p * (1 - p) / 2999).sqrt())
    gaussian = Uncertainty(mean=found.mean, cov=found.cov).p_correct(y)
    assert torch.allclose(gaussian, exact.value, atol=0.05)


def test_the_flag():
    """Little noise: all linear; much noise: sigma points where the two disagree, and the flag says where."""
    model, x = plane_net(2.5), random_points((2,), 40)
    calm = propagate(model, x, input_cov=1e-6, method="auto")
    assert bool(calm.linear_valid.all())  # type: ignore
    assert torch.equal(calm.cov, propagate(model, x, input_cov=1e-6).cov)
    cov = 0.15**2
    found = propagate(model, x, input_cov=cov, method="auto")
    linear, sigma = (propagate(model, x, input_cov=cov, method=m) for m in ("linear", "unscented"))
    valid = found.linear_valid  # type: ignore
    assert 0 < int(valid.sum()) < len(x)
    assert torch.equal(found.disagreement, disagreement(linear, sigma))  # type: ignore
    assert torch.equal(valid, found.disagreement <= 0.1)  # type: ignore
    for flag, source in ((valid, linear), (~valid, sigma)):
        assert torch.equal(found.mean[flag], source.mean[flag])
        assert torch.equal(found.cov[flag], source.cov[flag])
    mean, exact = quadrature(model, x, 0.15 * torch.eye(2, dtype=torch.float64))
    truth = disagreement(linear, Uncertainty(mean=mean, cov=exact))
    assert float((truth[valid] <= 0.12).double().mean()) == 1.0
    assert float((truth[~valid] > 0.08).double().mean()) == 1.0
    error = [(part.cov - exact).flatten(1).norm(dim=1) for part in (linear, sigma)]
    assert float(error[0][~valid].mean()) > 3 * float(error[1][~valid].mean())


def test_disagreement_by_hand():
    mean = torch.tensor([[3.0, 1.0, 0.0]] * 3).double()
    cov = torch.eye(3).double().expand(3, -1, -1)
    wider = cov * torch.tensor([1.0, 1.0, 4.0])[:, None, None]
    other = Uncertainty(mean=mean + torch.tensor([0.0, 0.5, 0.0]), cov=wider)
    found = disagreement(Uncertainty(mean=mean, cov=cov), other)
    shift = 0.5 / math.sqrt(2)
    assert found.tolist() == pytest.approx([shift, shift, 1.0])
    still = Uncertainty(mean=mean, cov=cov * 0)
    assert disagreement(still, still).tolist() == [0.0] * 3
    assert disagreement(still, other).min() > 1e6


def test_chunks_do_not_change_the_result(monkeypatch):
    module = importlib.import_module("robustode.uncertainty.propagate")  # the name is that of the function too
    model, x = random_snode(scale=2.0), random_points((1, 3, 4), 7)
    for method in ("linear", "gaussian", "unscented", "auto"):
        noise = {"input_cov": 0.04, "weight_cov": int8(), "method": method, "along_depth": True}
        whole = propagate(model, x, **noise)
        with monkeypatch.context() as patch:
            patch.setattr(module, "CHUNK_BYTES", 1)
            parts = propagate(model, x, **noise)
        assert torch.allclose(whole.cov, parts.cov, rtol=1e-9, atol=1e-14)
        assert whole.along is not None
        assert parts.along is not None
        assert torch.allclose(whole.along.mean, parts.along.mean, rtol=1e-9)
        assert torch.equal(whole.along.depth, parts.along.depth)


def test_closure_only_for_dense_nets():
    for model in (random_conv_snode(), random_affine(), random_snode().with_solver(method="dopri5")):
        x = random_points(model.input_shape, 1)
        with pytest.raises(OptionError, match=r"'gaussian': expected a dense sNODE .* Use 'unscented' or 'linear'"):
            propagate(model, x, input_cov=0.1, method="gaussian")


def test_two_class_probability_has_no_error():
    model = random_affine(classes=2)
    x = random_points(model.input_shape, 6)
    p, error = propagate(model, x, input_cov=0.09).probability(torch.zeros(6, dtype=torch.int64))
    z = model(x).detach()
    spread = 0.3 * float((model.weight[0] - model.weight[1]).detach().norm())
    assert p.numpy() == pytest.approx(normal.cdf(((z[:, 0] - z[:, 1]) / spread).numpy()), abs=1e-14)
    assert error.tolist() == [0.0] * 6
