"""The log norms in training: an upper bound, the maximum of its definition, its gradient, and what training gains."""

import copy
from itertools import product

import pytest
import torch

from robustode.errors import TrainingError
from robustode.solvers.activations import LEAK
from robustode.training.cost import Cost
from robustode.training.fit import fit
from robustode.training.log_norm import DepthLogNorm
from robustode.training.measure import evaluate
from robustode.training.ncg import NCGConfig
from robustode.training.sgd import SGDConfig
from tests.problems import random_conv_snode, random_points, random_snode
from tests.training.problems import data, snode

RANGES = {"tanh": (0.0, 1.0), "sigmoid": (0.0, 0.25), "leaky_relu": (LEAK, 1.0), "identity": (1.0, 1.0)}


def draw(*shape, seed=0, skew=0.0):
    """Random matrices; with `skew` = 1 skew-symmetric ones."""
    w = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return w - skew * (w + w.mT) / 2


def least_over_balances(w, low, high):
    """min over λ of the largest eigenvalue of c (W + Wᵀ)/2 + r/2 (λ + WᵀW/λ), by a fine grid in log λ."""
    c, r = (low + high) / 2, (high - low) / 2
    eye = torch.eye(len(w), dtype=w.dtype)
    scales = torch.linalg.matrix_norm(w, 2) * torch.logspace(-3, 0.1, 4000, dtype=w.dtype)
    forms = c * (w + w.T) / 2 + r / 2 * (scales[:, None, None] * eye + w.T @ w / scales[:, None, None])
    return float(torch.linalg.eigvalsh(forms)[:, -1].min())


