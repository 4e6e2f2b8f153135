"""The margin of stored points against closed forms: an affine model, where the push is known exactly."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from robustode.attacks.norms import ball_tolerance, distance
from robustode.evaluation.judge import Judge
from robustode.evaluation.margins import AIM, FURTHEST, SHARE, TIMES, logit_change, secure
from robustode.evaluation.runner import execute
from robustode.evaluation.shards import read_header
from tests.evaluation.problem import Coupled, Noisy, affine, plan_of
from tests.problems import Affine


def boundary_points(model: Affine, x: Tensor, y: Tensor, norm: str, beyond: float = 1e-7) -> Tensor:
    """The nearest points of an affine model's boundary (box inactive), a hair beyond."""
    with torch.no_grad():
        rows = model.weight[y][:, None] - model.weight[None]
        z = model(x)
        size = rows.norm(dim=2) if norm == "l2" else rows.abs().sum(2)
        reach = (z.gather(1, y[:, None]) - z) / size
        reach[torch.arange(len(x)), y] = math.inf
        k = reach.argmin(1)
        row = rows[torch.arange(len(x)), k]
        step = row / row.norm(dim=1, keepdim=True) if norm == "l2" else row.sign()
        return x - ((reach.amin(1, keepdim=True) * (1 + beyond)) * step).reshape(x.shape)


def problem(dtype=torch.float64):
    model, data = affine(wrong=0, dtype=dtype)
    return model, data.x.to(dtype), data.y


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_an_affine_point_moves_by_the_exact_factor(norm):
    """With clean margin m₀ and the point m₁ beyond, the margin sought is met at s = 1 + (1.2 r − m₁)/(m₀ + m₁)."""
    model, x, y = problem()
    points = boundary_points(model, x, y, norm)
    free = torch.full((len(x),), math.inf, dtype=torch.float64)
    judge = Judge(model)
    found = secure(judge, x, points, y, norm=norm, ball=free)
    need = torch.maximum(SHARE * model(points).abs().amax(1), TIMES * logit_change(model, points)).detach()
    before, clean = -judge.answer(points, y)[1], judge.answer(x, y)[1]
    factor = 1 + (AIM * need - before) / (clean + before)
    assert torch.allclose(found.distance / distance(x, points, norm), factor, rtol=1e-9, atol=0)
    assert (factor > 1 + 1e-5).all()
    straight = model(x).topk(2).indices[:, 1] == found.pred  # the class next to the label is the same all along the ray
    assert straight.sum() > 15
    assert torch.allclose(found.margin[straight], AIM * need[straight], rtol=2e-3, atol=0)  # need is that at s = 1
    assert (found.margin >= 1.1 * found.required).all()
    assert torch.allclose(found.required, need, rtol=1e-3)
    assert (found.pred != y).all()
    assert torch.allclose(found.x_adv, x + factor[:, None, None, None] * (points - x), rtol=0, atol=1e-12)


def test_a_point_with_its_margin_stays_as_it_is():
    model, x, y = problem(torch.float32)
    points = boundary_points(model, x, y, "l2", beyond=0.02)
    found = secure(Judge(model), x, points, y, norm="l2", ball=torch.full((len(x),), math.inf, dtype=torch.float64))
    assert torch.equal(found.x_adv, points)
    assert (found.margin >= found.required).all()


def test_a_point_stays_in_its_ball_or_where_it_was():
    """Room of 1 % lets every point have its margin; room of a tenth of the push leaves it where it was, and thin."""
    model, x, y = problem(torch.float32)
    points = boundary_points(model, x, y, "linf", beyond=1e-6)
    gap = distance(x, points, "linf")
    free = torch.full((len(x),), math.inf, dtype=torch.float64)
    push = secure(Judge(model), x, points, y, norm="linf", ball=free).distance - gap
    roomy = secure(Judge(model), x, points, y, norm="linf", ball=gap + 2 * push)
    assert (roomy.margin >= roomy.required).all()
    tight = secure(Judge(model), x, points, y, norm="linf", ball=gap + 0.1 * push)
    limit = gap + 0.1 * push + ball_tolerance(0.0, (0.0, 1.0), x[0].numel(), "linf")
    assert (tight.distance <= limit * (1 + 1e-6)).all()
    thin = tight.margin < tight.required
    assert thin.sum() > 20
    assert torch.equal(tight.x_adv[thin], points[thin])
    assert torch.equal(tight.distance[thin], gap[thin])


def test_a_point_is_never_moved_to_more_than_twice_its_distance():
    """The other class is nowhere ahead by more than 2e-5 of the logits: no s is enough."""

    class Plateau(nn.Module):
        bounds, classes, input_shape = (0.0, 1.0), 2, (1,)

        def forward(self, x: Tensor) -> Tensor:
            lead = 1e-5 * torch.tanh(1e3 * (x[:, 0] - 0.5))
            return torch.stack([1 - lead, 1 + lead], dim=1)

    x, points, y = torch.tensor([[0.4]]).double(), torch.tensor([[0.51]]).double(), torch.tensor([0])
    assert int(Judge(Plateau()).answer(points, y)[0]) == 1
    found = secure(Judge(Plateau()), x, points, y, norm="l2", ball=torch.tensor([math.inf]).double())
    assert torch.equal(found.x_adv, points)
    assert float(found.margin) < float(found.required)
    assert FURTHEST == 2.0


