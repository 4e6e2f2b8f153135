"""The same numbers on a CUDA device as on the CPU, to the precision of their arithmetic."""

import pytest
import torch

from robustode import sensitivity
from robustode.api import evaluate
from robustode.attacks.sensitivity import SensitivityAttack
from tests.problems import random_points, random_snode

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


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


def test_evaluate():
    runs = [evaluate("zoo:snode-digits", limit=30, device=device) for device in ("cpu", "cuda")]
    key = ["attack", "eps", "sample"]
    first, second = (run.records.sort_values(key).reset_index(drop=True) for run in runs)
    deterministic = first["attack"].str.startswith("sensitivity")
    a, b = (frame.loc[deterministic, "distance"].to_numpy() for frame in (first, second))
    assert (abs(a - b) <= 1e-3 * a).mean() >= 0.97
