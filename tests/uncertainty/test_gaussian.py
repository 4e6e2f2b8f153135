"""Propagated uncertainty against closed forms and Monte Carlo with its error."""

import math

import pytest
import torch
from scipy.stats import norm as normal

from robustode import sensitivity
from robustode.errors import OptionError
from robustode.uncertainty import DrawnUncertainty, Uncertainty, propagate
from tests.problems import random_affine, random_points, random_snode


def test_affine_propagation_is_exact():
    model = random_affine()
    x = random_points(model.input_shape, 5)
    g = torch.Generator().manual_seed(3)
    root = torch.randn(12, 12, generator=g, dtype=torch.float64)
    for cov, full in (
        (0.04, 0.04 * torch.eye(12, dtype=torch.float64)),
        (root[0].square().reshape(1, 3, 4), torch.diag(root[0].square())),
        (root @ root.t(), root @ root.t()),
    ):
        out = propagate(model, x, input_cov=cov)
        expected = model.weight @ full @ model.weight.t()
        assert torch.allclose(out.cov, expected.detach().expand(5, -1, -1), rtol=1e-10)
        assert torch.allclose(out.mean, model(x), atol=1e-13)


def test_snode_covariance_is_j_sigma_jt():
    model = random_snode(scale=2.0)
    x = random_points(model.input_shape, 4)
    rows = sensitivity.jacobian(model, x).flatten(2)
    assert torch.allclose(propagate(model, x, input_cov=0.01).cov, 0.01 * rows @ rows.transpose(1, 2), atol=1e-14)


def test_two_classes_in_closed_form():
    model = random_affine(classes=2)
    x = random_points(model.input_shape, 6)
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    sigma = 0.3
    z = model(x).detach()
    margin = (z[:, 0] - z[:, 1]) * torch.tensor([1, -1, 1, -1, 1, -1])
    spread = sigma * (model.weight[0] - model.weight[1]).norm().detach()
    expected = normal.cdf((margin / spread).numpy())
    assert propagate(model, x, input_cov=sigma**2).p_correct(y).numpy() == pytest.approx(expected, abs=1e-12)


def test_orthant_of_independent_components():
    # z_0 fixed at 0 and the others independent N(-1, s²): P(correct) = Φ(1/s)^(K-1)
    classes, s = 5, 0.8
    mean = torch.full((1, classes), -1.0, dtype=torch.float64)
    mean[0, 0] = 0.0
    cov = s**2 * torch.eye(classes, dtype=torch.float64)[None]
    cov[0, 0, 0] = 0.0
    p = Uncertainty(mean=mean, cov=cov).p_correct(torch.tensor([0]))
    assert float(p) == pytest.approx(normal.cdf(1 / s) ** (classes - 1), abs=5e-4)
    equal = Uncertainty(mean=torch.zeros(1, 10).double(), cov=torch.eye(10).double()[None])
    assert float(equal.p_correct(torch.tensor([3]))) == pytest.approx(0.1, abs=5e-4)


def draw(model, x, *, sigma, draws, seed=0) -> DrawnUncertainty:
    """Monte Carlo of input noise."""
    generator = torch.Generator().manual_seed(seed)
    found = propagate(model, x, input_cov=sigma**2, method="monte-carlo", draws=draws, generator=generator)
    assert isinstance(found, DrawnUncertainty)
    return found


def test_prediction_agrees_with_monte_carlo_where_the_model_is_linear():
    model = random_affine(classes=4)
    x = random_points(model.input_shape, 30)
    y = model(x).argmax(1)
    p, error = draw(model, x, sigma=0.5, draws=4000).probability(y)
    predicted = propagate(model, x, input_cov=0.25).p_correct(y)
    assert 0.5 < float(p.mean()) < 0.99
    assert abs(float(predicted.mean() - p.mean())) < 4 * float(error.square().sum().sqrt()) / 30 + 5e-4
    assert ((predicted - p).abs() < 5 * error.clamp_min(1 / 4000) + 1e-3).all()


def test_standard_error_covers_repeats():
    model = random_affine(classes=3)
    x = random_points(model.input_shape, 8)
    y = model(x).argmax(1)
    found = [draw(model, x, sigma=0.5, draws=100, seed=i).probability(y) for i in range(200)]
    spread = float(torch.stack([p.mean() for p, _ in found]).std())
    stated = float(torch.stack([error.square().sum().sqrt() / 8 for _, error in found]).mean())
    assert spread == pytest.approx(stated, rel=0.2)


