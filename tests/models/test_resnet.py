"""The convolutional ResNet: size, normalisation inside, reproducible weights, and configuration errors."""

import pytest
import torch

from robustode.errors import ModelError
from robustode.models import Classifier, architecture
from robustode.models.resnet import ResNet


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 14, 14), (1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("blocks", [(1,), (1, 1), (2, 1, 1)])
def test_shapes_and_round_trip_of_the_configuration(shape, blocks):
    model = ResNet(input_shape=shape, classes=7, width=4, blocks=blocks, bounds=(-1, 2), seed=3).eval()
    assert isinstance(model, Classifier)
    assert (model.bounds, model.classes, model.input_shape) == ((-1.0, 2.0), 7, shape)
    twin = architecture("resnet").from_config(model.config)
    assert twin.config == model.config
    twin.load_state_dict(model.state_dict())
    x = torch.rand(3, *shape)
    assert model(x).shape == (3, 7)
    assert torch.equal(twin.eval()(x), model(x))


def test_default_for_digits_is_small():
    model = ResNet(input_shape=(1, 8, 8), classes=10)
    assert 4 * sum(value.numel() for value in model.state_dict().values()) < 100_000


def test_stages_halve_the_image_and_double_the_channels():
    model = ResNet(input_shape=(1, 13, 8), classes=3, width=4, blocks=(1, 2, 1))
    shapes = []
    for stage in model.stages:
        stage.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape[1:])))
    model(torch.rand(2, 1, 13, 8))
    assert shapes == [(4, 13, 8), (8, 7, 4), (8, 7, 4), (16, 4, 2)]


def test_normalisation_is_inside():
    x = torch.rand(4, 3, 8, 8)
    model = ResNet(input_shape=(3, 8, 8), classes=3, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)).eval()
    plain = ResNet(input_shape=(3, 8, 8), classes=3, mean=(0.0,), std=(1.0,)).eval()
    mean, std = torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1), torch.tensor([0.5, 0.6, 0.7]).reshape(3, 1, 1)
    torch.testing.assert_close(model(x), plain((x - mean) / std))
    default = ResNet(input_shape=(3, 8, 8), classes=3, bounds=(0, 255)).eval()
    torch.testing.assert_close(default(x * 255), plain(x * 2 - 1))


def test_seed_alone_fixes_the_weights_and_the_global_stream_is_untouched():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first = ResNet(input_shape=(1, 8, 8), classes=3, seed=4).state_dict()
    assert torch.equal(torch.rand(2), expected)
    again = ResNet(input_shape=(1, 8, 8), classes=3, seed=4).state_dict()
    other = ResNet(input_shape=(1, 8, 8), classes=3, seed=5).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.0.weight"], other["stem.0.weight"])


def test_initial_weights_are_he_normal():
    model = ResNet(input_shape=(1, 8, 8), classes=10, width=64, blocks=(1,))
    weight = model.stages[0].conv1.weight
    assert float(weight.detach().std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert float(model.head.bias.detach().abs().max()) == 0


def test_a_sample_does_not_depend_on_its_batch_in_float64():
    model = ResNet(input_shape=(1, 8, 8), classes=5, seed=1).double().eval()
    x = torch.rand(6, 1, 8, 8, dtype=torch.float64)
    alone = torch.cat([model(row[None]) for row in x])
    torch.testing.assert_close(model(x), alone, rtol=1e-12, atol=1e-12)


def test_training_moves_it():
    model = ResNet(input_shape=(1, 8, 8), classes=2, width=4)
    y = torch.arange(16) % 2
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5
    x[y == 1, :, 4:] += 0.5
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(20):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    assert torch.equal(model.eval()(x).argmax(1), y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 1}, "classes: Input should be greater than or equal to 2 (got 1)"),
        ({"width": 0}, "width: Input should be greater than or equal to 1 (got 0)"),
        ({"blocks": ()}, "blocks: expected at least one block in each of one or more stages, got ()"),
        ({"blocks": (1, 0)}, "blocks: expected at least one block in each"),
        ({"blocks": (1,) * 5}, "blocks: expected at most 4 stages for images of 8x8"),
        ({"bounds": (1, 0)}, "bounds: expected finite lo < hi, got (1, 0)"),
        ({"input_shape": (2,)}, "expected images"),
        ({"input_shape": (1, 0, 8)}, "input_shape: expected positive sizes (channels, height, width), got (1, 0, 8)"),
        ({"depth": 3}, "depth: Extra inputs are not permitted (got 3)"),
        ({"std": (0.0,)}, "normalisation std: expected positive values"),
        ({"mean": (0.1, 0.2)}, "normalisation mean: expected 1 value or 1, one per channel"),
    ],
)
def test_bad_configuration(change, message):
    with pytest.raises(ModelError) as caught:
        ResNet(**{"input_shape": (1, 8, 8), "classes": 10, **change})
    assert message in str(caught.value)


def test_every_problem_is_named_at_once():
    with pytest.raises(ModelError, match=r"resnet configuration is not valid: classes: .*; width: "):
        ResNet(input_shape=(1, 8, 8), classes=0, width=0)


def test_images_of_another_size_are_refused():
    model = ResNet(input_shape=(1, 8, 8), classes=3)
    with pytest.raises(
        ModelError, match=r"input of resnet model: expected shape \(batch, 1, 8, 8\), got \(2, 1, 9, 9\)"
    ):
        model(torch.rand(2, 1, 9, 9))


def test_unknown_architecture():
    with pytest.raises(
        ModelError, match=r"unknown architecture: expected one of .*got 'resnt'\. Did you mean 'resnet'\?"
    ):
        architecture("resnt")


def test_points_are_not_images():
    with pytest.raises(ModelError, match=r"expected images \(channels, height, width\), got inputs of shape \(2,\)"):
        ResNet(input_shape=(2,), classes=2)
