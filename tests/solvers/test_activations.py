"""Activations against closed forms: values, slopes through the values, kinks, extremes."""

import math

import pytest
import torch

from robustode.errors import ModelError
from robustode.solvers.activations import ACTIVATIONS, activation
from tests.problems import random_points, random_snode

S = 0.1
KINKS = {"relu": (0.0,), "leaky_relu": (0.0,), "elu": (0.0,)}


def srelu(a):
    return 0.0 if a <= -S else a if a >= S else (a + S) ** 2 / (4 * S)


def elu(a, alpha):
    return a if a > 0 else alpha * math.expm1(a)


# σ and σ' as functions of a number
FORMULAS = {
    "tanh": (math.tanh, lambda a: 1 / math.cosh(a) ** 2),
    "sigmoid": (lambda a: 1 / (1 + math.exp(-a)), lambda a: math.exp(-a) / (1 + math.exp(-a)) ** 2),
    "relu": (lambda a: max(a, 0.0), lambda a: float(a > 0)),
    "leaky_relu": (lambda a: a if a > 0 else 0.01 * a, lambda a: 1.0 if a > 0 else 0.01),
    "srelu": (srelu, lambda a: min(max((a + S) / (2 * S), 0.0), 1.0)),
    "slrelu": (
        lambda a: 0.01 * a + 0.99 * srelu(a),
        lambda a: 0.01 + 0.99 * min(max((a + S) / (2 * S), 0.0), 1.0),
    ),
    "elu": (lambda a: elu(a, 0.2), lambda a: 1.0 if a > 0 else 0.2 * math.exp(a)),
    "selu": (lambda a: elu(a, 1.0), lambda a: 1.0 if a > 0 else math.exp(a)),
    "softplus": (lambda a: math.log1p(math.exp(a)), lambda a: 1 / (1 + math.exp(-a))),
    "identity": (lambda a: a, lambda a: 1.0),
}
# σ(−∞), σ'(−∞), σ(∞), σ'(∞)
LIMITS = {
    "tanh": (-1.0, 0.0, 1.0, 0.0),
    "sigmoid": (0.0, 0.0, 1.0, 0.0),
    "relu": (0.0, 0.0, math.inf, 1.0),
    "leaky_relu": (-math.inf, 0.01, math.inf, 1.0),
    "srelu": (0.0, 0.0, math.inf, 1.0),
    "slrelu": (-math.inf, 0.01, math.inf, 1.0),
    "elu": (-0.2, 0.0, math.inf, 1.0),
    "selu": (-1.0, 0.0, math.inf, 1.0),
    "softplus": (0.0, 0.0, math.inf, 1.0),
    "identity": (-math.inf, 1.0, math.inf, 1.0),
}
every = pytest.mark.parametrize("name", ACTIVATIONS)


def values(name, a):
    """σ(a) of a copy, and σ'(a) through it."""
    value = activation(name).apply_(a.clone())
    return value, activation(name).slope(value)


def grid(step=1 / 64, reach=5.0):
    """Points from −reach to reach that include 0 and come close to ±s."""
    near = torch.tensor([-S, S, -S + 1e-6, -S - 1e-6, S - 1e-6, S + 1e-6], dtype=torch.float64)
    return torch.cat([torch.arange(-reach, reach + step, step, dtype=torch.float64), near]).sort().values


@every
def test_values_and_slopes_are_the_closed_forms(name):
    a = grid()
    value, slope = values(name, a)
    sigma, derivative = FORMULAS[name]
    assert torch.allclose(value, torch.tensor([sigma(float(t)) for t in a], dtype=torch.float64), rtol=0, atol=1e-14)
    expected = torch.tensor([derivative(float(t)) for t in a], dtype=torch.float64)
    assert torch.allclose(slope, expected, rtol=0, atol=1e-13)


@every
def test_slopes_are_those_of_the_values(name):
    h = 1e-6
    a = grid(step=0.0613)
    bends = torch.tensor([0.0, *((-S, S) if name in ("srelu", "slrelu") else ())], dtype=torch.float64)
    a = a[((a[:, None] - bends).abs() > 2 * h).all(1)]  # there only one-sided derivatives, or a jump of σ''
    difference = (values(name, a + h)[0] - values(name, a - h)[0]) / (2 * h)
    assert torch.allclose(values(name, a)[1], difference, rtol=1e-6, atol=1e-9)


