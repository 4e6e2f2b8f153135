"""Points of models whose answers depend on the batch: they hold alone, and nearly at the exact distance."""

import pytest
import torch
from torch import nn

from robustode.attacks.search import Search
from robustode.attacks.sensitivity import SensitivityAttack
from robustode.attacks.settle import settle
from robustode.evaluation.counting import Counted
from robustode.evaluation.judge import Judge
from robustode.models.wrap import wrap
from tests.attacks.test_sensitivity_attack import exact
from tests.problems import Affine, random_affine, random_points

COUPLING = 0.05


class Coupled(nn.Module):
    """Logits of an affine classifier, and c times the mean of the batch for class 0."""

    def __init__(self, inner: Affine) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        shift = torch.zeros(self.inner.classes, dtype=x.dtype)
        shift[0] = COUPLING * x.mean()
        return self.inner(x) + shift


def problem():
    """Return the coupled classifier, inputs, labels, and what it is to a sample alone, again an affine classifier."""
    inner = random_affine()
    model = wrap(Coupled(inner), bounds=inner.bounds, sample=torch.zeros(1, *inner.input_shape, dtype=torch.float64))
    alone = random_affine()
    with torch.no_grad():
        alone.weight[0] += COUPLING / alone.weight.shape[1]
    x = random_points(inner.input_shape, 40)
    return model, alone, x, alone(x).argmax(1)


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
@pytest.mark.parametrize("setting", ["quick", "fast"])
def test_points_hold_alone_near_the_exact_distance(norm, setting):
    model, alone, x, y = problem()
    truth = exact(alone, x, y, norm)
    result = SensitivityAttack(norm=norm, setting=setting)(model, x, y)
    verdict = Judge(model).judge(x, result.returned, y, norm=norm, eps=None)
    together = model(x).argmax(1) == y
    assert verdict.success[together].all()
    assert result.success[together].all()
    ratio = (verdict.distance / truth)[together]
    assert (ratio >= 1 - 1e-9).all()
    assert ratio.median() < 1.02
    assert len(ratio) > 35


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_ball_is_not_left(norm):
    model, alone, x, y = problem()
    truth = exact(alone, x, y, norm)
    eps = float(truth.median())
    attack = SensitivityAttack(norm=norm, eps=eps)
    result = attack(model, x, y)
    verdict = Judge(model).judge(x, result.returned, y, norm=norm, eps=eps)
    assert not (result.success & ~verdict.success).any()
    assert verdict.success[truth < 0.9 * eps].float().mean() > 0.9
    assert not verdict.success[truth > eps * (1 + 1e-6)].any()


@pytest.mark.parametrize("eps", [None, 0.3])
def test_a_model_without_coupling_costs_nothing_and_keeps_its_points(eps, monkeypatch):
    model = random_affine()
    x = random_points(model.input_shape, 20)
    y = model(x).argmax(1)
    settled = SensitivityAttack(eps=eps)(Counted(model), x, y)
    monkeypatch.setattr("robustode.attacks.sensitivity.settle", lambda *_: None)
    plain = SensitivityAttack(eps=eps)(Counted(model), x, y)
    assert torch.equal(settled.returned, plain.returned)
    assert torch.equal(settled.forwards, plain.forwards)


def test_a_point_that_never_holds_is_given_up():
    model, _, x, y = problem()
    search = Search.of(model, x, y, None, "l2")
    search.best_x[:] = x + 1e-9
    search.best[:] = 1e-9  # next to the clean points, whose answers are the labels
    settle(search, None)
    assert torch.equal(search.best_x, x)
    assert torch.isinf(search.best).all()


def test_rounding_is_seen_where_a_point_is_asked_alone():
    """Another answer for a batch of one, as another kernel rounds it: by more than the margins of the points."""

    class Rounded(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            shift = torch.zeros(self.inner.classes, dtype=x.dtype)
            shift[0] = 1e-9 * (len(x) == 1)
            return self.inner(x) + shift

    inner = random_affine(classes=2)
    model = wrap(Rounded(inner), bounds=inner.bounds, sample=torch.zeros(2, *inner.input_shape, dtype=torch.float64))
    x = random_points(inner.input_shape, 30)
    y = inner(x).argmax(1)
    result = SensitivityAttack()(model, x, y)
    verdict = Judge(model).judge(x, result.returned, y, norm="l2", eps=None)
    assert result.success.all()
    assert verdict.success.all()


def test_a_batch_of_nothing_is_never_asked():
    """Adaptive solvers raise there; here nothing is found, since all inputs have one class."""

    class Refusing(nn.Module):
        def forward(self, x):
            if len(x) == 0:
                raise ValueError("a batch of nothing")
            return torch.stack([1 + 0 * x.sum(1), 0 * x.sum(1)], 1)

    model = wrap(Refusing(), bounds=(0.0, 1.0), sample=torch.zeros(1, 3))
    result = SensitivityAttack()(model, torch.rand(4, 3), torch.zeros(4, dtype=torch.long))
    assert not result.success.any()
