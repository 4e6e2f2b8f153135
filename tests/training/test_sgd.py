"""SGD and Adam: steps against the formulas, in depth too, every module and every activation."""

import math

import pytest
import torch

from robustode.errors import TrainingError
from robustode.models.layered import Layered
from robustode.models.resnet import ResNet
from robustode.solvers.activations import ACTIVATIONS
from robustode.training.cost import Cost
from robustode.training.fit import fit
from robustode.training.measure import evaluate
from robustode.training.ncg import NCGConfig
from robustode.training.sgd import SGDConfig
from robustode.training.sobolev import Sobolev
from tests.problems import random_affine, random_conv_snode, random_points, random_snode
from tests.training.problems import data, snode


def test_steps_are_nesterov_momentum_on_a_cosine():
    model = random_affine(classes=3, input_shape=(4,))
    x, y = random_points((4,), 9), torch.arange(9) % 3
    trainer = SGDConfig(learning_rate=0.5, momentum=0.8).trainer(model, 4)
    weight, velocity = model.weight.detach().clone(), 0.0
    bias, pull = model.bias.detach().clone(), 0.0
    for step in range(4):
        rate = 0.25 * (1 + math.cos(math.pi * step / 4))
        gap = ((x @ weight.t() + bias).softmax(1) - torch.eye(3, dtype=torch.float64)[y]) / 9
        gw, gb = gap.t() @ x, gap.sum(0)
        velocity, pull = 0.8 * velocity + gw, 0.8 * pull + gb
        weight, bias = weight - rate * (gw + 0.8 * velocity), bias - rate * (gb + 0.8 * pull)
        trainer.step(x, y)
    assert torch.allclose(model.weight, weight, rtol=1e-12)
    assert torch.allclose(model.bias, bias, rtol=1e-12)


def test_gradient_includes_every_term_of_the_cost():
    model, twin = random_snode(input_shape=(6,)), random_snode(input_shape=(6,))
    x, y = random_points((6,), 9), torch.arange(9) % 4
    cost = Cost(mu1=0.7, mu2=1.3, mu3=0.9, mu4=0.4, mu5=0.3)
    trainer = NCGConfig(cost=cost).trainer(twin, 1)
    gradient = trainer.gradient(trainer.at(twin.encode(x), y), y)
    before = model.weight.detach().clone()
    report = SGDConfig(learning_rate=0.1, momentum=0.0, cost=cost).trainer(model, 1).step(x, y)
    assert torch.allclose(before - model.weight, 0.1 * gradient[:, :-6].reshape(before.shape), rtol=1e-9)
    assert report.terms.as_dict() == pytest.approx(trainer.at(twin.encode(x), y).terms.as_dict())
    assert report.terms.weights > 0


@pytest.mark.parametrize("method", ["sgd", "adam"])
@pytest.mark.parametrize("kind", ["layered", "resnet"])
def test_learns_clusters(method, kind):
    shape = (1, 4, 4)
    train, test = data(shape=shape), data(shape=shape, seed=1)
    model = (
        Layered(input_shape=shape, classes=3, steps=6)
        if kind == "layered"
        else ResNet(input_shape=shape, classes=3, width=4)
    )
    rate = {("sgd", "layered"): 0.5, ("sgd", "resnet"): 0.1}.get((method, kind), 0.01)
    config = SGDConfig(method=method, epochs=15, batch=20, learning_rate=rate)
    result = fit(model, train, recipe=config, test=test)
    assert result.train_accuracy == 1.0
    assert result.test_accuracy is not None
    assert result.test_accuracy > 0.95
    assert result.cost["total"] < 0.5 * float(result.history[0]["loss"] or 0)
    assert not model.training


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "sdg"}, "unknown training method: expected one of adam, sgd, got 'sdg'. Did you mean 'sgd'"),
        ({"learning_rate": 0.0}, "training option learning_rate: expected a finite number > 0, got 0.0"),
        ({"momentum": 1.0}, "training option momentum: expected a finite number ≥ 0 and < 1, got 1.0"),
        ({"weight_decay": -1}, "training option weight_decay: expected a finite number ≥ 0, got -1"),
        ({"batch": 0}, "training option batch: expected a whole number ≥ 1, got 0"),
    ],
)
def test_bad_options(values, message):
    with pytest.raises(TrainingError, match=message):
        SGDConfig(**values)


