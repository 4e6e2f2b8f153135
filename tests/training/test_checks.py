"""What must hold before training starts, and the messages where it does not."""

import math

import pytest
import torch

from robustode.errors import ModelError, TrainingError
from robustode.models.layered import Layered
from robustode.models.resnet import ResNet
from robustode.solvers.activations import ACTIVATIONS
from robustode.training.checks import check_reachable, check_training_data
from robustode.training.cost import Cost
from robustode.training.fit import fit
from robustode.training.ncg import NCGConfig
from robustode.training.sgd import SGDConfig
from tests.training.problems import data, snode

MISMATCH = Cost(mu1=1.0, mu2=0.0)
UNREACHABLE = (
    r"cost with mu1 > 0 and activation 'sigmoid': expected encoded inputs at or below their one-hot targets "
    r"\(sigmoid is nonnegative: as x' = σ\(W x \+ b\) ≥ 0, no component of the state can decrease in depth\), "
    r"got a component that starts at 0\.\d+ with target 0\. Use tanh or another signed activation, an encoding with "
    r"background and foreground ≤ 0, or mu1 = 0\."
)
UPWARDS = {"background": 0.0, "foreground": 1.0}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nonnegative_activations_cannot_come_down_to_a_target(activation):
    refused = activation in ("sigmoid", "relu", "srelu", "softplus")
    model = snode(activation=activation, **UPWARDS)
    assert model.flow.activation.nonnegative is refused
    if not refused:
        check_reachable(model, data(), MISMATCH)
        return
    with pytest.raises(TrainingError, match=f"{activation} is nonnegative"):
        check_reachable(model, data(), MISMATCH)


def test_no_component_of_the_state_decreases_with_a_nonnegative_activation():
    for activation in (name for name, sigma in ACTIVATIONS.items() if sigma.nonnegative):
        model = snode(activation=activation, **UPWARDS)
        start = model.encode(data().x.double())
        assert (model.flow.forward(start) >= start).all()
    model = snode(activation="tanh", **UPWARDS)
    assert (model.flow.forward(start) < start).any()


def test_reachable_costs_and_encodings_pass():
    downwards = snode(activation="sigmoid")  # to 0 and −1
    check_reachable(downwards, data(), Cost(mu1=1.0))
    upwards = snode(activation="sigmoid", **UPWARDS)
    check_reachable(upwards, data(), Cost())  # cross entropy has no target in x(T)
    check_reachable(ResNet(input_shape=(1, 4, 4), classes=3, width=4), data(shape=(1, 4, 4)), MISMATCH)


def test_the_data_decide_not_the_encoding():
    model = snode(activation="sigmoid", **UPWARDS)
    blank = data(x=torch.zeros(60, 6))
    check_reachable(model, blank, MISMATCH)
    x = torch.zeros(60, 6)
    x[torch.arange(60), torch.arange(60) % 3] = 1.0  # every component at its target
    check_reachable(model, data(x=x), MISMATCH)
    x[59, 5] = 0.25
    with pytest.raises(TrainingError, match=r"starts at 0\.25 with target 0\."):
        check_reachable(model, data(x=x), MISMATCH)
    with pytest.raises(TrainingError, match=r"starts at 2 with target 1\."):
        check_reachable(snode(activation="sigmoid", background=0.0, foreground=2.0), data(x=x.round()), MISMATCH)


@pytest.mark.parametrize("config", [NCGConfig(batch=20, cost=MISMATCH), SGDConfig(batch=20, cost=MISMATCH)])
def test_fit_refuses_unreachable_targets(config):
    layered = Layered(input_shape=(6,), classes=3, steps=4, activation="sigmoid", **UPWARDS)
    for model in (snode(activation="sigmoid", **UPWARDS), layered):
        before = model.weight.detach().clone()
        with pytest.raises(TrainingError, match=UNREACHABLE):
            fit(model, data(), recipe=config)
        assert torch.equal(model.weight, before)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"horizon": 0.0}, r"sNODE configuration is not valid: horizon: Input should be greater than 0 \(got 0\.0\)"),
        ({"horizon": -1.0}, r"horizon: Input should be greater than 0 \(got -1\.0\)"),
        ({"horizon": math.nan}, r"horizon: Input should be .* \(got nan\)"),
        ({"horizon": math.inf}, r"horizon: Input should be a finite number \(got inf\)"),
        ({"steps": 3, "knots": 4}, r"steps: expected at least as many steps as knots \(4\), got 3"),
        ({"steps": 0}, r"steps: Input should be greater than or equal to 1 \(got 0\)"),
        ({"knots": 0}, r"knots: Input should be greater than or equal to 1 \(got 0\)"),
        ({"activation": "slerlu"}, r"unknown activation: .* Did you mean 'slrelu'\?"),
    ],
)
def test_networks_that_cannot_be(config, message):
    with pytest.raises(ModelError, match=message):
        snode(**config)


@pytest.mark.parametrize(
    ("changes", "batch", "message"),
    [
        (
            {},
            61,
            r"training option batch: expected at most the 60 samples of the data, got 61\. Set the batch to 60 or less "
            r"\(robustode train \.\.\. --set batch=60\)\.",
        ),
        (
            {"y": torch.full((60,), 2)},
            10,
            r"data 'clusters': expected samples of at least two classes, got only class 2",
        ),
    ],
)
def test_data_too_few_or_of_one_class(changes, batch, message):
    with pytest.raises(TrainingError, match=message):
        check_training_data(snode(), data(**changes), batch)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_data_that_are_not_finite(value):
    broken = data()
    broken.x[3, 2] = value  # after `Data` looked
    message = r"data 'clusters': expected finite inputs, got NaN or infinity\. Remove or repair them\."
    with pytest.raises(TrainingError, match=message):
        check_training_data(snode(), broken, 10)
