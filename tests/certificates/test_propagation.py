"""IBP and CROWN: exact where they must be, sound everywhere, and equal to loops written out."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from robustode.certificates import certify
from robustode.certificates.problem import make_problem
from robustode.certificates.propagate import bounds
from robustode.certificates.propagate.ball import Ball
from robustode.certificates.propagate.curves import CURVES
from robustode.certificates.propagate.enclose import Encloser
from robustode.certificates.propagate.relax import lines
from robustode.certificates.propagate.roundoff import Roundoff
from robustode.errors import OptionError
from robustode.models.layered import Layered
from robustode.models.resnet import ResNet
from robustode.models.wrap import wrap
from robustode.sensitivity.norms import dual
from tests.certificates.ball_search import least_margins
from tests.problems import random_affine, random_conv_snode, random_points, random_snode

NORMS = ["l1", "l2", "linf"]
SMALL = {"input_shape": (1, 2, 3), "classes": 3, "steps": 4, "knots": 2, "horizon": 1.5}
CONV = {"input_shape": (2, 4, 4), "classes": 3, "channels": 9, "patch": 2, "steps": 2, "knots": 2, "horizon": 1.0}


def resnet() -> ResNet:
    """With statistics of its own in every batch norm, so that folding them in matters."""
    model = ResNet(input_shape=(1, 4, 4), classes=3, width=2, blocks=(1, 1), seed=3).double()
    return with_statistics(model)


def with_statistics(model):
    g = torch.Generator().manual_seed(4)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                tensor.data.copy_(0.5 + torch.rand(tensor.shape, generator=g))
    return model.eval()


def sequential(activation: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    layers = [nn.Conv2d(1, 3, 3, stride=2, padding=1), activation, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3, 5)]
    module = nn.Sequential(*layers, activation, nn.Linear(5, 3)).double()
    return wrap(module, bounds=(0.0, 1.0), input_shape=(1, 4, 4), mean=0.4, std=0.3)


def pooled() -> nn.Module:
    torch.manual_seed(6)
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 3)).double()
    return wrap(module, bounds=(0.0, 1.0), input_shape=(1, 4, 4))


def layered() -> Layered:
    model = Layered(input_shape=(1, 2, 3), classes=3, steps=4, horizon=1.5, activation="relu", seed=8).double()
    with torch.no_grad():
        model.weight.mul_(8)
    return model.eval()


MODELS = {f"snode {name}": lambda name=name: random_snode(activation=name, **SMALL) for name in CURVES} | {
    "snode midpoint": lambda: random_snode(method="midpoint", **SMALL),
    "snode rk4": lambda: random_snode(method="rk4", scale=1.5, **SMALL | {"steps": 2}),
    "layered": layered,
    "conv-snode": lambda: random_conv_snode(**CONV),
    "conv-snode rk4": lambda: random_conv_snode(method="rk4", activation="softplus", **CONV),
    "resnet": resnet,
    "relu": lambda: sequential(nn.ReLU()),
    "gelu": lambda: sequential(nn.GELU()),
    "silu": lambda: sequential(nn.SiLU()),
    "elu": lambda: sequential(nn.ELU(0.5)),
    "softplus": lambda: sequential(nn.Softplus(beta=3.0)),
    "leaky": lambda: sequential(nn.LeakyReLU(0.2)),
    "max pooling": pooled,
}


@cache
def case(name: str, samples: int = 3):
    """A model, points and the classes that it gives them."""
    model = MODELS[name]()
    x = random_points(tuple(model.input_shape), samples, seed=7)
    return model, x, model(x).argmax(1)


def margins_at(model, x, y, eps, norm, *, lines: bool, unit: float | None = None):
    problem = make_problem(model, x, y, norm)
    graph = bounds.graph_of(problem)
    assert not isinstance(graph, str), graph
    roundoff = graph.roundoff(problem.unit if unit is None else unit)
    with torch.no_grad():
        ball = Ball(x=problem.x, eps=torch.full((len(x),), eps, dtype=torch.float64), norm=norm, roundoff=roundoff)
        return Encloser(graph=graph, lines=lines).margins(ball, y)


# -- exact ------------------------------------------------------------------------------------------------------------


def exact_radii(weight, z, y, norm):
    """Distances to z_y = z_k of logits that are affine in the input, with rows `weight`; inf for k = y."""
    rows = weight[y][:, None] - weight[None]
    gaps = z.gather(1, y[:, None]) - z
    return (gaps / dual(rows, norm).clamp_min(1e-300)).scatter(1, y[:, None], torch.inf)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("method", ["ibp", "crown"])
def test_affine_classifiers_are_exact(method, norm):
    model = random_affine()
    x = random_points((1, 3, 4), 6)
    y = model(x).argmax(1)
    found = certify(model, x, y, norm=norm, methods=[method])
    exact = exact_radii(model.weight.detach(), model(x).detach(), y, norm)
    ratio = found.radius / exact.min(1).values
    assert bool(((ratio > 1 - 1e-6) & (ratio <= 1)).all())
    assert bool((found.class_radius <= exact).all())
    if method == "ibp":  # CROWN looks for the nearest class only
        ratio = found.class_radius[exact.isfinite()] / exact[exact.isfinite()]
        assert bool((ratio > 1 - 1e-6).all())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("model", ["euler", "midpoint", "rk4", "conv"])
def test_linear_fields_are_exact(model, norm):
    if model == "conv":
        net = random_conv_snode(activation="identity", **CONV)
    else:
        net = random_snode(activation="identity", method=model, **SMALL)
    x = random_points(tuple(net.input_shape), 4)
    y = net(x).argmax(1)
    jacobian = torch.autograd.functional.jacobian(lambda p: net(p[None])[0], x[0]).flatten(1)
    exact = exact_radii(jacobian, net(x).detach(), y, norm).min(1).values
    ratio = certify(net, x, y, norm=norm, methods=["crown"]).radius / exact
    assert bool(((ratio > 1 - 1e-6) & (ratio <= 1)).all())


def test_intervals_of_two_layers_by_hand():
    """z = V relu(W x) with W = [[1, −2], [3, 1]], V = [[1, 1], [−1, 2]] at x = (1, 0), L∞ ε = 0.1.

    W x = (1, 3) ± (0.3, 0.4): relu in [0.7, 1.3] × [2.6, 3.4]; z_1 − z_0 = −2 h_0 + h_1 ≥ −2.6 + 2.6 = 0, z_0 − z_1 ≥
    2 · 0.7 − 3.4 = −2. In L2 the rows have the norms √5 and √10.
    """
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False)).double()
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 1.0]]))
        module[2].weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, 2.0]]))
    model = wrap(module, bounds=(-2.0, 2.0), input_shape=(2,))
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).double()
    y = torch.tensor([0, 1])
    found = margins_at(model, x, y, 0.1, "linf", lines=False)
    expected = torch.tensor([[torch.inf, -2.0], [0.0, torch.inf]]).double()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    r = 0.1 * torch.tensor([5.0, 10.0]).double().sqrt()
    found = margins_at(model, x, y, 0.1, "l2", lines=False)
    by_hand = torch.stack([2 * (1 - r[0]) - (3 + r[1]), (3 - r[1]) - 2 * (1 + r[0])])
    torch.testing.assert_close(found[[0, 1], [1, 0]], by_hand, rtol=0, atol=1e-12)


def crown_by_loops(model, x, eps):
    """Lower bounds of all z_i − z_j of one sample by L∞ CROWN, written out: one Euler step, one neuron at a time.

    Every pre-activation is bounded by carrying its row back through the steps before it, with lines for every
    activation; intervals forward are intersected with that, as the bound does, and the margins with those of
    x_N = x_0 + h Σ σ for σ in their intervals.
    """
    flow = model.flow
    h, steps = flow.step, flow.steps
    weights = [flow.parameters(n, 0) for n in range(steps)]
    x0, radius = model.encode(x[None])[0], eps * abs(model.encoding_scale)
    found: list = []
    moved: list = []

    def back(row, constant, n):
        """The least of ⟨row, x_n⟩ + constant."""
        for step in reversed(range(n)):
            pulled = row.clone()
            weight, bias = weights[step]
            for i, c in enumerate((h * row).tolist()):
                slope = found[step].lower_slope[i] if c > 0 else found[step].upper_slope[i]
                constant = constant + c * (found[step].lower[i] if c > 0 else found[step].upper[i])
                constant = constant + c * slope * bias[i]
                pulled = pulled + c * slope * weight[i]
            row = pulled
        return row @ x0 + constant - radius * row.abs().sum()

    low, high = x0 - radius, x0 + radius
    for n, (weight, bias) in enumerate(weights):
        middle, spread = weight @ ((low + high) / 2) + bias, weight.abs() @ ((high - low) / 2)
        ends = torch.stack([torch.stack([back(w, b, n), -back(-w, -b, n)]) for w, b in zip(weight, bias, strict=True)])
        pre_low, pre_high = torch.maximum(middle - spread, ends[:, 0]), torch.minimum(middle + spread, ends[:, 1])
        found.append(lines(CURVES[flow.activation.name], pre_low, pre_high))
        low = low + h * flow.activation.apply(pre_low)
        high = high + h * flow.activation.apply(pre_high)
        moved += [(h * flow.activation.apply(pre_low), h * flow.activation.apply(pre_high))]

    def by_intervals(row):
        least = row @ x0 - radius * row.abs().sum()
        return least + sum(row.clamp(min=0) @ down + row.clamp(max=0) @ up for down, up in moved)

    eye = torch.eye(len(x0), dtype=x.dtype)[: model.classes]
    rows = [[a - b for b in eye] for a in eye]
    return torch.tensor(
        [[max(float(back(r, 0.0, steps)), float(by_intervals(r))) for r in line] for line in rows], dtype=x.dtype
    )


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_crown_equals_loops(activation):
    model = random_snode(activation=activation, scale=1.5, **SMALL | {"steps": 3, "knots": 3})
    x = random_points((1, 2, 3), 2)
    for eps in (0.01, 0.1):
        for point in x:
            expected = crown_by_loops(model, point, eps)
            y = torch.arange(3)
            found = margins_at(model, point.expand(3, -1, -1, -1), y, eps, "linf", lines=True)
            off = ~torch.eye(3, dtype=torch.bool)
            torch.testing.assert_close(found[off], expected[off], rtol=0, atol=1e-10)


# -- sound ------------------------------------------------------------------------------------------------------------


EVERY = ("snode tanh", "resnet")  # in every norm; the others in one, in turn
CASES = [(name, norm) for i, name in enumerate(MODELS) for j, norm in enumerate(NORMS) if name in EVERY or i % 3 == j]


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_nothing_is_found_inside(name, norm):
    model, x, y = case(name)
    for method in ("ibp", "crown"):
        found = certify(model, x, y, norm=norm, methods=[method])
        assert bool((found.radius > 0).all())
        radius = found.class_radius.clamp(max=10.0)
        assert bool((least_margins(model, x, y, radius, norm) > 0).all())


@pytest.mark.parametrize("norm", NORMS)
def test_a_radius_that_is_a_little_too_large_is_found_out(norm):
    """What the search of the tests is worth: 1.02 times the exact distance of a linear field."""
    net = random_snode(activation="identity", **SMALL)
    x = random_points((1, 2, 3), 4)
    y = net(x).argmax(1)
    found = certify(net, x, y, norm=norm, methods=["crown"])
    worst = least_margins(net, x, y, (1.02 * found.radius)[:, None].expand(-1, 3), norm)
    assert bool((worst.min(1).values < 0).all())


@pytest.mark.parametrize(
    ("name", "norm"),
    [("snode tanh", "l1"), ("snode rk4", "l2"), ("conv-snode", "linf"), ("resnet", "l2"), ("gelu", "l1")]
    + [("max pooling", "linf")],
)
def test_margins_are_below_what_is_found_and_fall(name, norm):
    model, x, y = case(name)
    clean = margins_at(model, x, y, 0.0, norm, lines=True)
    z = model(x).detach()
    exact = (z.gather(1, y[:, None]) - z).scatter(1, y[:, None], torch.inf)
    torch.testing.assert_close(clean, exact, rtol=0, atol=1e-9)
    assert bool((clean <= exact).all())
    before = clean
    for eps in (0.003, 0.03, 0.3):
        found = margins_at(model, x, y, eps, norm, lines=True)
        plain = margins_at(model, x, y, eps, norm, lines=False)
        assert bool((found >= plain - 1e-12).all())  # CROWN is never looser than IBP
        assert bool((found <= before).all())
        radius = torch.full_like(found, eps)
        assert bool((found <= least_margins(model, x, y, radius, norm, draws=16, steps=6) + 1e-12).all())
        before = found


@pytest.mark.parametrize("name", ["snode tanh", "resnet", "max pooling"])
def test_every_node_stays_in_its_range(name):
    model, x, y = case(name)
    problem = make_problem(model, x, y, "linf")
    graph = bounds.graph_of(problem)
    assert not isinstance(graph, str)
    ball = Ball(x=x, eps=torch.full((len(x),), 0.1).double(), norm="linf", roundoff=graph.roundoff(problem.unit))
    for crown in (False, True):
        with torch.no_grad():
            ranges = Encloser(graph=graph, lines=crown).ranges(ball)
        for seed in range(20):
            noise = 0.2 * random_points(tuple(x.shape[1:]), len(x), seed=seed) - 0.1
            values = [x + (noise.sign() * 0.1 if seed % 2 else noise)]
            for node, own in zip(graph.nodes[1:], ranges[1:], strict=True):
                values.append(node.value([values[s] for s in node.sources]).detach())
                assert bool(((own.low <= values[-1]) & (values[-1] <= own.high)).all())


# -- rounding ---------------------------------------------------------------------------------------------------------


def test_sums_in_float32_are_within_the_allowance():
    g = torch.Generator().manual_seed(9)
    roundoff = Roundoff(unit=2.0**-24, own=300)
    for terms in (1, 10, 200):
        x, w = torch.randn(64, terms, generator=g), torch.randn(32, terms, generator=g) * 100
        off = (x @ w.t()).double() - x.double() @ w.double().t()
        allowed = roundoff.of_sum(terms, x.double().abs() @ w.double().abs().t())
        assert bool((off.abs() <= allowed).all())
        assert bool((allowed < 1e-3 * (x.double().abs() @ w.double().abs().t())).all())
    assert bool((roundoff.of_sum(0, torch.ones(1)) < 1e-12).all())


@pytest.mark.parametrize("name", ["snode tanh", "snode rk4", "conv-snode", "resnet", "relu", "gelu", "softplus"])
def test_the_deployed_model_is_allowed_for(name):
    """In float32, margins at ε = 0 are below those of the deployed and of the exact model, by little."""
    model = MODELS[name]().float()
    x = random_points(tuple(model.input_shape), 200, seed=11, dtype=torch.float32)
    with torch.no_grad():
        z = model(x).double()
    y = z.argmax(1)
    deployed = (z.gather(1, y[:, None]) - z).scatter(1, y[:, None], torch.inf)
    exact = make_problem(model, x, y, "l2").margins
    assert bool((deployed != exact)[deployed.isfinite()].any())
    for lines_ in (False, True):
        found = margins_at(model, x, y, 0.0, "l2", lines=lines_)
        assert bool((found <= torch.minimum(deployed, exact)).all())
    assert bool((exact - found)[exact.isfinite()].max() < 2e-3)


def test_coarser_products_are_allowed_for(monkeypatch):
    model, x, y = random_affine(dtype=torch.float32), random_points((1, 3, 4), 2), torch.tensor([0, 1])
    problem = make_problem(model, x, y, "l2")
    assert bounds.unit_of(problem) == 2.0**-24
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    assert bounds.unit_of(problem) == 2.0**-8
    assert bounds.unit_of(make_problem(model.double(), x, y, "l2")) == 2.0**-53


# -- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ibp", "crown"])
def test_samples_do_not_depend_on_each_other(method, monkeypatch):
    model, x, y = case("snode tanh", 5)
    y = y.clone()
    y[2] = (y[2] + 1) % 3  # misclassified
    together = certify(model, x, y, methods=[method])
    monkeypatch.setattr(bounds, "SAMPLES", 2)
    chunked = certify(model, x, y, methods=[method])
    torch.testing.assert_close(chunked.class_radius, together.class_radius, rtol=1e-9, atol=0)
    assert together.status == ("certified", "certified", "misclassified", "certified", "certified")
    assert together.radius[2] == 0
    assert bool((together.class_radius.gather(1, y[:, None]) == torch.inf).all())
    assert bool((together.passes > 0).all())
    assert together.method[0] == method


def test_crown_is_computed_only_where_asked_for():
    model, x, y = case("resnet")
    assert set(certify(model, x, y).method) == {"ibp"}


def test_memory_is_refused_before_it_is_taken(monkeypatch):
    model, x, y = case("conv-snode")
    monkeypatch.setattr(bounds, "MEMORY", 2**10)
    with pytest.raises(OptionError) as error:
        certify(model, x, y, methods=["crown"])
    assert "one sample needs" in str(error.value)
    assert "72 rows of 36 coefficients" in str(error.value)
    assert "Bounds that remain: ibp" in str(error.value)


def test_adaptive_methods_are_refused():
    model = random_snode(**SMALL).with_solver(method="dopri5")
    x = random_points((1, 2, 3), 1)
    with pytest.raises(OptionError, match=r"the steps of the adaptive method of a snode depend on the input"):
        certify(model, x, torch.tensor([0]), methods=["ibp"])


def test_a_flow_is_not_certified():
    model, x, y = case("snode tanh")
    with pytest.raises(OptionError, match="certifies the discrete map"):
        certify(model, x, y, methods=["crown"], certifies="flow")


def test_weights_that_are_not_finite_certify_nothing():
    model = random_snode(**SMALL)
    with torch.no_grad():
        model.weight[0, 0, 0] = torch.nan
    found = certify(model, random_points((1, 2, 3), 2), torch.tensor([0, 0]), methods=["ibp"])
    assert bool((found.radius == 0).all())