def test_no_noise_gives_zero_or_one():
    model = random_affine()
    x = random_points(model.input_shape, 6)
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 4
    p = propagate(model, x, input_cov=0.0).p_correct(y)
    assert p.tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_singular_covariance_in_single_precision():
    """Ten classes of two features: J Σ Jᵀ has rank two, and rounding must not make it indefinite."""
    model = random_affine(classes=10, input_shape=(2,), dtype=torch.float32)
    x = random_points((2,), 20, dtype=torch.float32)
    y = model(x).argmax(1)
    found = propagate(model, x, input_cov=0.25)
    assert (found.mean.dtype, found.cov.dtype) == (torch.float32, torch.float64)
    predicted = found.p_correct(y)
    drawn = draw(model, x, sigma=0.5, draws=4000).p_correct(y)
    assert float((predicted - drawn).abs().max()) < 5 * 0.5 / math.sqrt(4000)
    rounded = Uncertainty(mean=found.mean, cov=found.cov.float())
    assert torch.allclose(rounded.p_correct(y), predicted, atol=2e-3)


def test_noise_on_two_coordinates_only():
    model = random_affine(classes=10, dtype=torch.float32)
    x = random_points(model.input_shape, 10, dtype=torch.float32)
    y = model(x).argmax(1)
    variances = torch.zeros(12)
    variances[[2, 7]] = 0.25
    predicted = propagate(model, x, input_cov=variances).p_correct(y)
    noise = 0.5 * torch.randn(4000, 1, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = model(x) + noise @ model.weight[:, [2, 7]].t()
    drawn = (z.argmax(2) == y).double().mean(0)
    assert float((predicted - drawn).abs().max()) < 5 * 0.5 / math.sqrt(4000)
    assert 0.3 < float(drawn.min()) < 0.95


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rank_one_covariance_of_any_precision(dtype):
    model = random_affine(input_shape=(200,))
    root = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=dtype)
    cov = torch.outer(root, root)
    cov[0, 1] *= 1 + torch.finfo(dtype).eps
    found = propagate(model, random_points((200,), 2), input_cov=cov)
    along = (model.weight @ root.double()).detach()
    size = float(torch.outer(along, along).abs().max())
    assert torch.allclose(
        found.cov, torch.outer(along, along).expand(2, -1, -1), atol=1e3 * torch.finfo(dtype).eps * size
    )


def test_an_answer_of_nan_is_no_class():
    class Nan(type(random_affine())):
        def forward(self, x):
            z = super().forward(x)
            return torch.where(x.flatten(1)[:, :1] < 0, torch.nan, z)

    plain = random_affine()
    model = Nan(plain.weight.detach(), plain.bias.detach(), plain.input_shape)
    x = random_points(model.input_shape, 4)
    y = plain(x).argmax(1)
    x[1].view(-1)[0] = -1.0
    got = propagate(model, x, input_cov=1e-12).p_correct(y)
    assert got.tolist() == [1.0, 0.0, 1.0, 1.0]
    for label in range(model.classes):
        labels = torch.full((4,), label)
        assert float(draw(model, x, sigma=1e-6, draws=2).p_correct(labels)[1]) == 0.0
        assert float(propagate(model, x, input_cov=1e-12).p_correct(labels)[1]) == 0.0


def test_first_order_in_sigma():
    """For a smooth model the error of the covariance falls with σ: a ratio of draws to prediction goes to one."""
    model = random_snode(scale=1.5)
    x = random_points(model.input_shape, 1)
    g = torch.Generator().manual_seed(0)
    errors = []
    for sigma in (0.5, 0.02):
        noise = torch.randn(20_000, *model.input_shape, generator=g, dtype=torch.float64)
        with torch.no_grad():
            z = model(x + sigma * noise)
        predicted = propagate(model, x, input_cov=sigma**2).cov[0].diagonal()
        errors.append(float((z.var(0) / predicted - 1).abs().max()))
    assert errors[1] < 5 * math.sqrt(2 / 20_000)
    assert errors[0] > 2 * errors[1]


@pytest.mark.parametrize(
    ("cov", "message"),
    [
        (-1.0, "variances ≥ 0"),
        (float("nan"), "finite values"),
        (torch.ones(5), r"got shape \(5,\)"),
        (-torch.eye(12), "negative eigenvalue"),
        (torch.triu(torch.ones(12, 12)), "symmetric"),
    ],
)
def test_bad_covariance(cov, message):
    model = random_affine()
    with pytest.raises(OptionError, match=message):
        propagate(model, random_points(model.input_shape, 1), input_cov=cov)


def test_bad_arguments():
    model = random_affine()
    x = random_points(model.input_shape, 2)
    with pytest.raises(OptionError, match="unknown method of uncertainty propagation"):
        propagate(model, x, input_cov=1.0, method="lineer")
    with pytest.raises(OptionError, match="labels y"):
        propagate(model, x, input_cov=1.0).p_correct(torch.tensor([0, 9]))
    with pytest.raises(OptionError, match="draws: expected at least 2, got 1"):
        draw(model, x, sigma=0.1, draws=1)
