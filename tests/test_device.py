"""Everything runs on a device that is not the CPU: nothing mixes the two, and the numbers are the same.

The device is simulated (`tests.elsewhere`); what only a real one can show is in test_gpu.py.
"""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import torch

from robustode import sensitivity
from robustode.api import evaluate
from robustode.attacks.sensitivity import SensitivityAttack
from robustode.data import load_data
from robustode.evaluation.generate import generate
from robustode.evaluation.plan import make_plan
from robustode.evaluation.protocol import build_protocol
from robustode.models import load_model
from robustode.solvers.graphs import Graphs
from robustode.solvers.rounded import Rounded
from robustode.training import build, fit, recipe
from tests.elsewhere import Elsewhere, elsewhere
from tests.problems import random_affine, random_conv_snode, random_points, random_snode
from tests.solvers.recapture import recapture

KEY = ["attack", "norm", "eps", "sample"]


@pytest.fixture
def there():
    with elsewhere() as device:
        yield device


def test_what_a_gpu_refuses_is_refused(there):
    here = torch.rand(3, 4)
    x = here.to(there)
    assert isinstance(x, Elsewhere)
    assert isinstance(torch.zeros(2, device=there), Elsewhere)
    assert torch.equal((x * 2 + 1.0).cpu(), here * 2 + 1)
    assert torch.equal(x[torch.tensor([2, 0])].cpu(), here[[2, 0]])
    for wrong in (lambda: x + here, lambda: here[x[0].argsort()], lambda: torch.cat([x, here])):
        with pytest.raises(RuntimeError, match="tensors on both devices"):
            wrong()
    with pytest.raises(RuntimeError, match="tensors on both devices"):
        x[torch.tensor([0])] = here[:1]
    with pytest.raises(RuntimeError, match="a generator of the CPU"):
        torch.rand(3, generator=torch.Generator(), device=there)
    with pytest.raises(TypeError, match="NumPy"):
        x.numpy()
    x[1] = 5.0
    assert x.tolist()[1] == [5.0] * 4


@pytest.mark.parametrize("make", [random_snode, random_conv_snode, random_affine])
def test_jacobian(make, there):
    model = make()
    x = random_points(model.input_shape, 6)
    expected = sensitivity.jacobian(model, x)
    found = sensitivity.jacobian(model.to(there), x.to(there))
    assert isinstance(found, Elsewhere)
    assert torch.allclose(found.cpu(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("norm", "setting"), [("l2", "fast"), ("linf", "fast"), ("l1", "fast"), ("l2", "paper")])
def test_the_sensitivity_attack(norm, setting, there):
    model = random_snode(scale=2.0, steps=12)
    x = random_points(model.input_shape, 6)
    y = model(x).argmax(1)
    attack = SensitivityAttack(norm=norm, setting=setting)
    expected = attack(model, x, y)
    assert expected.success.sum() >= 3
    model.to(there)
    for one in (model, model.searched(graphs=Graphs(recapture))):
        found = attack(one, x.to(there), y.to(there))
        assert isinstance(found.x_adv, Elsewhere)
        assert torch.allclose(found.distance.cpu(), expected.distance, rtol=1e-6)


def same(model, **options):
    """Evaluate on both devices; compare every row and verdict."""
    options = {"limit": 4, "audit": "none", "outputs": (), **options}
    with elsewhere() as device:
        found = evaluate(model, device=device, **options)
    expected = evaluate(model, **options)
    assert found.meta["machine"]["device"] == "meta"
    first, second = (run.records.sort_values(KEY).reset_index(drop=True) for run in (expected, found))
    wrong = second.loc[second["status"] == "error", "message"]
    assert wrong.empty, wrong.iloc[0]
    pd.testing.assert_frame_equal(first[KEY], second[KEY])
    np.testing.assert_allclose(second["distance"], first["distance"], rtol=1e-4)
    assert (first["status"] == "success").any()
    return expected, found


MODELS = {"zoo:snode-digits": "pgd-foolbox-linf", "zoo:resnet-digits": "pgd-linf"}


@pytest.mark.parametrize("model", MODELS)
def test_an_evaluation_with_its_audit(model):
    runs = same(model, attacks=MODELS[model], also=("sensitivity-linf",), eps={"linf": [0.1]}, audit="cheap")
    verdicts = [{one["check"]: one["status"] for one in run.audit["findings"]} for run in runs]
    assert verdicts[0] == verdicts[1]


def test_attacks_of_every_kind():
    names = ("ddn-l2", "deepfool-l2", "fgm-l2", "one-step-singular-l2", "random-search-l2", "apgd-ce-l2")
    same("zoo:layered-digits", attacks="sensitivity-paper-l2", also=names, eps={"l2": [0.5]}, limit=2)


def test_what_stands_beside_the_attacks():
    certificates, smoothing = {"methods": ("lipschitz",)}, {"draws": 100, "sigma": 0.25}
    options = {"certificates": certificates, "smoothing": smoothing, "uncertainty": {"sigma": [0.05], "draws": 20}}
    expected, found = same("zoo:snode-digits", attacks="sensitivity-l2", limit=2, **options)
    for name in ("certificates", "smoothed", "noise"):
        first, second = (getattr(run, name) for run in (expected, found))
        pd.testing.assert_frame_equal(first, second, rtol=1e-4)


@pytest.mark.parametrize("backend", ["torchdiffeq", "torchode"])
def test_an_adaptive_snode(backend):
    model = load_model("zoo:snode-digits").with_solver(method="dopri5", rtol=1e-2, atol=1e-2, backend=backend)
    same(model, data="digits", attacks="fgm-l2", eps={"l2": [1.5]}, limit=4)


def test_an_adversarial_data_set(tmp_path):
    values = {"models": ["zoo:snode-digits"], "attacks": "fgm-l2", "budgets": {"l2": [1.0]}, "limit": 6}
    made = []
    for number in range(2):
        with elsewhere() if number else nullcontext("cpu") as device:
            generate(make_plan(build_protocol(values), device=device), tmp_path / str(number))
        made.append(load_data(str(tmp_path / str(number))))
    assert torch.equal(made[0].x, made[1].x)
    assert not torch.equal(made[0].x, load_data("digits", limit=6).x)


@pytest.mark.parametrize(("arch", "name"), [("snode", "certified"), ("conv-snode", "adversarial")])
def test_training(arch, name):
    data = load_data("digits", split="train", limit=120)
    chosen = recipe(arch, "digits", name).overrides(epochs=1)
    first, second = (build(chosen, data, 0) for _ in range(2))
    before = [parameter.detach().clone() for parameter in first.parameters()]
    fit(first, data, recipe=chosen, test=data, seed=0)
    with elsewhere() as device:
        fit(second.to(device), data, recipe=chosen, test=data, seed=0)
    for old, one, other in zip(before, first.parameters(), second.parameters(), strict=True):
        assert isinstance(other, Elsewhere)
        assert torch.allclose(one, other.cpu(), rtol=0, atol=1e-6)
        assert not torch.equal(old, one)


def test_in_a_shorter_precision(monkeypatch):
    made, product = [], Rounded.product

    def spied(self, z, weight):
        made.append(type(z))
        return product(self, z, weight)

    monkeypatch.setattr(Rounded, "product", spied)
    same("zoo:snode-digits", attacks="sensitivity-l2", search_precision="bfloat16", limit=2)
    assert set(made) == {Elsewhere, torch.Tensor}
