"""The convolutional sNODE: its flow, gradients, encoding, checkpoint and configuration."""

import itertools
import math

import pytest
import torch
from torch.nn import functional

from robustode.errors import ModelError
from robustode.models import Classifier, architecture, load_checkpoint, save_checkpoint
from robustode.models.conv_snode import ConvSNODE
from robustode.solvers import flow as flow_module
from robustode.solvers.depth import interpolate
from robustode.solvers.tableau import TABLEAUX, tableau
from robustode.solvers.tape import ROWS
from tests.problems import random_conv_snode, random_points


def plain(model: ConvSNODE, x: torch.Tensor) -> torch.Tensor:
    """The logits of the network, written down plainly."""
    c, method = model.config, tableau(model.config["method"])
    lo, hi = c["bounds"]
    image = c["background"] + (x - lo) / (hi - lo) * (c["foreground"] - c["background"])
    p = c["patch"]
    patches = [image[:, k : k + 1, i::p, j::p] for k in range(image.shape[1]) for i in range(p) for j in range(p)]
    empty = torch.zeros_like(patches[0]).expand(-1, c["channels"] - len(patches), -1, -1)
    state = torch.cat([*patches, empty], dim=1)
    h = model.horizon / model.steps
    for n in range(model.steps):
        values = []
        for row, depth in zip(method.a, method.depth, strict=True):
            t = (n + depth) * h
            weight, bias = (interpolate(values_, t, model.horizon) for values_ in (model.weight, model.bias))
            stage = sum((h * a * k for a, k in zip(row, values, strict=True)), state)
            values.append(torch.tanh(functional.conv2d(stage, weight, bias, padding=c["kernel"] // 2)))
        state = sum((h * b * k for b, k in zip(method.b, values, strict=True)), state)
    return state.mean((2, 3))[:, : model.classes]


@pytest.mark.parametrize("method", TABLEAUX)
@pytest.mark.parametrize("config", [{"knots": 12}, {"knots": 3, "kernel": 5}, {"patch": 2, "channels": 9}])
def test_values_and_gradients_are_those_of_the_plain_network(method, config):
    model = random_conv_snode(method=method, bounds=(-1.0, 3.0), background=0.5, **config)
    x = random_points(model.input_shape, 5, lo=-1.0, hi=3.0).requires_grad_(True)
    w = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = plain(model, x)
    assert torch.allclose(model(x), expected, rtol=0, atol=1e-12)
    fused, autograd = (
        torch.autograd.grad((logits * w).sum(), (x, model.weight, model.bias)) for logits in (model(x), expected)
    )
    for a, b in zip(fused, autograd, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)
        assert b.abs().max() > 1e-3


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_order_of_convergence(method, order):
    model = random_conv_snode(method=method, knots=2, steps=8)
    x = random_points(model.input_shape, 3)
    with torch.no_grad():
        truth = model.at_steps(1024, "rk4").final_state(x)
        errors = [(model.at_steps(n).final_state(x) - truth).norm() for n in (32, 64, 128)]
    observed = [math.log2(float(a / b)) for a, b in itertools.pairwise(errors)]
    assert observed[-1] == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("method", TABLEAUX)
def test_segments_change_nothing_but_memory(method, monkeypatch):
    model = random_conv_snode(method=method, steps=17, knots=5)
    x = random_points(model.input_shape, 3).requires_grad_(True)

    def gradients():
        return torch.autograd.grad(model.final_state(x).square().sum(), (x, model.weight, model.bias))

    whole = gradients()
    stage_bytes = ROWS * 4 * 4 * 6 * 8 * 2 * TABLEAUX[method].stages
    monkeypatch.setattr(flow_module, "TAPE_BYTES", 4 * stage_bytes)
    _, tape = model.flow.record(model.encode(x).detach())
    assert len(tape.starts) == 3
    for a, b in zip(whole, gradients(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("config", [{}, {"patch": 2, "channels": 8}, {"input_shape": (2, 1, 1), "kernel": 1}])
def test_encoding_and_readout_have_the_stated_transposes(config):
    model = random_conv_snode(**config)
    g = torch.Generator().manual_seed(1)
    x = torch.randn(2, *model.input_shape, generator=g, dtype=torch.float64)
    state = torch.randn(model.encode(x).shape, generator=g, dtype=torch.float64)
    final = torch.randn(model.read(state).shape, generator=g, dtype=torch.float64)
    assert final.shape == (2, model.config["channels"])
    assert (model.lift(x) * state).sum() == pytest.approx(float((x * model.lift_transposed(state)).sum()), rel=1e-12)
    left = float((model.read(state) * final).sum())
    assert left == pytest.approx(float((state * model.read_transposed(final)).sum()), rel=1e-12)


def test_image_fills_the_first_channels_and_the_others_are_zero():
    model = ConvSNODE(input_shape=(1, 4, 4), classes=2, channels=6, patch=2, background=-1.0, foreground=1.0)
    x = torch.arange(16.0).view(1, 1, 4, 4) / 15
    state = model.encode(x)
    assert state.shape == (1, 6, 2, 2)
    assert torch.equal(state[0, :4, 0, 0], model.encode(x)[0, :4, 0, 0])
    torch.testing.assert_close(state[0, :4, 0, 0], torch.tensor([0.0, 1.0, 4.0, 5.0]) / 7.5 - 1)
    assert not state[:, 4:].any()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_a_sample_does_not_depend_on_its_batch(dtype, tolerance):
    model = random_conv_snode(scale=2.0, channels=5, dtype=dtype).requires_grad_(False)
    x = random_points(model.input_shape, 37, dtype=dtype)
    alone = torch.cat([model(row[None]) for row in x])
    torch.testing.assert_close(model(x), alone, rtol=0, atol=tolerance)


def test_checkpoint_round_trip(tmp_path):
    model = ConvSNODE(input_shape=(3, 4, 4), classes=7, channels=13, patch=2, steps=5, knots=2, bounds=(-1, 2), seed=3)
    assert isinstance(model, Classifier)
    path = save_checkpoint(model, tmp_path / "net.safetensors", data="images", provenance={"command": "c"})
    again = load_checkpoint(path)
    assert isinstance(again, ConvSNODE)
    assert again.config == model.config
    assert (again.bounds, again.classes, again.input_shape) == ((-1.0, 2.0), 7, (3, 4, 4))
    x = torch.rand(3, 3, 4, 4)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    assert architecture("conv-snode") is ConvSNODE


def test_at_steps_is_a_view_of_the_same_weights():
    model = random_conv_snode(steps=64)
    view = model.at_steps(16, "rk4")
    assert isinstance(view, ConvSNODE)
    assert view.weight is model.weight
    assert (view.nfe, model.nfe) == (64, 64)
    x = random_points(model.input_shape, 3)
    assert 1e-6 < (view(x) - model(x)).abs().max() < 0.1
    assert "4 channels, 3x3, 3 classes, tanh, T=2, 16 rk4 steps" in repr(view)


def test_seed_alone_fixes_the_weights_and_their_spread():
    model, again = (ConvSNODE(input_shape=(1, 8, 8), classes=10, channels=40, knots=3, horizon=3.0) for _ in range(2))
    other = ConvSNODE(input_shape=(1, 8, 8), classes=10, channels=40, knots=3, horizon=3.0, seed=1)
    assert torch.equal(model.weight, again.weight)
    assert not torch.equal(model.weight, other.weight)
    spread = float(model.weight[1].detach().std()) * 2 * (9 * 40) ** 0.5
    assert spread == pytest.approx(0.8, abs=0.2)  # between two nodes
    assert (model.steps, len(ConvSNODE(input_shape=(1, 8, 8), classes=10).bias)) == (8, 8)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"channels": 3}, r"channels: expected at least 4, one for each class \(4\) and one for .* image \(2\), got 3"),
        ({"channels": 7, "patch": 2}, r"channels: expected at least 8, .* encoded image \(8\), got 7"),
        ({"kernel": 4}, r"kernel: expected an odd size, .* \(got 4\)"),
        ({"patch": 3}, "patch: expected a divisor of the image's 4x6, got 3"),
        ({"input_shape": (24,)}, r"expected images \(channels, height, width\), got inputs of shape \(24,\)"),
        ({"input_shape": (1, 0, 8)}, "input_shape: expected positive sizes"),
        ({"knots": 13}, r"at least as many steps as knots \(13\), got 12"),
        ({"method": "rk5"}, "Did you mean 'rk4'"),
        ({"width": 3}, "width: Extra inputs are not permitted"),
    ],
)
def test_bad_configuration(config, message):
    with pytest.raises(ModelError, match=message):
        random_conv_snode(**{"classes": 4, **config})


def test_wrong_input_shape():
    message = r"input of conv-snode model: expected shape \(batch, 2, 4, 6\), got \(2, 2, 6, 4\)"
    with pytest.raises(ModelError, match=message):
        random_conv_snode()(torch.zeros(2, 2, 6, 4, dtype=torch.float64))
