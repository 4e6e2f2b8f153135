"""Directions of attack against their definitions, and the one-step attack in closed form."""

import pytest
import torch

from robustode import sensitivity
from robustode.attacks.direction import OneStepAttack, direction
from robustode.errors import BudgetError, OptionError, RobustODEError
from tests.problems import random_affine, random_points, random_snode


def test_margin_direction_of_two_classes_is_the_normal():
    model = random_affine(classes=2)
    x = random_points(model.input_shape, 5)
    y = model(x).argmax(1)
    normal = model.weight[1 - y] - model.weight[y]
    l2 = direction(model, x, "margin", "l2").flatten(1)
    assert torch.allclose(l2, torch.nn.functional.normalize(normal, dim=1).detach(), atol=1e-12)
    assert torch.equal(direction(model, x, "margin", "linf").flatten(1), normal.sign())


def test_singular_direction_stretches_most():
    model = random_snode(scale=2.0)
    x = random_points(model.input_shape, 4)
    jac = sensitivity.jacobian(model, x).flatten(2)
    centred = jac - jac.mean(1, keepdim=True)
    delta = direction(model, x, "singular", "l2").flatten(1)
    stretch = (centred @ delta[:, :, None]).squeeze(2).norm(dim=1)
    assert torch.allclose(stretch, torch.linalg.matrix_norm(centred, ord=2), rtol=1e-9)
    signs = direction(model, x, "singular", "linf").flatten(1)
    assert torch.equal(signs.abs(), torch.ones_like(signs))
    value = (centred @ signs[:, :, None]).squeeze(2).norm(dim=1)
    g = torch.Generator().manual_seed(0)
    random = torch.randn(4, 12, 500, generator=g, dtype=torch.float64).sign()
    assert (value >= (centred @ random).norm(dim=1).quantile(0.99, dim=1)).all()
    own = model(x).argmax(1)
    z = jac @ delta[:, :, None]
    fall = z.squeeze(2).gather(1, own[:, None]).squeeze(1) - z.squeeze(2).mean(1)
    assert (fall < 0).sum() >= 3  # the sign lowers the model's own prediction


def test_tangent_direction_is_the_sensitivity_solution():
    model = random_snode()
    x = random_points(model.input_shape, 3)
    dx0 = random_points(model.input_shape, 3, seed=9) - 0.5
    h = 1e-6
    with torch.no_grad():
        expected = (model(x + h * dx0) - model(x - h * dx0)) / (2 * h)
    assert torch.allclose(direction(model, x, "tangent", dx0=dx0), expected, atol=1e-8)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_one_step_along_the_margin_is_exact_on_an_affine_classifier(norm):
    model = random_affine(classes=2, bounds=(-99.0, 99.0))
    x = random_points(model.input_shape, 20)
    y = model(x).argmax(1)
    z = model(x).detach()
    gap = z.gather(1, y[:, None]).squeeze(1) - z.gather(1, 1 - y[:, None]).squeeze(1)
    dual = {"l2": 2, "linf": 1}[norm]
    truth = gap / torch.linalg.vector_norm((model.weight[0] - model.weight[1]).detach(), ord=dual)
    for i in range(20):
        for factor, found in ((1 + 1e-9, True), (1 - 1e-9, False)):
            attack = OneStepAttack(norm=norm, eps=float(truth[i]) * factor)
            assert bool(attack(model, x[i : i + 1], y[i : i + 1]).success) is found


def test_random_steps_draw_per_sample():
    model = random_affine()
    x = random_points(model.input_shape, 6)
    y = model(x).argmax(1)
    attack = OneStepAttack(norm="linf", eps=0.9, kind="random")

    def generators(rows):
        return [torch.Generator().manual_seed(100 + i) for i in rows]

    together = attack(model, x, y, generator=generators(range(6)))
    part = attack(model, x[3:5], y[3:5], generator=generators([3, 4]))
    assert torch.equal(together.x_adv[3:5], part.x_adv)
    assert together.success.any()
    again = attack(model, x, y, generator=generators(range(6)))
    assert torch.equal(together.x_adv, again.x_adv)


def test_bad_arguments():
    model = random_affine()
    x = random_points(model.input_shape, 2)
    with pytest.raises(OptionError, match="Did you mean 'margin'"):
        direction(model, x, "margn")
    with pytest.raises(OptionError, match="dx0"):
        direction(model, x, "tangent")
    with pytest.raises(BudgetError, match="eps of a one-step attack: expected a positive number"):
        OneStepAttack()
    with pytest.raises(RobustODEError, match="unknown kind of one-step attack"):
        OneStepAttack(eps=0.1, kind="fgsm")
