"""The judge decides: predictions as of a batch of one, distances measured again, box and ball checked with τ."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from robustode.attacks.norms import ball_tolerance
from robustode.evaluation.judge import AGREE, Judge, box_tolerance, same_answers
from tests.evaluation.problem import Coupled, affine
from tests.problems import Affine, random_affine, random_points, random_snode

NORMS = ("l2", "linf", "l1")


def threshold(dtype=torch.float32, dimension=4):
    """Class 1 where the first coordinate exceeds 1/2."""
    weight = torch.zeros(2, dimension, dtype=dtype)
    weight[1, 0] = 1.0
    return Affine(weight, torch.tensor([0.5, 0.0], dtype=dtype), (dimension,)).eval()


def moved(x, by, norm="linf"):
    """Each sample moved so that the first coordinate crosses and the norm of the step is `by`."""
    step = torch.zeros_like(x)
    step[:, 0] = by
    if norm == "linf":
        step[:, 1:] = by
    return x + step


class Counting(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.calls = model, []
        self.bounds, self.classes, self.input_shape = model.bounds, model.classes, model.input_shape

    def forward(self, x):
        self.calls.append(len(x))
        return self.model(x)


@pytest.mark.parametrize("norm", NORMS)
def test_a_point_in_the_ball_that_changes_the_answer_is_a_success(norm):
    model, x = threshold(), torch.full((1, 4), 0.4)
    x_adv = moved(x, 0.2, norm)
    verdict = Judge(model).judge(x, x_adv, torch.tensor([0]), norm=norm, eps=0.21)
    assert verdict.success.tolist() == [True]
    assert verdict.pred.tolist() == [1]
    assert verdict.distance[0].item() == pytest.approx(0.2, rel=1e-6)
    assert verdict.margin[0].item() == pytest.approx(-0.1, rel=1e-5)
    assert verdict.message == ("",)
    same = Judge(model).judge(x, x, torch.tensor([0]), norm=norm, eps=0.21)
    assert same.success.tolist() == [False]
    assert same.distance.tolist() == [math.inf]
    assert same.margin[0].item() == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_tolerance_of_the_ball(norm):
    """ε + τ is inside, a little more is not: τ covers the rounding of float32 points, and nothing else."""
    model, x, y, eps = threshold(torch.float64), torch.full((1, 4), 0.4, dtype=torch.float64), torch.tensor([0]), 0.2
    tau = ball_tolerance(eps, (0.0, 1.0), 4, norm)
    assert 0 < tau < 1e-6
    for by, inside in ((eps + 0.99 * tau, True), (eps + 1.01 * tau, False), (eps + 1e-4, False)):
        verdict = Judge(model).judge(x, moved(x, by, norm), y, norm=norm, eps=eps)
        assert verdict.pred.tolist() == [1]
        assert verdict.success.tolist() == [inside]
        said = "" if inside else f"the attack returned a point at distance {by:.6g}, outside the ball"
        assert verdict.message == (said,)


def test_float32_points_a_hair_outside_are_inside():
    """x + ε sign in float32 lies above ε by rounding for many samples; all of them are accepted."""
    model, eps = threshold(dimension=50), 8 / 255
    x = random_points((50,), 200, dtype=torch.float32, lo=0.1, hi=0.9)
    x[:, 0] = 0.49
    x_adv = x + torch.tensor(eps, dtype=torch.float32)
    gap = (x_adv.double() - x.double()).abs().amax(1)
    assert (gap > eps).float().mean() > 0.5  # the trap is real
    assert Judge(model).judge(x, x_adv, torch.zeros(200, dtype=torch.int64), norm="linf", eps=eps).success.all()


def test_points_outside_the_box_are_refused_and_rounding_is_clipped():
    model, y = threshold(), torch.tensor([0])
    x = torch.tensor([[0.4, 1.0, 0.0, 0.5]])
    slack = box_tolerance(model.bounds)
    hair = torch.tensor([[0.6, 1.0 + 2.0**-23, -0.5 * slack, 0.5]])
    verdict = Judge(model).judge(x, hair, y, norm="linf", eps=None)
    assert verdict.success.tolist() == [True]
    assert verdict.x_adv.max() <= 1
    assert verdict.x_adv.min() >= 0
    out = hair.clone()
    out[0, 1] = 1.001
    verdict = Judge(model).judge(x, out, y, norm="linf", eps=None)
    assert verdict.success.tolist() == [False]
    assert verdict.distance.tolist() == [math.inf]
    assert verdict.message == ("the attack returned a point outside the box",)


def test_points_that_are_not_finite_are_refused():
    model, y = threshold(), torch.zeros(3, dtype=torch.int64)
    x = torch.full((3, 4), 0.4)
    x_adv = moved(x, 0.2)
    x_adv[0, 2], x_adv[1, 3] = math.nan, math.inf
    verdict = Judge(model).judge(x, x_adv, y, norm="l2", eps=None)
    assert verdict.success.tolist() == [False, False, True]
    assert verdict.message == ("the attack returned a value that is not finite",) * 2 + ("",)
    assert verdict.x_adv.isfinite().all()


def test_targeted():
    model, data = affine()
    judge = Judge(model)
    pred, _ = judge.answer(data.x, data.y)
    x, y = data.x[pred == data.y][:4], pred[pred == data.y][:4]
    other = data.x[[int((pred == (label + 1) % 3).nonzero()[0]) for label in y]]
    verdict = judge.judge(x, other, y, norm="l2", eps=None, target=(y + 1) % 3)
    assert verdict.success.all()
    assert (verdict.margin < 0).all()
    verdict = judge.judge(x, other, y, norm="l2", eps=None, target=(y + 2) % 3)
    assert not verdict.success.any()
    assert (verdict.margin > 0).all()


def test_answers_that_are_not_finite_are_no_class():
    class Broken(Affine):
        def forward(self, x):
            z = super().forward(x)
            return torch.where(x[:, :1] > 0.5, torch.nan, z)

    plain = threshold()
    model = Broken(plain.weight.detach(), plain.bias.detach(), (4,)).eval()
    x = torch.tensor([[0.4, 0, 0, 0], [0.6, 0, 0, 0]])
    pred, margin = Judge(model).answer(x, torch.tensor([0, 1]))
    assert pred.tolist() == [0, -1]
    assert margin.tolist() == [pytest.approx(0.1, rel=1e-5), -math.inf]
    verdict = Judge(model).judge(x[:1], x[1:], torch.tensor([0]), norm="l2", eps=None)
    assert verdict.success.tolist() == [True]  # the model gives no answer there
    assert verdict.pred.tolist() == [-1]


def test_a_batch_coupled_model_is_asked_one_by_one():
    model = Coupled(random_affine())
    x = random_points((1, 3, 4), 20)
    judge = Judge(model)
    z = judge.logits(x)
    alone = torch.cat([model(x[i : i + 1]) for i in range(len(x))])
    assert torch.equal(z, alone)
    assert not torch.equal(z.argmax(1), model(x).argmax(1))  # in a batch it would have been another answer
    model.calls.clear()
    judge.logits(x)
    assert model.calls == [1] * 20


def test_batches_are_used_where_they_agree():
    model = Counting(random_snode())
    x = random_points((1, 3, 4), 600)
    judge = Judge(model)
    z = judge.logits(x)
    assert sorted(model.calls) == [1] * 16 + [88, 256, 256, 256]  # 16 samples alone, their batch, then three batches
    torch.testing.assert_close(z, model.model(x))
    model.calls.clear()
    judge.logits(x[:300])
    assert model.calls == [256, 44]


def test_near_the_boundary_every_sample_is_asked_alone():
    """A model whose batches differ from its samples by less than 1e-4 decides near ties otherwise in a batch."""

    class Rounds(Counting):
        def forward(self, x):
            z = super().forward(x)
            return z + (5e-5 if len(x) > 1 else 0.0) * torch.tensor([1.0, -1.0])

    model = Rounds(threshold())
    x = torch.full((40, 4), 0.4)
    probed = torch.linspace(0, 39, 16, dtype=torch.float64).round().long()
    near = torch.tensor([k for k in range(40) if k not in probed.tolist()])
    x[near, 0] = 0.5 + 2e-5  # alone class 1, in a batch class 0; the probe does not see it
    judge = Judge(model)
    pred, margin = judge.answer(x, torch.zeros(40, dtype=torch.int64))
    assert pred[near].tolist() == [1] * 24
    assert pred[probed].tolist() == [0] * 16
    assert margin[near].tolist() == pytest.approx([-2e-5] * 24, rel=1e-2)
    model.calls.clear()
    judge.answer(x, torch.zeros(40, dtype=torch.int64))
    assert model.calls == [40] + [1] * 24


@pytest.mark.parametrize(("noise", "alone"), [(0.0, 16 + 10), (1e-6, 16 + 30), (2e-5, 200)])
def test_near_the_boundary_a_batch_is_trusted_as_far_as_it_is_seen_to_agree(noise, alone):
    """200 near ties: 10 at 1e-6 and 20 at 2e-5, which batches with little noise cannot decide, the others at 9e-5."""

    class Rounds(Counting):
        def forward(self, x):
            z = super().forward(x)
            sign = 1 - 2 * (x[:, 1:2] > 0.5).float()  # to one side or the other, sample by sample
            return z + (noise if len(x) > 1 else 0.0) * sign * torch.tensor([1.0, -1.0])

    model = Rounds(threshold())
    x = torch.full((200, 4), 0.4)
    x[:, 1] = torch.arange(200) % 2
    x[:, 0] = 0.5 + 9e-5
    every = torch.linspace(0, 199, 16, dtype=torch.float64).round().long()  # those that are asked first
    others = torch.tensor([k for k in range(200) if k not in every.tolist()])
    x[others[:10], 0], x[others[10:30], 0] = 0.5 + 1e-6, 0.5 + 2e-5
    judge = Judge(model)
    judge.logits(torch.rand(64, 4, generator=torch.Generator().manual_seed(0)))
    model.calls.clear()
    pred, margin = judge.answer(x, torch.zeros(200, dtype=torch.int64))
    assert model.calls == [200] + [1] * alone
    assert pred.tolist() == [1] * 200
    assert margin[others[:30]].tolist() == pytest.approx(
        [-1e-6] * 10 + [-2e-5] * 20, abs=2.1 * noise * (alone < 46) + 2e-7
    )


def test_a_single_sample_decides_nothing():
    model = Counting(random_affine())
    judge = Judge(model)
    x = random_points((1, 3, 4), 4)
    judge.logits(x[:1])
    judge.logits(x)
    assert model.calls == [1, 4, 1, 1, 1, 1, 4]


def test_empty():
    judge = Judge(random_affine())
    x = random_points((1, 3, 4), 0)
    verdict = judge.judge(x, x, torch.zeros(0, dtype=torch.int64), norm="l2", eps=0.1)
    assert len(verdict.distance) == len(verdict.success) == len(verdict.message) == 0


def test_same_answers():
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert same_answers(z, z + 0.9 * AGREE)
    assert not same_answers(z, z + torch.tensor([2 * AGREE, 0.0]))
    assert not same_answers(torch.tensor([[1e-5, 0.0]]), torch.tensor([[-1e-5, 0.0]]))
    nan = torch.tensor([[math.nan, 0.0]])
    assert same_answers(nan, nan)
    assert not same_answers(nan, torch.zeros(1, 2))
    assert same_answers(torch.tensor([[math.inf, 0.0]]), torch.tensor([[math.inf, 0.0]]))


def test_the_verdict_carries_no_graph():
    model, x = threshold(), torch.full((1, 4), 0.4)
    x_adv = (x + 0.2).requires_grad_(True)
    verdict = Judge(model).judge(x, x_adv * 1.0, torch.tensor([0]), norm="l2", eps=None)
    assert not verdict.x_adv.requires_grad
    assert not verdict.distance.requires_grad
