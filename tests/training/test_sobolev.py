"""The Sobolev gradient against its eigenfunctions."""

import math
from itertools import pairwise

import pytest
import torch

from robustode.solvers.depth import knot_depths
from robustode.training.sobolev import Sobolev


def test_symmetric_positive_definite():
    sobolev = Sobolev(9, 3.0, 1.0)
    assert torch.equal(sobolev.matrix, sobolev.matrix.t())
    assert torch.linalg.eigvalsh(sobolev.matrix).min() == pytest.approx(3.0 / 9, rel=1e-12)  # of the constant
    g = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float((g * sobolev.gradient(g)).sum()) > 0


def test_gradient_represents_the_derivative_in_the_inner_product():
    sobolev = Sobolev(7, 2.0, 0.6)
    g = torch.Generator().manual_seed(1)
    u, w = (torch.randn(7, 4, 3, generator=g, dtype=torch.float64) for _ in range(2))
    assert sobolev.inner(sobolev.gradient(u), w) == pytest.approx(float((u * w).sum()), rel=1e-12)


@pytest.mark.parametrize("k", [1, 2])
def test_eigenfunctions_to_order_two(k):
    horizon, length = 3.0, 0.7
    exact = 1 / (1 + (length * k * math.pi / horizon) ** 2)
    errors = []
    for knots in (16, 32, 64):
        mode = torch.cos(k * math.pi / horizon * knot_depths(knots, horizon))[:, None]
        v = Sobolev(knots, horizon, length).gradient(mode * horizon / knots)  # Euclidean gradient of the L2 gradient
        errors.append(float((v - exact * mode).abs().max()))
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert orders[-1] == pytest.approx(2.0, abs=0.1)


def test_constants_and_length_zero():
    ones = torch.full((6, 2), 0.25, dtype=torch.float64)
    assert torch.allclose(Sobolev(6, 3.0, 2.0).gradient(ones * 0.5), ones, rtol=1e-13)
    u = torch.randn(6, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.allclose(Sobolev(6, 3.0, 0.0).gradient(u * 0.5), u, rtol=1e-13)


def test_one_knot():
    assert Sobolev(1, 4.0, 1.0).gradient(torch.ones(1, 2, dtype=torch.float64)).tolist() == [[0.25, 0.25]]
