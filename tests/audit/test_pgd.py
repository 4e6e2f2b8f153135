"""The audit's own PGD: on affine classifiers it breaks a sample exactly if ε exceeds the distance."""

import pytest
import torch

from robustode.attacks.norms import distance
from robustode.audit.pgd import LOSSES, PGD, margin_loss
from robustode.errors import AttackError, BudgetError
from tests.audit.problems import EPS, Through, affine, clear_of, distances


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_it_breaks_what_is_nearer_than_the_radius(norm, loss):
    model, x, y = affine()
    reach = distances(model, x, y, norm)
    eps = float(reach.median()) * 1.01
    result = PGD(norm=norm, eps=eps, loss=loss)(model, x, y, generator=torch.Generator().manual_seed(0))
    sure = clear_of(reach, eps)
    assert torch.equal(result.success[sure], (reach < eps)[sure])
    assert 10 < int(result.success.sum()) < 30


def test_in_l1_it_takes_the_coordinate_of_the_largest_slope():
    model, x, y = affine()
    row = (model.weight[0] - model.weight[1]).detach()
    reach = (model(x)[:, 0] - model(x)[:, 1]).abs() / row.abs().max()
    result = PGD(norm="l1", eps=0.3)(model, x, y, generator=torch.Generator().manual_seed(0))
    assert not result.success[reach >= 0.3].any()
    assert result.success[reach < 0.85 * 0.3].all()  # what is left of the start after 40 steps is (16 / 17)⁴⁰ = 0.09
    assert int((reach < 0.85 * 0.3).sum()) > 5


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_the_path_stays_in_ball_and_box_and_its_losses_are_those_of_the_model(norm):
    model, x, y = affine(classes=3)
    seen = []
    watched = Through(model, inputs=lambda point: seen.append(point.detach()) or point)
    _, losses = PGD(norm=norm, eps=0.6, steps=9, loss="margin").climb(watched, x, y)
    assert losses.shape == (10, len(x))
    for point, value in zip(seen, losses, strict=True):
        assert distance(x, point, norm).max() <= 0.6 * (1 + 1e-5)
        assert point.min() >= 0
        assert point.max() <= 1
        torch.testing.assert_close(value, margin_loss(model(point), y).double())
    assert distance(x, seen[0], norm).min() > 0.01


def test_the_point_returned_is_that_of_smallest_margin():
    model, x, y = affine(classes=3)
    seen = []
    watched = Through(model, logits=lambda z: seen.append(margin_loss(z.detach(), y)) or z)
    points, _ = PGD(norm="l2", eps=EPS, steps=5).climb(watched, x, y)
    torch.testing.assert_close(margin_loss(model(points), y), torch.stack(seen[:6]).amax(0))


def test_the_losses_are_the_closed_forms():
    z, y = torch.tensor([[2.0, 1.0, -1.0]]), torch.tensor([0])
    assert float(LOSSES["margin"](z, y)) == -1
    assert float(LOSSES["ce"](z, y)) == pytest.approx(float(-torch.log_softmax(z, 1)[0, 0]))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"norm": "l3"}, BudgetError, "unknown norm"),
        ({"eps": 0.0}, BudgetError, "eps of PGD: expected a positive number, got 0.0"),
        ({"steps": 0}, AttackError, "steps of PGD: expected at least 1, got 0"),
        ({"loss": "cw"}, AttackError, "unknown loss of PGD: expected one of ce, margin, got 'cw'"),
    ],
)
def test_parameters_out_of_range(options, error, message):
    with pytest.raises(error, match=message):
        PGD(**{"norm": "l2", "eps": 0.1, **options})


def test_no_target_and_no_gradient():
    model, x, y = affine()
    with pytest.raises(AttackError, match="expected no target"):
        PGD(norm="l2", eps=EPS)(model, x, y, target=y)
    detached = Through(model, logits=lambda z: z.detach())
    with pytest.raises(AttackError, match="gradient of the model: expected one with respect to its input, got none"):
        PGD(norm="l2", eps=EPS)(detached, x, y)
