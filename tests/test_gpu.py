"""The same numbers on a CUDA device as on the CPU, to the precision of their arithmetic."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from robustode import sensitivity
from robustode.api import evaluate
from robustode.attacks.sensitivity import SensitivityAttack
from robustode.evaluation.judge import Judge
from robustode.models import load_model, wrap
from robustode.sensitivity.linearise import linearise
from robustode.solvers.graphs import Graphs
from tests.problems import random_conv_snode, random_points, random_snode

pytestmark = pytest.mark.gpu


def test_sweep_and_jacobian():
    model = random_snode(method="rk4")
    x = random_points(model.input_shape, 20)
    cpu = sensitivity.jacobian(model, x)
    cuda = sensitivity.jacobian(model.cuda(), x.cuda()).cpu()
    assert torch.allclose(cuda, cpu, rtol=0, atol=1e-11)


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_attack(norm):
    model = random_snode(scale=2.0)
    x = random_points(model.input_shape, 20)
    y = model(x).argmax(1)
    cpu = SensitivityAttack(norm=norm)(model, x, y)
    cuda = SensitivityAttack(norm=norm)(model.cuda(), x.cuda(), y.cuda())
    assert torch.allclose(cuda.distance.cpu(), cpu.distance, rtol=1e-6)


def test_what_is_judged_is_free_of_tf32_also_where_the_search_may_use_it():
    torch.manual_seed(0)
    single = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Flatten(), nn.Linear(64 * 28 * 28, 10)
    )
    x = torch.rand(32, 3, 32, 32, device="cuda")
    model = wrap(single.cuda().eval().requires_grad_(False), bounds=(0.0, 1.0), classes=10, input_shape=(3, 32, 32))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        logits = Judge(model).logits(x)
    finally:
        torch.set_float32_matmul_precision(before)
    exact = copy.deepcopy(single).double()(x.double())
    assert (logits - exact).abs().max() < 1e-5 * exact.abs().max()  # with TF32 it is 1e-3


@pytest.mark.parametrize("make", [random_snode, random_conv_snode])
def test_captured_sweeps(make):
    model = make(scale=2.0, steps=12)
    x = random_points(model.input_shape, 20)
    expected = sensitivity.jacobian(model, x)
    graphs = Graphs()
    view = model.cuda().searched(graphs=graphs)
    for _ in range(2):
        first, second = linearise(view, x.cuda()), linearise(view, 1 - x.cuda())
        eye = torch.eye(model.classes, dtype=x.dtype, device="cuda").expand(len(x), -1, -1)
        assert torch.allclose(first.vjp(eye).cpu(), expected, rtol=0, atol=1e-11)
        assert torch.allclose(second.logits, model(1 - x.cuda()), rtol=0, atol=1e-12)
        with torch.no_grad():
            assert torch.allclose(view(x.cuda()), first.logits, rtol=0, atol=1e-12)
    assert len(graphs) == 3


@pytest.mark.parametrize("precision", ["full", "tf32", "bfloat16"])
@pytest.mark.parametrize("name", ["snode", "resnet"])
def test_the_search_in_a_shorter_precision_and_by_graphs(name, precision, monkeypatch):
    made = []

    def graphs():
        made.append(Graphs())
        return made[-1]

    monkeypatch.setattr("robustode.evaluation.searched.Graphs", graphs)
    options = {"attacks": "sensitivity-l2", "limit": 60, "audit": "none"}
    own = {"search_precision": precision, "cuda_graphs": name == "snode", "device": "cuda"}
    full = evaluate(f"zoo:{name}-digits", **options).records
    short = evaluate(f"zoo:{name}-digits", **options, **own).records
    assert (short["status"] == full["status"]).all()  # no point is lost to the judge, convolutions included
    assert (short["status"] == "success").mean() > 0.9
    ratio = (short["distance"] / full["distance"])[full["status"] == "success"]
    assert np.exp(np.log(ratio).mean()) < 1.01
    assert len(made) == (0 if name == "resnet" else 1 if precision == "full" else 2)
    assert all(len(one) > 0 for one in made)


def test_float64():
    runs = []
    for device in ("cpu", "cuda"):
        model = load_model("zoo:snode-digits", dtype="float64", device=device)
        options = {"attacks": "sensitivity-l2", "limit": 30, "audit": "none"}
        runs.append(evaluate(model, "digits", device=device, **options).records.sort_values(["eps", "sample"]))
    first, second = (records["distance"].to_numpy() for records in runs)
    np.testing.assert_allclose(first, second, rtol=1e-5)


def test_evaluate():
    runs = [evaluate("zoo:snode-digits", limit=30, device=device) for device in ("cpu", "cuda")]
    key = ["attack", "eps", "sample"]
    first, second = (run.records.sort_values(key).reset_index(drop=True) for run in runs)
    deterministic = first["attack"].str.startswith("sensitivity")
    a, b = (frame.loc[deterministic, "distance"].to_numpy() for frame in (first, second))
    assert np.isclose(a, b, rtol=1e-3, atol=0).mean() >= 0.97  # inf is close to inf