@every
def test_continuous_nondecreasing_and_smooth_where_it_says_so(name):
    a = torch.arange(-3, 3, 1e-4, dtype=torch.float64)
    value, slope = values(name, a)
    assert (value.diff() >= -1e-16).all()
    assert value.diff().max() <= 1.001e-4  # |σ'| ≤ 1 for all of them
    assert (slope >= 0).all()
    jumps = a[:-1][slope.diff().abs() > 1e-2]  # σ'' ≤ 1/(2s) = 5 where it exists
    assert activation(name).smooth is (len(jumps) == 0)
    assert torch.allclose(jumps, torch.tensor(KINKS.get(name, ()), dtype=torch.float64), rtol=0, atol=1.1e-4)


@every
def test_slope_at_zero_and_sigma_of_zero(name):
    a = torch.zeros(1, dtype=torch.float64)
    sigma, derivative = FORMULAS[name]  # the convention at kinks: from the left
    assert float(values(name, a)[1]) == pytest.approx(derivative(0.0), rel=1e-14, abs=0)
    assert activation(name).at_zero == pytest.approx(sigma(0.0), rel=1e-14, abs=0)


@every
def test_nonnegative_is_true_exactly_where_no_value_is_negative(name):
    value, _ = values(name, torch.cat([grid(), torch.tensor([-1e4, -math.inf], dtype=torch.float64)]))
    assert activation(name).nonnegative is bool((value >= 0).all())


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_arguments(name, dtype):
    left, left_slope, right, right_slope = LIMITS[name]
    far = 3e38 if dtype is torch.float32 else 1e308
    for a, end, slope_end in ((-math.inf, left, left_slope), (math.inf, right, right_slope)):
        for x in (a, math.copysign(1e4, a), math.copysign(far, a)):
            value, slope = values(name, torch.tensor([x], dtype=dtype))
            exact = end if math.isfinite(end) else end if math.isinf(x) else x * slope_end
            assert value.dtype == slope.dtype == dtype
            assert float(value) == pytest.approx(exact, rel=1e-6 if dtype is torch.float32 else 1e-14, abs=0)
            assert float(slope) == pytest.approx(slope_end, rel=1e-6, abs=0)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_single_precision_and_tiny_arguments(name, dtype):
    a = torch.cat([grid(reach=120.0, step=0.37), torch.tensor([1e-30, -1e-30], dtype=torch.float64)])
    value, slope = values(name, a.to(dtype))
    exact, exact_slope = values(name, a.to(dtype).double())
    eps = torch.finfo(dtype).eps
    assert torch.allclose(value.double(), exact, rtol=4 * eps, atol=2 * eps)
    assert torch.allclose(slope.double(), exact_slope, rtol=4 * eps, atol=16 * eps)
    assert torch.isfinite(value).all()


@every
def test_in_place_and_nan(name):
    a = torch.tensor([[0.3, math.nan, -0.3], [-0.02, 2.0, math.nan]])
    nan = a.isnan()
    value = activation(name).apply_(a)
    assert value.data_ptr() == a.data_ptr()
    kept = value.clone()
    slope = activation(name).slope(value)
    assert torch.equal(value[~nan], kept[~nan])  # the slope leaves the value alone
    assert slope.data_ptr() != value.data_ptr()
    for result in (value, slope):
        assert torch.equal(result.isnan(), nan)


@every
@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_the_sweep_differentiates_it(name, method):
    model = random_snode(activation=name, method=method, input_shape=(4,), classes=2, steps=4, knots=2)
    x = random_points((4,), 2).requires_grad_(True)

    def run(x, weight, bias):
        return torch.func.functional_call(model, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(run, (x, model.weight, model.bias), rtol=1e-6, atol=1e-8)


def test_every_activation_has_its_formula():
    assert set(FORMULAS) == set(LIMITS) == set(ACTIVATIONS)
    with pytest.raises(ModelError, match=r"expected one of elu, .*, got 'rellu'. Did you mean 'relu'"):
        activation("rellu")


@every
def test_slope_in_place_is_the_slope(name):
    value, slope = values(name, torch.linspace(-3, 3, 41))
    assert torch.equal(activation(name).slope_(value), slope)
