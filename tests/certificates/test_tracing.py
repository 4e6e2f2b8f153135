"""Any module of known operations becomes a graph with the same logits; everything else is refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from robustode.certificates import certify
from robustode.certificates.problem import make_problem
from robustode.certificates.propagate.bounds import graph_of
from robustode.certificates.propagate.nodes import Affine
from robustode.certificates.propagate.trace import Untraceable, trace
from robustode.errors import OptionError
from robustode.models.wrap import wrap
from tests.certificates.ball_search import least_margins
from tests.certificates.networks import MODELS, case, with_statistics
from tests.problems import random_affine, random_points

SHAPE = (2, 6, 6)


class Residual(nn.Module):
    """In-place activations and sums, as users write them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding="same", bias=False)
        self.norm, self.act = nn.BatchNorm2d(3), nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.norm(self.conv(x))
        out += x
        return self.act(out)


class Shuffled(nn.Module):
    """Every way of moving numbers about, and arithmetic with constants."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.shift = nn.Parameter(torch.randn(72, 3)), nn.Parameter(torch.randn(1, 2, 1, 1))

    def forward(self, x):
        batch, channels = x.shape[0], x.size(1)
        x = (2 * x - self.shift) / 3 + (1 - x) * 0.5
        x = x.permute(0, 2, 3, 1).transpose(1, 2).contiguous().view(batch, 6, 6, channels)
        x = torch.cat([x[:, :2], -x[:, 2:]], dim=1).reshape(batch, -1, 2, 3).flatten(1)
        x = torch.sub(x, 0.1, alpha=2).unsqueeze(1).squeeze(1)
        wide = functional.pad(x, (1, 2))[..., 1:-2]
        x = torch.tanh(wide) @ self.weight
        x = x.mul(torch.tensor([1.0, 2.0, 3.0])).add_(1.0)
        return functional.silu(x, inplace=True) - x.sum(1, keepdim=True).mean(1)[:, None].matmul(
            torch.ones(1, 3, dtype=x.dtype)
        )


class Unshuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.line = nn.Conv2d(8, 4, 2, stride=2, groups=2, dilation=1), nn.Conv1d(4, 3, 1)

    def forward(self, x):
        x = functional.dropout(torch.sigmoid(self.down(functional.pixel_unshuffle(x, 2))), training=self.training)
        return self.line(functional.adaptive_avg_pool2d(x, (1, 2)).flatten(2)).mean(-1)


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    head = [nn.Flatten(), nn.Linear(27, 4)]
    stem = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    pooled = [nn.MaxPool2d(2, 1, 1), nn.AvgPool2d(2, ceil_mode=True, padding=1), nn.Flatten(), nn.Linear(27, 3)]
    return {
        "residual": nn.Sequential(stem, Residual(), nn.Dropout(0.3), Residual(), *head),
        "pooled": nn.Sequential(stem, nn.LeakyReLU(), *pooled),
        "shuffled": Shuffled(),
        "unshuffled": Unshuffled(),
        "unflattened": nn.Sequential(nn.Flatten(), nn.Unflatten(1, (3, 24)), nn.Linear(24, 5), nn.Flatten(), nn.ELU()),
    }


def wrapped(module: nn.Module, shape=SHAPE):
    return wrap(with_statistics(module).double(), bounds=(-1.0, 2.0), input_shape=shape, mean=0.3, std=[0.5, 2.0])


@pytest.mark.parametrize("name", networks())
def test_a_graph_has_the_logits_of_its_module(name):
    model = wrapped(networks()[name])
    graph = trace(model)
    x = random_points(SHAPE, 50, lo=-3, hi=3)
    torch.testing.assert_close(graph.logits(x), model(x), rtol=1e-12, atol=1e-12)
    y = model(x[:2]).argmax(1)
    for method in ("ibp", "crown"):
        found = certify(model, x[:2], y, methods=[method], norm="linf")
        assert bool((found.radius > 0).all())
        margins = least_margins(model, x[:2], y, found.class_radius.clamp(max=10), "linf", draws=16, steps=6)
        assert bool((margins > 0).all())


@pytest.mark.parametrize("name", MODELS)
def test_graphs_of_all_models(name):
    model, x, _ = case(name)
    graph = graph_of(make_problem(model, x, torch.zeros(len(x), dtype=torch.int64), "l2"))
    assert not isinstance(graph, str)
    torch.testing.assert_close(graph.logits(x), model(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["residual", "pooled", "shuffled", "unshuffled"])
def test_every_linear_map_has_its_transpose_and_its_absolute_value(name):
    g = torch.Generator().manual_seed(1)
    graph = trace(wrapped(networks()[name]))
    for node in graph.nodes:
        if not isinstance(node, Affine):
            continue
        linear = node.linear
        assert linear.outer == node.shape
        eye = torch.eye(torch.Size(linear.inner).numel(), dtype=torch.float64).reshape(-1, *linear.inner)
        matrix = linear.apply(eye).reshape(len(eye), -1)  # (inner, outer)
        mu = torch.randn(2, 3, *linear.outer, generator=g, dtype=torch.float64)
        pulled = linear.transposed(mu)
        torch.testing.assert_close(pulled.reshape(2, 3, -1), mu.reshape(2, 3, -1) @ matrix.t(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(linear.absolute(eye).reshape(len(eye), -1), matrix.abs(), rtol=1e-12, atol=1e-12)
        if linear.nonnegative:
            assert bool((matrix >= 0).all())
        assert linear.terms >= int((matrix != 0).sum(0).max()) or linear.terms == 0
        if linear.terms == 0:
            assert bool(((matrix == 0) | (matrix == 1)).all())


def test_a_module_that_was_never_wrapped():
    model = random_affine()
    assert len(trace(model).nodes) == 4


class Refused(nn.Module):
    """A flat network with something in the middle."""

    def __init__(self, middle) -> None:
        super().__init__()
        self.line, self.middle = nn.Linear(72, 6), middle

    def forward(self, x):
        return self.middle(self.line(x.flatten(1)))


def hidden(x):
    """Takes the values out of torch's sight and puts them back."""
    return x + torch.tensor(x.detach().cpu().tolist(), dtype=x.dtype).mean()


