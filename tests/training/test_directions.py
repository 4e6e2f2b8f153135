"""Conjugate directions on a quadratic, where the theory is exact."""

import pytest
import torch

from robustode.errors import TrainingError
from robustode.training.directions import DIRECTIONS, Previous, direction, gamma
from robustode.training.sobolev import Sobolev

CONJUGATE = [name for name in DIRECTIONS if name != "steepest"]


def euclidean(u, v):
    return float((u * v).sum())


def descend(name, a, b, to_gradient, inner, iterations):
    """Minimise 1/2 uᵀAu − bᵀu from 0 with exact line search; return iterates, directions and Euclidean gradients."""
    u, previous = torch.zeros_like(b), None
    iterates, directions, gradients = [u], [], [a @ u - b]
    for _ in range(iterations):
        v = to_gradient(gradients[-1])
        d = direction(name, v, previous, inner)
        u = u - float((gradients[-1] * d).sum() / (d * (a @ d)).sum()) * d
        previous = Previous(v, d)
        iterates.append(u)
        directions.append(d)
        gradients.append(a @ u - b)
    return iterates, directions, gradients


def positive_definite(n, seed):
    m = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return m @ m.t() / n + torch.eye(n, dtype=torch.float64)


@pytest.fixture(scope="module")
def quadratic():
    """A, b, the gradient map M⁻¹ and ⟨u, v⟩ = uᵀMv in R⁶, none of them diagonal."""
    a, m = positive_definite(6, 1), positive_definite(6, 2)
    b = torch.randn(6, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return a, b, lambda g: torch.linalg.solve(m, g), lambda u, v: float((u * (m @ v)).sum())


@pytest.mark.parametrize("name", CONJUGATE)
def test_all_are_the_same_on_a_quadratic_and_need_as_many_iterations_as_unknowns(name, quadratic):
    a, b = quadratic[:2]
    iterates, directions, gradients = descend(name, *quadratic, 6)
    reference = descend("fletcher-reeves", *quadratic, 6)[0]
    for u, same in zip(iterates, reference, strict=True):
        assert torch.allclose(u, same, rtol=0, atol=1e-10)
    assert torch.allclose(iterates[-1], torch.linalg.solve(a, b), rtol=0, atol=1e-10)
    assert float(gradients[5].norm()) > 1e-4  # not before
    d = torch.cat(directions, 1)
    products = d.t() @ a @ d
    off = products - products.diag().diag()
    assert off.abs().max() < 1e-10  # conjugate
    assert products.diag().min() > 1e-6


def test_steepest_descent_is_not_conjugate(quadratic):
    gradients = descend("steepest", *quadratic, 6)[2]
    assert float(gradients[-1].norm()) > 1e-3


@pytest.mark.parametrize("name", CONJUGATE)
def test_the_wrong_inner_product_does_not_converge_as_fast(name, quadratic):
    a, b, to_gradient, _ = quadratic
    assert float(descend(name, a, b, to_gradient, euclidean, 6)[2][-1].norm()) > 1e-6


@pytest.mark.parametrize("name", DIRECTIONS)
def test_conjugate_gradients_solve_a_quadratic_in_as_many_iterations_as_distinct_eigenvalues(name):
    # A = S D S, S the root of the inner product's matrix, so that D holds the eigenvalues in it
    sobolev = Sobolev(6, 2.0, 0.8)
    values, vectors = torch.linalg.eigh(sobolev.matrix)
    root = vectors @ torch.diag(values.sqrt()) @ vectors.t()
    a = root @ torch.diag(torch.tensor([1.0, 1, 4, 4, 9, 9], dtype=torch.float64)) @ root
    b = torch.randn(6, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    error = float(descend(name, a, b, sobolev.gradient, sobolev.inner, 3)[2][-1].norm())
    assert error > 1e-2 if name == "steepest" else error < 1e-12


# ⟨v, v⟩ = 5, ⟨v, y⟩ = 3, ⟨d₋, y⟩ = 5 with y = v − v₋ = (−1, 2); ⟨v₋, v₋⟩ = 4
HAND = {
    "fletcher-reeves": 5 / 4,
    "polak-ribiere+": 3 / 4,
    "fr-pr": 3 / 4,
    "hestenes-stiefel": 3 / 5,
    "dai-yuan": 5 / 5,
    "steepest": 0.0,
}


@pytest.mark.parametrize("name", DIRECTIONS)
def test_formulas_and_restart(name):
    v, v_, d_ = (torch.tensor(t, dtype=torch.float64) for t in ([1.0, 2.0], [2.0, 0.0], [-3.0, 1.0]))
    factor = HAND[name]
    assert gamma(name)(v, v_, d_, euclidean) == factor
    assert direction(name, v, Previous(v_, d_), euclidean).tolist() == [-1 - 3 * factor, -2 + factor]
    assert direction(name, v, None, euclidean).tolist() == [-1.0, -2.0]
    assert (v.tolist(), d_.tolist()) == ([1.0, 2.0], [-3.0, 1.0])  # nothing is changed


@pytest.mark.parametrize("name", DIRECTIONS)
def test_formulas_use_the_inner_product_and_nothing_else(name):
    v, v_, d_ = (torch.tensor(t, dtype=torch.float64) for t in ([1.0, 2.0], [2.0, 0.0], [-3.0, 1.0]))
    scale = torch.tensor([2.0, 4.0], dtype=torch.float64)

    def stretched(u, w):
        return euclidean(scale * u, scale * w)

    expected = gamma(name)(v, v_, d_, stretched)
    assert gamma(name)(scale * v, scale * v_, scale * d_, euclidean) == expected
    if name != "steepest":
        assert expected != HAND[name]


def test_clipping():
    v_, d_ = torch.tensor([2.0, 0.0], dtype=torch.float64), torch.tensor([-3.0, 1.0], dtype=torch.float64)
    near, opposite = v_ / 2, -v_  # PR: (1 − 2)/4 and 2; FR: 1/4 and 1
    assert gamma("polak-ribiere+")(near, v_, d_, euclidean) == 0.0  # the plus: negative values restart
    assert gamma("fr-pr")(near, v_, d_, euclidean) == -0.25
    assert gamma("fr-pr")(opposite, v_, d_, euclidean) == 1.0
    assert gamma("polak-ribiere+")(opposite, v_, d_, euclidean) == 2.0


@pytest.mark.parametrize("name", DIRECTIONS)
def test_zero_denominators_restart(name):
    v, zero = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    assert gamma(name)(v, zero, zero, euclidean) == 0.0  # v₋ = 0 and d₋ = 0
    assert direction(name, v, Previous(zero, zero), euclidean).tolist() == [-1.0, -2.0]
    assert gamma(name)(v, v, zero, euclidean) in (0.0, 1.0)  # v = v₋: ⟨d₋, v − v₋⟩ = 0


@pytest.mark.parametrize("name", ["hestenes-stiefel", "dai-yuan"])
def test_orthogonal_changes_restart(name):
    v, change = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([2.0, 1.0], dtype=torch.float64)
    assert gamma(name)(v, v - change, torch.tensor([1.0, -2.0], dtype=torch.float64), euclidean) == 0.0


@pytest.mark.parametrize("name", ["fletcher-reeves", "polak-ribiere+", "fr-pr"])
def test_overflow_restarts(name):
    v, tiny = torch.tensor([1e5, 2e5], dtype=torch.float64), torch.full((2,), 1e-160, dtype=torch.float64)
    assert gamma(name)(v, tiny, tiny, euclidean) == 0.0


def test_unknown_direction():
    message = r"unknown direction: expected one of dai-yuan, .*, got 'polak'. Did you mean 'polak-ribiere\+'"
    with pytest.raises(TrainingError, match=message):
        direction("polak", torch.zeros(1), Previous(torch.zeros(1), torch.zeros(1)), lambda u, v: 0.0)
