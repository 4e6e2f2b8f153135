"""Sensitivity along depth of a run: exact on a linear field, absent where there is no depth to follow."""

from __future__ import annotations

import math

import numpy as np
import torch

from robustode.evaluation.depth import (
    COLUMNS,
    GROWTH,
    REACH,
    SPREAD,
    along_depth_of,
    read_depth,
    spread_along_depth_of,
    write_depth,
)
from robustode.models.snode import SNODE
from tests.evaluation.problem import affine

RATE, HORIZON, STEPS = 0.7, 1.5, 6


def linear(n=70):
    """An sNODE with x' = RATE x, of which Euler makes the factor 1 + RATE h in every step."""
    model = SNODE(input_shape=(4,), classes=3, horizon=HORIZON, steps=STEPS, activation="identity").double()
    with torch.no_grad():
        model.weight.copy_(RATE * torch.eye(4, dtype=torch.float64).expand_as(model.weight))
        model.bias.zero_()
    x = torch.rand(n, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return model, x, model(x).argmax(1)


def test_a_linear_field_grows_by_its_factor_in_every_step():
    model, x, y = linear()
    found = along_depth_of("m", model, x, y)
    assert list(found.columns) == list(COLUMNS)
    assert set(found["n"]) == {64}
    powers = (1 + RATE * HORIZON / STEPS) ** np.arange(STEPS + 1)
    for quantity, exact in ((GROWTH, powers), (REACH, powers[::-1])):
        rows = found[found["quantity"] == quantity]
        np.testing.assert_allclose(rows["depth"], np.linspace(0, HORIZON, STEPS + 1))
        for column in ("median", "lo", "hi"):
            np.testing.assert_allclose(rows[column], exact, rtol=1e-12)


def test_noise_spreads_as_a_linear_field_says():
    model, x, _ = linear()
    found = spread_along_depth_of("m", model, x, 0.1)
    powers = (1 + RATE * HORIZON / STEPS) ** np.arange(STEPS + 1)
    np.testing.assert_allclose(found["median"], 0.1 * math.sqrt(3) * powers, rtol=1e-10)  # three logits
    assert set(found["quantity"]) == {SPREAD}
    assert set(found["n"]) == {16}
    assert spread_along_depth_of("a", affine()[0], x, 0.1).empty


def test_other_models_and_no_samples_have_none(tmp_path):
    model, data = affine()
    assert along_depth_of("a", model, data.x, data.y).empty
    snode, x, y = linear()
    assert along_depth_of("m", snode, x[:0], y[:0]).empty
    write_depth([along_depth_of("a", model, data.x, data.y)], tmp_path)
    assert read_depth(tmp_path) is None


def test_written_and_read_back(tmp_path):
    model, x, y = linear(5)
    found = along_depth_of("m", model, x, y)
    write_depth([found], tmp_path)
    back = read_depth(tmp_path)
    assert back is not None
    assert back.equals(found)
