"""The clean accuracy stops a run whose robust accuracies would mean nothing."""

from __future__ import annotations

import pytest
import torch

from robustode.errors import ModelError
from robustode.evaluation import records
from robustode.evaluation.clean import CleanAccuracy, is_below, is_chance
from robustode.evaluation.plan import make_plan
from robustode.evaluation.protocol import build_protocol
from robustode.models import save_checkpoint
from tests.evaluation.problem import Noisy, affine, as_data, plan_of, refused
from tests.evaluation.runs import BUDGETS, contents, run
from tests.problems import random_affine, random_points, random_snode


def test_chance_stops_the_run_and_nothing_is_written(tmp_path):
    _, data = affine()
    bad = plan_of(random_affine(3, seed=5, dtype=torch.float32), data, attacks="fgm-l2")
    assert len(data) == 30
    refused(ModelError, "no better than chance (", lambda: run(bad, tmp_path / "a"))
    refused(ModelError, "a missing or doubled normalisation (--mean/--std", lambda: run(bad, tmp_path / "a"))
    assert not (tmp_path / "a").exists()
    allowed = plan_of(random_affine(3, seed=5, dtype=torch.float32), data, attacks="fgm-l2", allow_low_accuracy=True)
    assert run(allowed, tmp_path / "a").meta["status"] == "complete"


def test_force_keeps_the_old_run_until_the_new_one_may_begin(plan, tmp_path):
    run(plan, tmp_path / "a")
    before = contents(tmp_path / "a")
    bad = plan_of(random_affine(3, seed=5, dtype=torch.float32), plan.data, attacks="fgm-l2")
    refused(ModelError, "no better than chance", lambda: run(bad, tmp_path / "a", force=True))
    assert contents(tmp_path / "a") == before


@pytest.mark.parametrize(
    ("correct", "n", "chance", "stops"),
    [
        (100, 1000, 0.1, True),
        (128, 1000, 0.1, True),  # 0.1 + 3 √(0.09 / 1000) = 0.1285
        (129, 1000, 0.1, False),
        (5, 5, 0.5, False),  # so few samples can never lie three standard errors above chance
        (3, 5, 0.5, False),
        (2, 4, 0.5, True),
        (8, 10, 0.5, True),  # 0.5 + 3 √(0.25 / 10) = 0.974
        (10, 10, 0.5, False),
        (7, 7, 1.0, False),  # one class only: nothing to compare with
    ],
)
def test_chance(correct, n, chance, stops):
    assert is_chance(CleanAccuracy(correct=correct, n=n), chance) is stops


@pytest.mark.parametrize(
    ("correct", "n", "recorded", "stops"),
    [
        (900, 1000, 0.95, False),
        (899, 1000, 0.95, True),  # more than five points
        (89, 100, 0.95, False),  # 0.95 − 3 √(0.9 · 0.1 / 100) = 0.86: with few samples six points say nothing
        (85, 100, 0.95, True),
        (9, 10, 1.0, False),
        (7, 10, 1.0, True),
        (1000, 1000, 0.5, False),
        (0, 10, 0.03, False),
    ],
)
def test_below_the_record(correct, n, recorded, stops):
    assert is_below(CleanAccuracy(correct=correct, n=n), recorded) is stops


def test_an_accuracy_far_below_the_checkpoints_stops(tmp_path):
    model = random_snode(scale=2.0, input_shape=(1, 8, 8), classes=10, dtype=torch.float32)
    path = save_checkpoint(model, tmp_path / "a.safetensors", data="digits", provenance={"accuracy": 0.95})
    x = random_points((1, 8, 8), 2000, dtype=torch.float32)
    with torch.no_grad():
        label = model(x).argmax(1)
    common = torch.bincount(label).argsort(descending=True)[:3]
    x = torch.cat([x[label == k][:20] for k in common])
    y = common.repeat_interleave(20)
    y[:12] = (y[:12] + 1) % 10
    data = as_data(x, y, classes=10)
    protocol = build_protocol({"models": [str(path)], "attacks": "none"})
    with pytest.raises(ModelError) as caught:
        run(make_plan(protocol, data=data), tmp_path / "run")
    assert "clean accuracy of 'a' is 80.0% of 60 samples, but its checkpoint records 95.0%. Likely" in str(caught.value)
    assert not (tmp_path / "run").exists()
    allowed = build_protocol({**protocol.model_dump(), "allow_low_accuracy": True})
    assert run(make_plan(allowed, data=data), tmp_path / "run").meta["models"][0]["clean_accuracy"] == 0.8


def test_a_random_model_needs_eot(suite, tmp_path):
    model, data = affine()
    values = {"attacks": suite, "budgets": BUDGETS, "allow_low_accuracy": True}
    noisy = Noisy(model, 0.05)
    message = "model 'Noisy' answers differently when asked again: expected a deterministic classifier in eval mode"
    refused(ModelError, message, lambda: run(plan_of(noisy, data, **values), tmp_path / "a"))
    assert not (tmp_path / "a").exists()
    plan = plan_of(noisy, data, **{**values, "attacks": "fgm-l2", "also": ["sensitivity-l2"], "budgets": {}, "eot": 4})
    torch.manual_seed(0)
    made = run(plan, tmp_path / "a")
    assert made.meta["eot"] == 4
    assert made.meta["models"][0]["arch"] == "Noisy"
    attacked = records.rows(made.records, attack="fgm-l2", status="success")
    assert (attacked["forwards"] == 4 * 2).all()  # every answer costs four passes
    assert (attacked["backwards"] == 4).all()
    torch.manual_seed(1)
    run(plan, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")  # its noise follows the run's seed, too
