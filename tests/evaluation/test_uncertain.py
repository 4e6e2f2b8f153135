"""Accuracy under input noise: the prediction is exact for an affine classifier of two classes, and drawing agrees."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

from robustode.evaluation import uncertain
from robustode.evaluation.uncertain import noise_table
from tests.attacks.adapter_problems import boxed_affine, exact_distance
from tests.evaluation.problem import as_data, plan_of


@pytest.fixture
def plan():
    model, x, y = boxed_affine((0.0, 1.0), samples=40, dtype=torch.float32)
    y[:3] = 1 - y[:3]
    return plan_of(model, as_data(x, y, index=torch.arange(40) + 7, classes=2))


def test_prediction_and_draws_agree_with_the_closed_form(plan):
    """P(correct) = Φ(±r / σ), r the distance to the boundary: the noise is not clipped to the box."""
    model = plan.models[0].module.module
    x, y = plan.data.x, plan.data.y
    r = exact_distance(model, x, model(x).argmax(1), "l2") * torch.where(model(x).argmax(1) == y, 1, -1)
    sigmas = (0.05, 0.3)
    summary, rows = noise_table(plan, sigmas, draws=2000, seed=0)
    for sigma, line in zip(sigmas, summary.to_dict("records"), strict=True):
        exact = (0.5 * (1 + torch.erf(r / sigma / math.sqrt(2)))).tolist()
        found = rows[rows["sigma"] == sigma]
        assert found["predicted"].tolist() == pytest.approx(exact, abs=1e-4)
        spread = [5 * math.sqrt(p * (1 - p) / 2000) + 1e-3 for p in exact]
        assert all(abs(p - q) < s for p, q, s in zip(found["monte_carlo"], exact, spread, strict=True))
        assert line["predicted"] == pytest.approx(sum(exact) / 40, abs=1e-4)
        assert abs(line["monte_carlo"] - line["predicted"]) < 5 * line["standard_error"]
        assert 0 < line["standard_error"] < 0.5 / math.sqrt(40 * 2000) * 1.01
        assert (line["n"], line["draws"]) == (40, 2000)
    assert summary["predicted"].is_monotonic_decreasing


def test_one_row_for_each_sample_and_sigma(plan):
    summary, rows = noise_table(plan, [0.1, 0.2], draws=3, seed=1)
    assert summary["sigma"].tolist() == [0.1, 0.2]
    assert rows["sample"].tolist() == 2 * plan.data.index.tolist()
    assert rows["label"].tolist() == 2 * plan.data.y.tolist()
    assert set(rows["model"]) == {"Affine"}
    assert (rows["monte_carlo"] * 3).round(6).isin([0, 1, 2, 3]).all()


def test_draws_follow_the_seed(plan, monkeypatch):
    first = noise_table(plan, [0.1], draws=5, seed=3)[1]
    torch.manual_seed(9)
    pd.testing.assert_frame_equal(noise_table(plan, [0.1], draws=5, seed=3)[1], first)
    assert not noise_table(plan, [0.1], draws=5, seed=4)[1].equals(first)
    monkeypatch.setattr(uncertain, "CHUNK", 16)
    chunked = noise_table(plan, [0.1], draws=5, seed=3)[1]
    assert chunked["predicted"].tolist() == pytest.approx(first["predicted"].tolist(), abs=1e-6)
    assert len(chunked) == 40
