"""Wrapping a user's module: normalisation exactly once, facts found by a forward pass, and every misfit said."""

import copy

import pytest
import torch
from torch import nn

from robustode.errors import ModelError
from robustode.models import Classifier, WrappedModel, wrap
from robustode.models.normalise import PRESETS, normalisation, preset
from robustode.models.resnet import ResNet


def linear(shape=(2, 3, 3), classes=4, dtype=torch.float32):
    features = torch.Size(shape).numel()
    module = nn.Sequential(nn.Flatten(), nn.Linear(features, classes)).to(dtype)
    values = torch.randn(classes * (features + 1), generator=torch.Generator().manual_seed(3), dtype=dtype)
    nn.utils.vector_to_parameters(values, module.parameters())
    return module


class Returns(nn.Module):
    """A module whose output is a function of its input."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def error(module, **options):
    with pytest.raises(ModelError) as caught:
        wrap(module, **{"bounds": (0, 1), "input_shape": (2, 3, 3), **options})
    return str(caught.value)


def test_facts_come_from_the_sample_and_the_forward_pass():
    module = linear().train()
    model = wrap(module, bounds=(0, 255), sample=torch.rand(1, 2, 3, 3))
    assert isinstance(model, WrappedModel)
    assert isinstance(model, Classifier)
    assert (model.bounds, model.classes, model.input_shape) == ((0.0, 255.0), 4, (2, 3, 3))
    assert model.module is module
    assert not module.training
    assert not model.training
    x = torch.rand(5, 2, 3, 3)
    assert torch.equal(model(x), module(x))


def test_normalisation_per_channel_in_front():
    module, x = linear(), torch.rand(5, 2, 3, 3)
    model = wrap(module, bounds=(0, 1), input_shape=(2, 3, 3), mean=[0.1, 0.2], std=[0.5, 2.0])
    by_hand = torch.stack(((x[:, 0] - 0.1) / 0.5, (x[:, 1] - 0.2) / 2.0), dim=1)
    torch.testing.assert_close(model(x), module(by_hand))
    torch.testing.assert_close(wrap(model, mean=0.3)(x), module((x - 0.3) / torch.tensor([0.5, 2.0]).reshape(2, 1, 1)))
    scalar = wrap(module, bounds=(0, 1), input_shape=(2, 3, 3), std=4)
    torch.testing.assert_close(scalar(x), module(x / 4))


def test_normalisation_of_points_is_per_coordinate():
    module, x = linear((2,), 3), torch.rand(5, 2)
    model = wrap(module, bounds=(0, 1), input_shape=(2,), mean=(0.1, 0.2), std=(1.0, 2.0))
    torch.testing.assert_close(model(x), module((x - torch.tensor([0.1, 0.2])) / torch.tensor([1.0, 2.0])))


def test_wrapping_again_normalises_once():
    module, x = linear(), torch.rand(5, 2, 3, 3)
    model = wrap(module, bounds=(0, 1), input_shape=(2, 3, 3), mean=0.5, std=0.25)
    assert wrap(model) is model
    wider = wrap(model, bounds=(-1, 1))
    assert isinstance(wider, WrappedModel)
    assert wider.module is module
    assert wider.bounds == (-1.0, 1.0)
    assert torch.equal(wider(x), model(x))
    assert model.bounds == (0.0, 1.0)


def test_own_model_passes_through_and_refuses_options():
    model = ResNet(input_shape=(1, 8, 8), classes=3).train()
    assert wrap(model) is model
    assert not model.training
    message = error(model)
    assert "options for a ResNet model: expected none: it carries its own bounds" in message
    assert "got bounds, input_shape. Leave out --bounds, --input-shape." in message


def test_attributes_are_used_and_arguments_override():
    module = linear()
    module.bounds, module.classes, module.input_shape = (-1, 1), 4, [2, 3, 3]
    model = wrap(module)
    assert (model.bounds, model.classes, model.input_shape) == ((-1.0, 1.0), 4, (2, 3, 3))
    assert wrap(module, bounds=(0, 1)).bounds == (0.0, 1.0)
    module.classes = 7
    assert "output of Sequential: expected 7 classes, got 4 logits per sample" in error(module)
    assert wrap(module, classes=4).classes == 4
    module.classes = ["cat", "dog", "bird", "fish"]
    assert wrap(module).classes == 4


def test_bounds_are_never_assumed():
    with pytest.raises(
        ModelError, match=r"bounds of Sequential are not known\. Give bounds=\(lo, hi\).*--bounds LO,HI"
    ):
        wrap(linear(), input_shape=(2, 3, 3))


@pytest.mark.parametrize("bounds", [(1, 0), (0, 0), (0, float("inf")), (float("nan"), 1)])
def test_bounds_must_be_ordered_and_finite(bounds):
    assert "bounds of Sequential: expected finite lo < hi, got (" in error(linear(), bounds=bounds)


@pytest.mark.parametrize("bounds", [(0,), (0, 1, 2), 3, "ab"])
def test_bounds_must_be_two_numbers(bounds):
    assert f"expected two numbers lo < hi, got {bounds!r}" in error(linear(), bounds=bounds)


def test_input_shape_errors():
    with pytest.raises(
        ModelError, match=r"input shape of Sequential is not known\. Give input_shape.*--input-shape C,H,W"
    ):
        wrap(linear(), bounds=(0, 1))
    assert "expected positive sizes such as (1, 28, 28), got (2, 0, 3)" in error(linear(), input_shape=(2, 0, 3))
    assert "expected positive sizes" in error(linear(), input_shape="abc")
    message = error(linear(), sample=torch.rand(1, 1, 8, 8))
    assert "input of Sequential: expected samples of shape (2, 3, 3), got (1, 8, 8)" in message
    assert "sample: expected shape (1, *input_shape), got (4,)" in error(linear(), sample=torch.rand(4))


def test_module_that_fails_keeps_its_message():
    message = error(linear(), input_shape=(2, 4, 4))
    assert "Sequential fails on an input of shape (1, 2, 4, 4): got RuntimeError: mat1 and mat2" in message
    assert "Check the input shape (--input-shape)" in message
    assert "model: expected a torch.nn.Module, got function" in error(lambda x: x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"mean": [0.1, 0.2, 0.3]},
            "normalisation mean: expected 1 value or 2, one per channel of (2, 3, 3), got 3 val",
        ),
        ({"std": [1.0, 0.0]}, "normalisation std: expected positive values, got [1.0, 0.0]"),
        ({"std": -1}, "normalisation std: expected positive values, got [-1.0]"),
        ({"mean": float("nan")}, "normalisation mean: expected finite values, got [nan]"),
        ({"std": float("inf")}, "normalisation std: expected finite values, got [inf]"),
        ({"mean": "grey"}, "normalisation mean: expected a number or one per channel, got 'grey'"),
    ],
)
def test_bad_statistics(options, message):
    assert message in error(linear(), **options)


def test_presets_fit_their_channels():
    for name, (mean, std) in PRESETS.items():
        means, stds = normalisation(mean, std, (len(mean), 4, 4))
        assert means.shape == stds.shape == (len(mean), 1, 1)
        assert preset(name) == (mean, std)
    with pytest.raises(ModelError, match=r"unknown normalisation: expected one of cifar10.*Did you mean 'mnist'\?"):
        preset("mnst")


def test_output_choice_is_applied_and_described():
    inner = linear()
    module = Returns(lambda x: {"scores": inner(x), "x": x})
    assert "got dict (scores: tensor (1, 4), x: tensor (1, 2, 3, 3)). Choose with --output: scores" in error(module)
    x = torch.rand(3, 2, 3, 3)
    model = wrap(module, bounds=(0, 1), input_shape=(2, 3, 3), output="scores")
    assert model.classes == 4
    assert torch.equal(model(x), inner(x))


def test_single_column_as_binary():
    inner, x = linear(classes=1), torch.rand(3, 2, 3, 3)
    assert "Choose with --output: binary" in error(inner)
    model = wrap(inner, bounds=(0, 1), input_shape=(2, 3, 3), output="binary")
    assert model.classes == 2
    assert torch.equal(model(x), torch.cat((torch.zeros(3, 1), inner(x)), dim=1))


@pytest.mark.parametrize(
    "function",
    [lambda x: x.flatten(1).mean(0, keepdim=True), lambda x: x.flatten(1).T[:, :1].T, lambda x: x.flatten(1)[:1]],
)
def test_a_batch_that_is_lost_only_for_two_is_found(function):
    message = error(Returns(function))
    assert "output of Returns for a batch of 2: expected (2, 18), got tensor (1, 18)" in message
    assert "Keep the batch on the first axis" in message


def test_eval_mode_during_the_forward_pass():
    module = nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.Dropout(0.9), nn.Linear(18, 3))
    before = copy.deepcopy(module.state_dict())
    wrap(module.train(), bounds=(0, 1), input_shape=(2, 3, 3))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_probe_leaves_the_global_random_stream_alone():
    module = Returns(lambda x: x.flatten(1) + torch.randn(x.shape[0], 18))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    wrap(module, bounds=(0, 1), input_shape=(2, 3, 3))
    assert torch.equal(torch.rand(3), expected)


def test_float64_module_takes_float64_input():
    module = linear(dtype=torch.float64)
    model = wrap(module, bounds=(0, 1), sample=torch.rand(1, 2, 3, 3), mean=0.5, std=0.1)
    x = torch.rand(2, 2, 3, 3, dtype=torch.float64)
    assert model(x).dtype == torch.float64
    torch.testing.assert_close(model(x), module((x - 0.5) / 0.1), rtol=1e-14, atol=1e-14)
    assert model.double() is model


def test_parameters_keep_their_gradients():
    module = linear()
    model = wrap(module, bounds=(0, 1), input_shape=(2, 3, 3), mean=0.5)
    assert all(p.requires_grad for p in module.parameters())
    x = torch.rand(2, 2, 3, 3, requires_grad=True)
    model(x)[:, 0].sum().backward()
    torch.testing.assert_close(x.grad, module[1].weight[0].reshape(1, 2, 3, 3).expand(2, -1, -1, -1))