@pytest.mark.parametrize("activation", RANGES)
@pytest.mark.parametrize("skew", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_least_over_lambda_and_above_every_vertex(activation, skew, seed):
    low, high = RANGES[activation]
    weight = draw(3, 7, 7, seed=seed, skew=skew)
    values = DepthLogNorm(activation)(weight).values.tolist()
    for w, value in zip(weight, values, strict=True):
        assert value == pytest.approx(least_over_balances(w, low, high), rel=1e-5)
        vertices = torch.tensor(list(product((low, high), repeat=7)), dtype=torch.float64)
        parts = vertices[:, :, None] * w
        exact = float(torch.linalg.eigvalsh((parts + parts.mT) / 2)[:, -1].max())
        assert exact <= value + 1e-12
        assert exact > 0.5 * value


@pytest.mark.parametrize("activation", RANGES)
@pytest.mark.parametrize("skew", [0.0, 0.5, 0.95])
def test_gradient_is_that_of_finite_differences_and_of_autograd(activation, skew):
    weight, d, h = draw(4, 9, 9, skew=skew).requires_grad_(), draw(4, 9, 9, seed=7), 1e-6
    norm = DepthLogNorm(activation)
    found = norm(weight)
    (auto,) = torch.autograd.grad(found.values.square().sum(), weight)
    gradient = found.gradient
    ends = [norm(weight.detach() + step * d).values for step in (-h, h)]
    assert torch.allclose(auto, 2 * found.values.detach()[:, None, None] * gradient, rtol=0, atol=1e-12)
    difference, slope = (ends[1] - ends[0]) / (2 * h), (gradient * d).sum((1, 2))
    assert torch.allclose(found.along(d), slope, rtol=0, atol=1e-13)
    assert torch.allclose(difference, slope, rtol=1e-6, atol=1e-8)
    assert slope.abs().min() > 1e-3


@pytest.mark.parametrize("activation", ["tanh", "leaky_relu"])
def test_an_orthogonal_change_of_basis_leaves_it(activation):
    weight = draw(2, 8, 8)
    q = torch.linalg.qr(draw(8, 8, seed=5))[0]
    own, turned = (DepthLogNorm(activation)(w).values for w in (weight, q @ weight @ q.T))
    assert torch.allclose(own, turned, rtol=1e-9)
    assert torch.allclose(3 * own, DepthLogNorm(activation)(3 * weight).values, rtol=1e-9)


def test_known_values():
    skew = draw(1, 6, 6, skew=1.0)
    assert float(DepthLogNorm("identity")(skew).values) == pytest.approx(0.0, abs=1e-12)
    assert float(DepthLogNorm("tanh")(skew).values) == pytest.approx(float(torch.linalg.matrix_norm(skew, 2)) / 2)
    shrink = -torch.diag(torch.arange(1.0, 6.0, dtype=torch.float64))[None]
    assert float(DepthLogNorm("identity")(shrink).values) == pytest.approx(-1.0)
    # the largest of (√(Σ d² v²) − Σ d v²) / 2 has v in the ends of the spectrum
    share = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    largest = float(((1 + 24 * share).sqrt() - 1 - 4 * share).max() / 2)
    assert float(DepthLogNorm("tanh")(shrink).values) == pytest.approx(largest, rel=1e-8)
    equal = -3 * torch.eye(5, dtype=torch.float64)[None]
    assert float(DepthLogNorm("tanh")(equal).values) == pytest.approx(0.0, abs=1e-9)
    assert float(DepthLogNorm("sigmoid")(-shrink).values) == pytest.approx(5 / 4)
    assert DepthLogNorm("tanh")(torch.zeros(2, 4, 4)).values.tolist() == [0.0, 0.0]


def test_a_start_nearby_leads_to_the_same_as_a_fresh_one():
    weight, change = draw(5, 30, 30), 1e-2 * draw(5, 30, 30, seed=3)
    norm = DepthLogNorm("tanh")
    norm(weight)
    assert torch.allclose(norm(weight + change).values, DepthLogNorm("tanh")(weight + change).values, rtol=1e-9)
    single = DepthLogNorm("tanh")(weight.float()).values.double()
    assert torch.allclose(single, DepthLogNorm("tanh")(weight).values, rtol=2e-3)


def test_values_that_are_not_finite_end_the_search():
    weight = draw(2, 5, 5)
    weight[1, 2, 2] = torch.nan
    assert torch.isnan(DepthLogNorm("tanh")(weight).values).all()


@pytest.mark.parametrize("method", ["ncg", "sgd", "adam"])
def test_every_trainer_reports_the_term(method):
    model = random_snode(input_shape=(6,))
    x, y = random_points((6,), 9), torch.arange(9) % 4
    values = DepthLogNorm("tanh")(model.weight.detach()).values
    config = NCGConfig(cost=Cost(mu5=0.3)) if method == "ncg" else SGDConfig(method=method, cost=Cost(mu5=0.3))
    report = config.trainer(model, 1).step(x, y)
    expected = 0.15 * model.horizon / len(values) * float(values.square().sum())
    assert report.terms.log_norm == pytest.approx(expected, rel=1e-9)
    assert report.terms.total == pytest.approx(report.terms.cross_entropy + expected, rel=1e-9)


@pytest.mark.parametrize("config", [NCGConfig(cost=Cost(mu5=0.3)), SGDConfig(method="adam", cost=Cost(mu5=0.3))])
def test_a_restored_trainer_goes_on_to_the_bit(config):
    model, twin = (random_snode(input_shape=(6,)) for _ in range(2))
    x, y = random_points((6,), 9), torch.arange(9) % 4
    first, second = (config.trainer(m, 3) for m in (model, twin))
    first.step(x, y)
    twin.load_state_dict(model.state_dict())
    second.restore(copy.deepcopy(first.state()))
    assert first.step(x, y) == second.step(x, y)
    assert torch.equal(model.weight, twin.weight)


@pytest.mark.parametrize(
    "config",
    [NCGConfig(epochs=8, batch=20), SGDConfig(method="adam", epochs=20, batch=20, learning_rate=0.05)],
    ids=["ncg", "adam"],
)
def test_training_with_it_lowers_the_integral_at_equal_epochs(config):
    integrals, accuracies = [], []
    for mu5 in (0.0, 0.1):
        model = snode()
        result = fit(model, data(), recipe=config.replace(cost=Cost(mu5=mu5)), seed=1)
        integrals.append(model.horizon * float(DepthLogNorm("tanh")(model.weight.detach()).values.mean()))
        accuracies.append(result.train_accuracy)
    assert integrals[1] < 0.8 * integrals[0]
    assert min(accuracies) > 0.95


def test_the_whole_data_set_has_the_term_once():
    model, cost = snode(), Cost(mu5=0.3)
    samples = data(n=30)
    terms = evaluate(model, samples, cost)[1]
    assert terms.log_norm == pytest.approx(evaluate(model, data(n=9), cost)[1].log_norm, rel=1e-9)
    assert terms.log_norm > 1e-3


@pytest.mark.parametrize("config", [NCGConfig(cost=Cost(mu5=0.1)), SGDConfig(cost=Cost(mu5=0.1))], ids=["ncg", "sgd"])
def test_kernels_have_no_such_log_norm(config):
    message = (
        r"^cost: expected a dense sNODE or layered model for mu5, got ConvSNODE, whose weights are kernels. Set mu5"
    )
    with pytest.raises(TrainingError, match=message):
        config.trainer(random_conv_snode(), 1)
