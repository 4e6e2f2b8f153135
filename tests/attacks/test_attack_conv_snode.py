"""The sensitivity attack on a convolutional sNODE, whose Jacobian comes from the fused sweep."""

import torch

from robustode.attacks import SensitivityAttack
from tests.problems import random_conv_snode, random_points


def test_minimal_perturbations_reach_the_boundary_and_not_beyond():
    model = random_conv_snode(scale=3.0).requires_grad_(False)
    x = random_points(model.input_shape, 8)
    y = model(x).argmax(1)
    result = SensitivityAttack(norm="l2")(model, x, y)
    assert result.success.all()
    assert (model(result.x_adv).argmax(1) != y).all()
    assert ((result.x_adv - x).flatten(1).norm(dim=1) - result.distance).abs().max() < 1e-9
    inside = x + 0.98 * (result.x_adv - x)
    assert torch.equal(model(inside).argmax(1), y)
    assert result.distance.min() > 1e-4