@pytest.mark.parametrize("cost", [Cost(mu3=1.0), Cost(mu4=1.0), Cost(mu5=1.0)])
def test_depth_terms_need_depth(cost):
    message = r"cost: expected an sNODE or layered model for mu3, mu4 or mu5, got Affine. Set mu3 = mu4 = mu5 = 0."
    with pytest.raises(TrainingError, match=message):
        SGDConfig(cost=cost).trainer(random_affine(), 1)


def gradients(model, x, y):
    """The Euclidean gradients of the cost by autograd, by name."""
    loss = torch.nn.functional.cross_entropy(model(x), y)
    return dict(zip(("weight", "bias"), torch.autograd.grad(loss, (model.weight, model.bias)), strict=True))


@pytest.mark.parametrize("make", [random_snode, random_conv_snode], ids=["dense", "convolutional"])
@pytest.mark.parametrize("length", [0.0, 0.4, 2.0])
def test_length_puts_the_sobolev_gradient_in_place_of_the_euclidean(make, length):
    model = make()
    x, y = random_points(model.input_shape, 9), torch.arange(9) % model.classes
    euclidean = gradients(model, x, y)
    before = {name: getattr(model, name).detach().clone() for name in euclidean}
    SGDConfig(learning_rate=0.25, momentum=0.0, length=length).trainer(model, 1).step(x, y)
    sobolev = Sobolev(len(model.bias), model.horizon, length)
    for name, g in euclidean.items():
        expected = before[name] - 0.25 * sobolev.gradient(g)
        assert torch.allclose(getattr(model, name), expected, rtol=0, atol=1e-12)
        assert (getattr(model, name) - before[name]).abs().max() > 1e-4
        if length == 0:
            expected = before[name] - 0.25 * len(model.bias) / model.horizon * g
            assert torch.allclose(getattr(model, name), expected, rtol=0, atol=1e-12)


def test_length_acts_before_weight_decay_and_adam():
    x, y = random_points((6,), 9), torch.arange(9) % 4
    model = random_snode(input_shape=(6,))
    smooth = Sobolev(4, model.horizon, 0.4).gradient(gradients(model, x, y)["weight"])
    before = model.weight.detach().clone()
    SGDConfig(learning_rate=0.1, momentum=0.0, length=0.4, weight_decay=0.5).trainer(model, 1).step(x, y)
    assert torch.allclose(model.weight, before - 0.1 * (smooth + 0.5 * before), rtol=0, atol=1e-12)
    model = random_snode(input_shape=(6,))
    SGDConfig(method="adam", learning_rate=0.1, length=0.4).trainer(model, 1).step(x, y)
    assert torch.allclose(model.weight, before - 0.1 * smooth / (smooth.abs() + 1e-8), rtol=0, atol=1e-9)


def test_length_needs_depth():
    message = "^Sobolev gradient: expected an sNODE or layered model, got ResNet. Leave length out.$"
    with pytest.raises(TrainingError, match=message):
        SGDConfig(length=1.0).trainer(ResNet(input_shape=(1, 4, 4), classes=3, width=4), 1)
    with pytest.raises(TrainingError, match="training option length: expected a finite number ≥ 0, got -1"):
        SGDConfig(length=-1)


@pytest.mark.parametrize("method", ["sgd", "adam"])
def test_averaging_exports_the_exponential_mean_of_the_weights(method):
    model, x, y = random_affine(classes=3, input_shape=(4,)), random_points((4,), 9), torch.arange(9) % 3
    trainer = SGDConfig(method=method, epochs=2, averaging=0.5).trainer(model, 8)  # 4 mini-batches an epoch: τ = 2
    seen = []
    for _ in range(5):
        trainer.step(x, y)
        seen.append(model.weight.detach().clone())
    factors = [math.exp(-(4 - i) / 2) for i in range(5)]
    mean = sum(f * weight for f, weight in zip(factors, seen, strict=True)) / sum(factors)
    assert torch.allclose(trainer.export()["weight"], mean, rtol=1e-12)
    assert torch.equal(model.weight, seen[-1])


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize(
    "config",
    [
        NCGConfig(epochs=1, batch=20),
        SGDConfig(epochs=1, batch=20, learning_rate=0.3),
        SGDConfig(method="adam", epochs=1, batch=20, learning_rate=0.02),
    ],
    ids=["ncg", "sgd", "adam"],
)
def test_one_epoch_lowers_the_cost_with_every_activation(name, config):
    model, samples = snode(activation=name, seed=4), data(n=240)
    before = evaluate(model, samples, config.cost)[1].total
    result = fit(model, samples, recipe=config)
    assert result.cost["total"] < 0.99 * before
