"""Conjugate directions on a quadratic, where the theory is exact."""

import pytest
import torch

from robustode.errors import TrainingError
from robustode.training.directions import Previous, direction, polak_ribiere_plus, steepest
from robustode.training.sobolev import Sobolev


def test_conjugate_gradients_solve_a_quadratic_in_as_many_iterations_as_distinct_eigenvalues():
    # 1/2 uᵀAu − bᵀu with A = S D S, S the root of the inner product's matrix, so that D holds the eigenvalues in it
    sobolev = Sobolev(6, 2.0, 0.8)
    values, vectors = torch.linalg.eigh(sobolev.matrix)
    root = vectors @ torch.diag(values.sqrt()) @ vectors.t()
    a = root @ torch.diag(torch.tensor([1.0, 1, 4, 4, 9, 9], dtype=torch.float64)) @ root
    b = torch.randn(6, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    errors = {}
    for name in ("polak-ribiere+", "steepest"):
        u, previous = torch.zeros_like(b), None
        for _ in range(3):
            g = a @ u - b
            v = sobolev.gradient(g)
            d = direction(name, v, previous, sobolev.inner)
            u = u - float((g * d).sum() / (d * (a @ d)).sum()) * d
            previous = Previous(v, d)
        errors[name] = float((a @ u - b).norm())
    assert errors["polak-ribiere+"] < 1e-12
    assert errors["steepest"] > 1e-2


def test_formulas_and_restart():
    def inner(u, v):
        return float((u * v).sum())

    v, v_, d_ = (torch.tensor(t, dtype=torch.float64) for t in ([1.0, 2.0], [2.0, 0.0], [-3.0, 1.0]))
    assert polak_ribiere_plus(v, v_, d_, inner) == (5 - 2) / 4
    assert polak_ribiere_plus(v_ / 2, v_, d_, inner) == 0.0  # the plus: negative values restart
    assert steepest(v, v_, d_, inner) == 0.0
    assert direction("polak-ribiere+", v, Previous(v_, d_), inner).tolist() == [-1 - 2.25, -2 + 0.75]
    assert direction("polak-ribiere+", v, None, inner).tolist() == [-1.0, -2.0]


def test_unknown_direction():
    message = (
        r"unknown direction: expected one of polak-ribiere\+, steepest, got 'polak'. Did you mean 'polak-ribiere\+'"
    )
    with pytest.raises(TrainingError, match=message):
        direction("polak", torch.zeros(1), Previous(torch.zeros(1), torch.zeros(1)), lambda u, v: 0.0)