def data_dependent(x):
    return x if x[0, 0] > 0 else -x


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        (nn.Softmax(1), "no bound for 'softmax' in Softmax"),
        (nn.Hardtanh(), "no bound for 'hardtanh' in Hardtanh"),
        (nn.LayerNorm(6), "no bound for 'layer_norm' in LayerNorm"),
        (nn.PReLU(), "no bound for 'prelu' in PReLU"),
        (nn.ELU(1.5), "no bound for 'elu' with alpha 1.5, outside (0, 1], in ELU"),
        (nn.GELU(approximate="tanh"), "no bound for 'gelu' approximated by 'tanh' in GELU"),
        (
            lambda x: functional.batch_norm(x.view(-1, 2, 3), None, None, training=True).flatten(1),
            "of a batch in Refused",
        ),
        (hidden, "no bound for 'cpu' in Refused"),
        (data_dependent, "in Refused"),
        (lambda x: x * x, "no bound for a product of two values that depend on the input in Refused"),
        (lambda x: x - x.mean(0), "no bound for a mean or sum over the samples of a batch in Refused"),
        (lambda x: x.t().contiguous().t(), "no bound for 't' in Refused"),
        (lambda x: x.float(), "no bound for 'float' in Refused"),
        (lambda x: 1 / x, "no bound for '__rdiv__' in Refused"),
        (lambda x: torch.zeros(len(x), 6, dtype=x.dtype), "the output of WrappedModel is not logits made of known"),
        (lambda x: functional.pad(x, (1, 0), value=1.0), "no bound for padding other than with zeros around a sample"),
        (lambda x: x[:, [0, 2]], "no bound for an index other than slices and numbers"),
        (lambda x: x[None].permute(1, 0, 2).squeeze(1), "no bound for an index other than slices and numbers"),
    ],
)
def test_refused_by_name(middle, reason):
    model = wrap(Refused(middle).double(), bounds=(0.0, 1.0), input_shape=SHAPE)
    x = random_points(SHAPE, 2)
    with pytest.raises(OptionError) as error:
        certify(model, x, torch.tensor([0, 1]), methods=["ibp"])
    assert reason in str(error.value)


def test_what_is_computed_behind_the_back_is_noticed():
    """What does not see symbols, as compiled code, computes with NaN, which is never taken for a constant."""

    def unseen(x):
        with torch._C.DisableTorchFunctionSubclass():
            doubled = 2 * x.as_subclass(torch.Tensor)
        return x + doubled

    with pytest.raises(Untraceable, match="or that depend on the input in a hidden way"):
        trace(wrap(Refused(unseen).double(), bounds=(0.0, 1.0), input_shape=SHAPE))


def test_a_graph_that_differs_from_its_module_is_not_used():
    """A view that is changed in place through another name: the symbols do not follow it."""

    def aliased(x):
        view = x.view(len(x), 2, 3)
        torch.relu_(view)
        return x

    with pytest.raises(Untraceable, match="does something that is not seen"):
        trace(wrap(Refused(aliased).double(), bounds=(0.0, 1.0), input_shape=SHAPE))


def test_dropout_that_is_left_on_is_refused():
    model = wrap(nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(72, 3)).double(), bounds=(0, 1), input_shape=SHAPE)
    model.train()
    with pytest.raises(Untraceable, match="no bound for random numbers in Dropout"):
        trace(model)
