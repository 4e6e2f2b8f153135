"""Products of rounded factors: exact where nothing is rounded, within the format's unit elsewhere."""

import pytest
import torch

from robustode.solvers.operators import Convolution, Dense
from robustode.solvers.rounded import Rounded
from tests.problems import random_conv_snode, random_points, random_snode

UNIT = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}  # half the distance of two numbers next to 1
CASES = {"dense": (Dense(), (7,), (7, 7)), "kernel": (Convolution(), (3, 4, 6), (3, 3, 3, 3))}


@pytest.fixture(params=CASES)
def case(request):
    operator, state, shape = CASES[request.param]
    g = torch.Generator().manual_seed(0)
    return operator, g, (5, *state), shape


@pytest.mark.parametrize("dtype", UNIT)
def test_small_whole_numbers_are_exact(case, dtype):
    operator, g, state, shape = case
    rounded = Rounded(operator, dtype)
    z, mu = (torch.randint(-2, 3, state, generator=g).float() for _ in range(2))
    weight = torch.randint(-1, 2, shape, generator=g).float()
    bias = torch.randn(shape[0], generator=g)
    for own, right in (
        (rounded.product(z, weight), operator.product(z, weight)),
        (rounded.transposed(mu, weight), operator.transposed(mu, weight)),
    ):
        assert own.dtype == torch.float32
        assert torch.equal(own, right)
        assert right.abs().max() > 4
    assert torch.equal(rounded.affine(z, weight, bias), operator.product(z, weight) + operator.spread(bias))


@pytest.mark.parametrize("dtype", UNIT)
def test_the_error_is_that_of_the_format(case, dtype):
    operator, g, state, shape = case
    rounded, unit = Rounded(operator, dtype), UNIT[dtype]
    z, weight = torch.randn(state, generator=g), torch.randn(shape, generator=g)
    error = (rounded.product(z, weight) - operator.product(z.double(), weight.double())).abs()
    assert (error <= (3 * unit + 4 * unit**2) * operator.product(z.double().abs(), weight.double().abs())).all()
    assert error.max() > unit / 8  # they are rounded
    mu = torch.randn(state, generator=g)
    left, right = (rounded.product(z, weight) * mu).sum(), (z * rounded.transposed(mu, weight)).sum()
    size = (operator.product(z.abs(), weight.abs()) * mu.abs()).sum()
    assert abs(left - right) <= 6 * unit * size


@pytest.mark.parametrize("make", [random_snode, random_conv_snode])
def test_a_network_with_rounded_products(make):
    """Logits and gradients are near the network's own, and the states keep their format; so do its other grids."""
    model = make(dtype=torch.float32, steps=12)
    view = model.searched(products=torch.bfloat16)
    x = random_points(model.input_shape, 20, dtype=torch.float32)
    with torch.no_grad():
        for steps in (12, 4):
            own, right = view.at_steps(steps)(x), model.at_steps(steps)(x)
            assert own.dtype == torch.float32
            spread = (right.amax(1) - right.amin(1)).mean()
            assert 1e-6 * spread < (own - right).abs().max() < 0.05 * spread
    w = torch.randn(20, model.classes, generator=torch.Generator().manual_seed(1))
    gradients = []
    for one in (view, model):
        point = x.clone().requires_grad_(True)
        gradients.append(torch.autograd.grad((one(point) * w).sum(), point)[0].flatten(1))
    assert torch.nn.functional.cosine_similarity(*gradients).min() > 0.999
    assert not torch.equal(*gradients)
    assert model.config == view.config
