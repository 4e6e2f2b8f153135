"""Distances to every class, against the exact ones of an affine classifier."""

import numpy as np
import pytest
import torch

from robustode.attacks import SensitivityAttack, Status, to_every_class
from tests.attacks.test_sensitivity_attack import lowest
from tests.problems import random_affine, random_points, random_snode


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_distances_are_those_of_a_program(norm):
    model = random_affine(classes=4)
    x = random_points(model.input_shape, 8)
    own = model(x).argmax(1)
    found = to_every_class(SensitivityAttack(norm=norm, setting="thorough"), model, x)
    assert found.distance.shape == (8, 4)
    assert found.x_adv.shape == (8, 4, *model.input_shape)
    ratios = []
    for i in range(8):
        for k in range(4):
            if k == own[i]:
                assert found.distance[i, k] == 0
                assert found.status[i][k] is Status.MISCLASSIFIED
                assert torch.equal(found.x_adv[i, k], x[i])
                continue
            truth = lowest(model, x[i], k, norm)
            assert found.distance[i, k] >= truth * (1 - 1e-6)
            if found.status[i][k] is Status.SUCCESS:
                ratios.append(float(found.distance[i, k]) / truth)
                assert int(model(found.x_adv[i, k][None]).argmax()) == k
    assert len(ratios) >= 15
    assert np.median(ratios) < 1.01
    assert max(ratios) < 1.2  # where classes tie, the walk ends beside the corner


def test_the_nearest_class_is_the_untargeted_answer():
    model = random_snode(scale=2.0)
    x = random_points(model.input_shape, 10)
    attack = SensitivityAttack(norm="l2", setting="thorough")
    found = to_every_class(attack, model, x)
    untargeted = attack(model, x, model(x).argmax(1)).distance
    nearest = found.distance.masked_fill(found.distance == 0, torch.inf).amin(1)
    assert ((nearest / untargeted)[torch.isfinite(untargeted)] < 1.02).double().mean() >= 0.9
    assert found.forwards is not None
    assert (found.forwards > 0).sum() == 10 * 3
    assert to_every_class(attack, model, x[:0]).distance.shape == (0, 4)
