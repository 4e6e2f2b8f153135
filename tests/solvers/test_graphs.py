"""Captured sweeps: the same numbers as the sweeps themselves, whoever has overwritten what; nothing asks the host."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from robustode.attacks.sensitivity import SensitivityAttack
from robustode.sensitivity import jacobian, tangent
from robustode.sensitivity.linearise import linearise
from robustode.solvers import flow as flow_module
from robustode.solvers.graphs import MOST, Graphs, size_of
from robustode.solvers.tape import ROWS
from tests.problems import random_conv_snode, random_points, random_snode
from tests.solvers.recapture import recapture

NETWORKS = {
    "dense, Euler": lambda: random_snode(),
    "dense, 3/8 rule": lambda: random_snode(method="rk4"),
    "dense, few knots": lambda: random_snode(knots=3),
    "convolutional": lambda: random_conv_snode(method="midpoint"),
}


def captured(model):
    graphs = Graphs(recapture)
    return model.searched(graphs=graphs), graphs


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rows", [1, ROWS, 3 * ROWS + 1])
def test_the_numbers_are_those_of_the_sweeps(name, rows):
    model = NETWORKS[name]()
    view, graphs = captured(model)
    for seed in (1, 2):  # the second time from what was captured
        x = random_points(model.input_shape, rows, seed=seed)
        with torch.no_grad():
            assert torch.allclose(view(x), model(x), rtol=0, atol=1e-13)
        assert torch.allclose(jacobian(view, x), jacobian(model, x), rtol=0, atol=1e-13)
        assert len(graphs) == 3  # forward, record, adjoint


def test_a_size_is_captured_once_and_large_batches_never():
    model = random_snode()
    view, graphs = captured(model)
    with torch.no_grad():
        for rows in (1, 2, ROWS, ROWS + 1, 2 * ROWS):
            view(random_points(model.input_shape, rows))
        assert len(graphs) == 2
        x = random_points(model.input_shape, MOST + 1)
        assert torch.allclose(view(x), model(x), rtol=0, atol=1e-13)
        assert view(x[:0]).shape == (0, model.classes)
    assert len(graphs) == 2
    assert [size_of(n) for n in (0, 1, 16, 17, 512, MOST, MOST + 1)] == [None, 16, 16, 32, 512, MOST, None]


def test_views_on_other_grids_share_what_is_captured():
    model = random_snode(steps=12)
    view, graphs = captured(model)
    x = random_points(model.input_shape, 5)
    with torch.no_grad():
        for _ in range(2):  # a search makes its levels anew for each chunk
            for steps in (3, 6):
                assert torch.allclose(view.at_steps(steps)(x), model.at_steps(steps)(x), rtol=0, atol=1e-13)
    assert len(graphs) == 2


def test_a_pass_that_was_overwritten_is_made_again():
    model = random_snode(scale=2.0)
    view, _ = captured(model)
    first, second = (random_points(model.input_shape, 9, seed=seed) for seed in (1, 2))
    w = torch.randn(9, model.classes, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    a, b = linearise(view, first), linearise(view, second)
    for linear, x in ((a, first), (b, second), (a, first)):
        own = linearise(model, x)
        assert torch.equal(linear.logits, own.logits)
        assert torch.allclose(linear.vjp(w), own.vjp(w), rtol=0, atol=1e-13)
    delta = random_points(model.input_shape, 9, seed=4)
    assert torch.allclose(a.jvp(delta), tangent(model, first, delta), rtol=0, atol=1e-13)
    steps = a.tangents(delta)  # and in the middle of a sweep
    for expected in linearise(model, first).tangents(delta):
        assert torch.allclose(next(steps), expected, rtol=0, atol=1e-13)
        linearise(view, second)


def test_gradients_by_autograd_and_of_the_weights():
    model = random_snode()
    view, _ = captured(model)
    x = random_points(model.input_shape, 7).requires_grad_(True)
    loss = (view(x).square()).sum()
    expected = torch.autograd.grad((model(x).square()).sum(), [x, model.weight, model.bias])
    with torch.no_grad():
        view(x.detach() / 2)
    for own, right in zip(torch.autograd.grad(loss, [x, model.weight, model.bias]), expected, strict=True):
        assert torch.allclose(own, right, rtol=0, atol=1e-12)
    model.requires_grad_(False)
    (own,) = torch.autograd.grad((view(x).square()).sum(), [x])
    assert torch.allclose(own, expected[0], rtol=0, atol=1e-12)


def test_a_tape_in_segments(monkeypatch):
    monkeypatch.setattr(flow_module, "TAPE_BYTES", 4000)
    model = random_snode(scale=2.0)
    view, _ = captured(model)
    x = random_points(model.input_shape, 20)
    assert torch.allclose(jacobian(view, x), jacobian(model, x), rtol=0, atol=1e-13)
    assert len(model.flow.record(model.encode(x))[1].starts) > 1


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_attack_finds_the_same_points(norm):
    model = random_snode(scale=2.0, steps=30)
    view, _ = captured(model)
    x = random_points(model.input_shape, 20)
    y = model(x).argmax(1)
    expected = SensitivityAttack(norm=norm)(model, x, y)
    assert expected.success.sum() >= 10
    found = SensitivityAttack(norm=norm)(view, x, y)
    torch.testing.assert_close(found.distance, expected.distance, rtol=1e-6, atol=0)
    assert torch.equal(found.forwards, expected.forwards)


class Asked(TorchDispatchMode):
    """The operations that were called."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.__name__.partition(".")[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", NETWORKS)
def test_no_sweep_asks_for_a_value_on_the_host(name):
    """A capture ends where the host reads a value, or where memory comes from it."""
    model = NETWORKS[name]().requires_grad_(False)
    x = model.encode(random_points(model.input_shape, ROWS))
    flow = model.flow
    flow.record(x)  # as in the runs before a capture: constants are made
    with Asked() as asked:
        final, tape = flow.record(x)
        flow.forward(x)
        flow.adjoint(tape, final)
        flow.adjoint(tape, final[:, None].expand(-1, 3, *final.shape[1:]))
    assert asked.names & {"addmm", "convolution"}
    forbidden = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "_to_copy", "lift_fresh", "tensor", "full"}
    assert not asked.names & forbidden
