"""The constraint of a row of the search: margins hard and soft, of all classes or of one."""

import math

import pytest
import torch

from robustode.attacks.constraint import constraint


def draws(rows=6, classes=5):
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("one", [False, True])
def test_cotangents_are_derivatives(targeted, temperature, one):
    """Central differences with τ held: the spread of the logits is not differentiated."""
    logits, own = draws(), torch.tensor([0, 1, 2, 3, 4, 0])
    candidate = (own + 2) % 5 if one else None
    options = {"targeted": targeted, "candidate": candidate, "temperature": temperature}
    value, cotangent = constraint(logits, own, **options)
    low, high = logits.argmin(1), logits.argmax(1)
    for k in range(5):
        inner = (k != low) & (k != high) if temperature else torch.ones(6, dtype=torch.bool)  # τ does not move
        step = torch.zeros_like(logits)
        step[:, k] = 1e-6
        slope = (constraint(logits + step, own, **options)[0] - constraint(logits - step, own, **options)[0]) / 2e-6
        assert torch.allclose(slope[inner], cotangent[inner, k], atol=1e-8)
    assert value.abs().min() > 0.01
    assert torch.allclose(cotangent.sum(1), torch.zeros(6, dtype=torch.float64), atol=1e-12)


def test_signs_limits_and_scale():
    logits, own = draws(), torch.tensor([0, 1, 2, 3, 4, 0])
    hard, _ = constraint(logits, own, targeted=False)
    others = logits.clone().scatter_(1, own[:, None], -math.inf).amax(1)
    assert torch.equal(hard, logits.gather(1, own[:, None]).squeeze(1) - others)
    assert torch.equal(constraint(logits, own, targeted=True)[0], -hard)
    soft = constraint(logits, own, targeted=False, temperature=0.1)
    assert (soft[0] < hard).all()
    assert torch.allclose(constraint(logits, own, targeted=False, temperature=1e-4)[0], hard, atol=1e-3)
    scaled = constraint(1e3 * logits + 7, own, targeted=False, temperature=0.1)
    assert torch.allclose(scaled[0], 1e3 * soft[0], rtol=1e-9)
    assert torch.allclose(scaled[1], soft[1], rtol=1e-9)
    one = constraint(logits, own, targeted=False, candidate=(own + 1) % 5)[0]
    assert torch.equal(one, (logits.gather(1, own[:, None]) - logits.gather(1, (own[:, None] + 1) % 5)).squeeze(1))
    assert (one >= hard).all()


@pytest.mark.parametrize("temperature", [0.0, 0.1])
def test_what_is_not_finite_or_constant(temperature):
    logits = torch.tensor([[1.0, float("nan"), 0.0], [1.0, 1.0, 1.0], [float("inf"), 0.0, 0.0]], dtype=torch.float64)
    value, cotangent = constraint(logits, torch.zeros(3, dtype=torch.int64), targeted=False, temperature=temperature)
    assert value[0] == math.inf
    assert value[1] == pytest.approx(0.0, abs=1e-12)
    assert value[2] == math.inf
    assert torch.isfinite(cotangent).all()
