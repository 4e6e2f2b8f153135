"""What a sweep asks of an operator: products, their transposes, and derivatives by the weights."""

import pytest
import torch

from robustode.solvers.operators import Convolution, Dense

ROWS = 5
OPERATORS = {
    "dense": (Dense(), (7,), (7, 7)),
    "kernel-1": (Convolution(), (3, 4, 6), (3, 3, 1, 1)),
    "kernel-3": (Convolution(), (3, 4, 6), (3, 3, 3, 3)),
    "kernel-5": (Convolution(), (2, 7, 3), (2, 2, 5, 5)),
}


@pytest.fixture(params=OPERATORS)
def case(request):
    """An operator with two states, a weight, a bias, and random tensors to add to."""
    operator, state, shape = OPERATORS[request.param]
    g = torch.Generator().manual_seed(3)

    def draw(*size):
        return torch.randn(size, generator=g, dtype=torch.float64)

    return operator, draw(ROWS, *state), draw(ROWS, *state), draw(*shape), draw(shape[0])


def near(a, b):
    return abs(float(a - b)) <= 1e-12 * max(1.0, abs(float(b)))


def test_transpose(case):
    operator, z, mu, weight, _ = case
    left = (operator.product(z, weight) * mu).sum()
    assert near(left, (z * operator.transposed(mu, weight)).sum())
    assert abs(left) > 0.1


def test_weight_and_bias_gradients_are_transposes_too(case):
    operator, z, mu, weight, bias = case
    left = (operator.affine(z, weight, bias) * mu).sum()
    gradient = operator.weight_gradient(mu, z, weight.shape)
    assert gradient.shape == weight.shape
    assert operator.bias_gradient(mu).shape == bias.shape
    assert near(left, (gradient * weight).sum() + (operator.bias_gradient(mu) * bias).sum())


def test_columns_are_what_the_rows_of_the_weight_are_multiplied_with(case):
    operator, z, _, weight, _ = case
    columns = operator.columns(z, weight)
    assert columns.shape[1] == weight[0].numel()
    product = (columns @ weight.flatten(1).t()).unflatten(0, (ROWS, -1)).transpose(1, 2)  # (rows, out, positions)
    expected = operator.product(z, weight)
    assert torch.allclose(product.reshape(expected.shape), expected, rtol=0, atol=1e-12)
    assert expected.abs().max() > 0.1


def test_weight_gradient_against_finite_differences(case):
    operator, z, mu, weight, bias = case
    h = 1e-5

    def value(shifted):  # not linear in the weight
        return (operator.affine(z, shifted, bias).square() / 2 * mu).sum()

    gradient = operator.weight_gradient(mu * operator.affine(z, weight, bias), z, weight.shape)
    for index in (0, weight.numel() // 2, weight.numel() - 1):
        e = torch.zeros_like(weight).view(-1)
        e[index] = h
        e = e.view(weight.shape)
        assert (value(weight + e) - value(weight - e)) / (2 * h) == pytest.approx(
            float(gradient.view(-1)[index]), rel=1e-6
        )


def test_combined_products(case):
    operator, z, mu, weight, bias = case
    product = operator.product(z, weight)
    close = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(operator.affine(z, weight, bias), product + operator.spread(bias), **close)
    torch.testing.assert_close(operator.add_product(mu, z, weight), mu + product, **close)
    out, expected = z.clone(), z + 0.3 * operator.transposed(mu, weight)
    operator.add_transposed_(out, mu, weight, 0.3)
    torch.testing.assert_close(out, expected, **close)
    out, expected = weight.clone(), weight + 0.3 * operator.weight_gradient(mu, z, weight.shape)
    operator.add_weight_gradient_(out, mu, z, 0.3)
    torch.testing.assert_close(out, expected, **close)


def test_convolution_is_that_of_an_image_with_zeros_around():
    z = torch.zeros(1, 1, 3, 4, dtype=torch.float64)
    z[0, 0, 0, 1] = 1.0
    kernel = torch.arange(9, dtype=torch.float64).view(1, 1, 3, 3)
    got = Convolution().product(z, kernel)[0, 0]
    expected = torch.zeros(3, 4, dtype=torch.float64)
    expected[:2, :3] = torch.tensor([[5.0, 4.0, 3.0], [2.0, 1.0, 0.0]])  # a point answers with the turned kernel
    assert torch.equal(got, expected)