def test_a_margin_that_comes_and_goes_along_the_ray_is_met_where_it_was_measured():
    """Beyond the boundary at 0.5 the lead is a hump of width 0.02: only points whose margin was seen are taken."""

    class Hump(nn.Module):
        bounds, classes, input_shape = (0.0, 1.0), 2, (1,)

        def forward(self, x: Tensor) -> Tensor:
            t = x[:, 0] - 0.5
            lead = torch.where(t > 0, 0.05 * t * (0.02 - t), 10 * t)
            return torch.stack([-lead / 2, lead / 2], dim=1)

    x, points = torch.tensor([[0.3], [0.5 + 1e-9]], dtype=torch.float64).split(1)
    y = torch.tensor([0])
    found = secure(Judge(Hump()), x, points, y, norm="l2", ball=torch.tensor([math.inf]).double())
    assert int(found.pred) == 1
    assert float(found.margin) >= 1.1 * float(found.required) > 0


def test_the_change_of_logits_is_that_of_batches_and_dtypes():
    model, data = affine()
    x, w = data.x, model.weight.detach()
    exact = x.double().flatten(1) @ w.double().t() + model.bias.detach().double()
    change = logit_change(model, x)
    with torch.no_grad():
        alone = torch.cat([model(x[i : i + 1]) for i in range(len(x))]).double()
        pair = torch.cat([model(x[i : i + 2]) for i in range(0, len(x), 2)]).double()
    least = torch.maximum((alone - exact).abs().amax(1), (alone - pair).abs().amax(1))
    assert (change >= least).all()
    assert (change <= 1e-5).all()
    assert float(change.max()) > 0


def test_a_model_whose_answer_depends_on_its_batch_asks_for_ten_times_that():
    model, data = affine()
    coupled = Coupled(model)
    change = logit_change(coupled, data.x)
    assert (change > 0.01).all()
    assert {1, 2, 256} <= set(coupled.calls)
    noisy = logit_change(Noisy(model, 1e-3), data.x)
    assert 1e-3 < float(noisy.median()) < 6e-3


def test_one_sample_alone_is_compared_in_full_batches_too():
    model, data = affine()
    coupled = Coupled(model)
    logit_change(coupled, data.x[:1])
    assert coupled.calls[:3] == [1, 2, 256]


def test_a_module_that_does_not_convert_is_compared_across_batches_alone():
    class Fixed(Affine):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.float().to(torch.float32))

    model, data = affine()
    fixed = Fixed(model.weight.detach(), model.bias.detach(), model.input_shape)
    assert (logit_change(fixed, data.x) <= logit_change(model, data.x) + 1e-12).all()


def test_values_that_are_not_finite():
    """A model that answers nan alone, in batches and in float64 changes nothing; nan in float32 only is a change."""

    class Overflow(nn.Module):
        bounds, classes, input_shape = (0.0, 1.0), 2, (1,)

        def __init__(self, size: float) -> None:
            super().__init__()
            self.size = nn.Parameter(torch.tensor(size, dtype=torch.float32))

        def forward(self, x: Tensor) -> Tensor:
            z = torch.exp(self.size * x)
            return torch.cat([z - z, z], dim=1)

    x = torch.ones(3, 1)
    assert (logit_change(Overflow(2000.0), x) == 0).all()
    assert (logit_change(Overflow(200.0), x) == math.inf).all()


def test_no_points():
    model, x, y = problem(torch.float32)
    found = secure(Judge(model), x[:0], x[:0], y[:0], norm="l2", ball=torch.zeros(0, dtype=torch.float64))
    assert len(found.x_adv) == len(found.margin) == len(found.distance) == 0


ATTACKS = {"attacks": "sensitivity", "norms": ["l2", "linf"], "also": ["fgm-l2"], "shard": 12}


def test_stored_points_of_a_run(tmp_path):
    """No stored point has less than its margin; none flips when every logit moves by the change that was measured."""
    model, data = affine()
    run = execute(plan_of(model, data, **ATTACKS), tmp_path / "run", command="test")
    for norm in ("l2", "linf"):
        path = run.path / "adversarials" / f"Affine-{norm}.safetensors"
        stored, head = load_file(path), read_header(path)
        assert (head["n"], head["correct"], head["thin"]) == (30, 28, 0)
        assert head["pushed"] == int((stored["distance"] > stored["found"]).sum()) > 20
        assert (stored["distance"] >= stored["found"]).all()
        assert (stored["distance"] <= stored["found"] * 1.02).all()
        assert torch.equal(stored["distance"], distance(stored["x"], stored["x_adv"], norm))
        with torch.no_grad():
            z = model(stored["x_adv"]).double()
        change = logit_change(model, stored["x_adv"])
        own = z.gather(1, stored["label"][:, None]).squeeze(1)
        lead = z.scatter(1, stored["label"][:, None], -math.inf).amax(1) - own
        assert (lead >= SHARE * z.abs().amax(1)).all()
        assert (lead > 2 * change).all()  # the label's logit up, all others down
        assert (lead >= TIMES * change).all()
        with safe_open(path, "pt") as file:
            assert set(json.loads(file.metadata()["robustode"])) >= {"eps", "tolerances", "bounds", "eot", "model_hash"}


def test_points_of_an_attack_in_a_ball_keep_to_it(tmp_path):
    """FGM's points lie on the sphere of ε: there is no room, and what they show at ε they go on to show."""
    model, data = affine()
    values = {"attacks": "fgm-l2", "budgets": {"l2": [0.05, 0.1, 0.2]}}
    run = execute(plan_of(model, data, **values), tmp_path / "run", command="test")
    path = run.path / "adversarials" / "Affine-l2.safetensors"
    stored, head = load_file(path), read_header(path)
    for eps, tolerance in zip(head["eps"], head["tolerances"], strict=True):
        inside = stored["found"] <= eps + tolerance
        assert (stored["distance"][inside] <= eps + tolerance).all()
    assert len(stored["found"]) > 15
