"""The sensitivity attack where the answer is known, where rows must not interact, and where a model misbehaves."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import nn

import robustode as ro
from robustode.attacks.base import Status
from robustode.attacks.norms import ball_tolerance, distance
from robustode.attacks.projections import project
from robustode.attacks.search import Search
from robustode.attacks.sensitivity import SensitivityAttack
from robustode.errors import AttackError, BudgetError, RobustODEError
from tests.problems import random_affine, random_points, random_snode

NORMS = ("l2", "linf", "l1")


def exact(model, x, y, norm, target=None):
    """Minimal distance to the nearest (or the target's) half-space within the box, class by class."""
    best = torch.full((len(x),), math.inf, dtype=torch.float64)
    for k in range(model.classes):
        if target is None:
            normal = model.weight[k] - model.weight[y]
            offset = -((x.flatten(1) * normal).sum(1) + model.bias[k] - model.bias[y])
            step = project(normal.detach(), offset.detach(), x.flatten(1), model.bounds, norm)
            length = distance(torch.zeros_like(step.delta), step.delta, norm)
            best = torch.where((y != k) & step.feasible, torch.minimum(best, length), best)
    return best


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("setting", ["fast", "thorough"])
@pytest.mark.parametrize("wide", [True, False], ids=["box inactive", "box active"])
def test_exact_distance_of_an_affine_classifier(norm, setting, wide):
    bounds = (-50.0, 50.0) if wide else (0.0, 1.0)
    model = random_affine(bounds=bounds)
    x = random_points(model.input_shape, 40)
    y = model(x).argmax(1)
    result = SensitivityAttack(norm=norm, setting=setting)(model, x, y)
    truth = exact(model, x, y, norm)
    assert torch.isfinite(truth).all()
    if not wide:  # the box does cut these steps
        free = exact(random_affine(bounds=(-50.0, 50.0)), x, y, norm)
        assert (truth > free * (1 + 1e-6)).sum() > 3
    assert result.success.all()
    assert ((result.distance - truth).abs() <= 1e-6 * truth).all()
    assert (model(result.x_adv).argmax(1) != y).all()
    assert result.converged is not None
    assert result.converged.all()


def test_float32_finds_the_exact_distance_to_its_precision():
    model = random_affine(dtype=torch.float32)
    x = random_points(model.input_shape, 40, dtype=torch.float32)
    y = model(x).argmax(1)
    truth = exact(model, x, y, "l2")
    result = SensitivityAttack()(model, x, y)
    assert result.success.all()
    assert (result.distance / truth).max() < 1.005
    assert (result.distance >= truth * (1 - 1e-5)).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_targeted_reaches_its_target_at_the_exact_distance_of_two_classes(norm):
    model = random_affine(classes=2)
    x = random_points(model.input_shape, 30)
    y = model(x).argmax(1)
    plain = SensitivityAttack(norm=norm)(model, x, y)
    aimed = SensitivityAttack(norm=norm)(model, x, y, target=1 - y)
    assert torch.allclose(aimed.distance, plain.distance, rtol=1e-9)


def lowest(model, x, target, norm):
    """The targeted minimal distance of an affine classifier by a linear program (L∞) or quadratic program (L2)."""
    w, b = model.weight.detach().numpy(), model.bias.detach().numpy()
    x, d = x.flatten().numpy(), x.numel()
    a = np.delete(w, target, 0) - w[target]  # a (x + δ) + c ≤ 0
    c = np.delete(b, target) - b[target]
    boxes = list(zip(-x, 1 - x, strict=True))
    if norm == "linf":
        bound = np.ones((d, 1))
        upper = np.block([[np.eye(d), -bound], [-np.eye(d), -bound], [a, np.zeros((len(a), 1))]])
        out = linprog(
            np.r_[np.zeros(d), 1], A_ub=upper, b_ub=np.r_[np.zeros(2 * d), -(a @ x + c)], bounds=[*boxes, (0, None)]
        )
        return out.fun if out.success else math.inf
    inside = linprog(np.zeros(d), A_ub=a, b_ub=-(a @ x + c), bounds=boxes)
    if not inside.success:
        return math.inf
    out = minimize(
        lambda z: z @ z,
        inside.x,
        jac=lambda z: 2 * z,
        bounds=boxes,
        constraints={"type": "ineq", "fun": lambda z: -(a @ (x + z) + c), "jac": lambda z: -a},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return math.sqrt(out.fun)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("setting", ["fast", "thorough"])
def test_targeted_against_a_program_with_five_classes(norm, setting):
    model = random_affine(classes=5)
    x = random_points(model.input_shape, 40)
    y = model(x).argmax(1)
    target = (y + 1 + torch.arange(40) % 4) % 5
    truth = torch.tensor([lowest(model, x[i], int(target[i]), norm) for i in range(40)])
    can = torch.isfinite(truth)
    result = SensitivityAttack(norm=norm, setting=setting)(model, x, y, target=target)
    assert can.sum() >= 20
    assert not result.success[~can].any()
    ratio = (result.distance / truth)[can & result.success]
    assert (ratio > 1 - 1e-6).all()
    assert result.success[can].double().mean() >= 0.95
    assert ratio.median() < 1.02


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_targeted_on_an_snode(norm):
    model = random_snode(scale=2.0)
    x = random_points(model.input_shape, 20)
    y = model(x).argmax(1)
    target = (y + 1) % 4
    result = SensitivityAttack(norm=norm)(model, x, y, target=target)
    untargeted = SensitivityAttack(norm=norm, setting="thorough")(model, x, y)
    hit = result.success
    assert hit.sum() >= 15
    assert (model(result.x_adv[hit]).argmax(1) == target[hit]).all()
    assert (result.distance[hit] >= untargeted.distance[hit] * (1 - 1e-3)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_sample_does_not_depend_on_its_batch(norm):
    model = random_snode(scale=2.0)
    x = random_points(model.input_shape, 12)
    y = model(x).argmax(1)
    together = SensitivityAttack(norm=norm)(model, x, y).distance
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(SensitivityAttack(norm=norm)(model, x[order], y[order]).distance, together[order], rtol=1e-6)
    alone = torch.cat([SensitivityAttack(norm=norm)(model, x[i : i + 1], y[i : i + 1]).distance for i in range(12)])
    assert torch.allclose(alone, together, rtol=1e-6)
    assert torch.isfinite(together).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_bundled_models_give_the_same_distance_alone_and_in_a_batch(norm):
    """Images, ten classes, and boundaries that miss the box: nothing may hang on the rounding of a batch."""
    data = ro.load_data("digits", limit=60)
    x, y = data.x.double(), data.y
    for name in ("snode", "layered", "resnet"):
        model = ro.load_model(f"zoo:{name}-digits").double()
        together = SensitivityAttack(norm=norm)(model, x, y).distance
        alone = torch.cat([SensitivityAttack(norm=norm)(model, x[i : i + 1], y[i : i + 1]).distance for i in range(60)])
        assert ((together - alone).abs() <= 1e-6 * together).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_within_a_budget_the_most_confident(norm):
    model = random_affine()
    x = random_points(model.input_shape, 40)
    y = model(x).argmax(1)
    truth = exact(model, x, y, norm)
    eps = float(truth.sort().values[19:21].mean())
    result = SensitivityAttack(norm=norm, eps=eps)(model, x, y)
    assert result.success.tolist() == (truth <= eps).tolist()
    inside = result.success
    tau = ball_tolerance(eps, model.bounds, 12, norm)
    assert (distance(x, result.x_adv, norm)[inside] <= eps + tau).all()
    logits = model(result.x_adv)

    def confidence(z):
        other = z.clone().scatter_(1, y[:, None], -math.inf).amax(1)
        return other - z.gather(1, y[:, None]).squeeze(1)

    minimal = SensitivityAttack(norm=norm)(model, x, y)
    gain = confidence(logits)[inside] - confidence(model(minimal.x_adv))[inside]
    near = (truth[inside] > 0.98 * eps) & (gain < 1e-3)  # on the sphere already: nothing to gain
    assert (gain[~near] > 0).all()


def test_passes_are_counted():
    calls = {"rows": 0}

    class Counting(nn.Module):
        bounds, classes, input_shape = (0.0, 1.0), 4, (1, 3, 4)

        def __init__(self):
            super().__init__()
            self.inner = random_affine()

        @property
        def bare(self):
            return self.inner

        def forward(self, x):
            calls["rows"] += len(x)
            return self.inner(x)

    model = Counting()
    x = random_points(model.input_shape, 10)
    y = model.inner(x).argmax(1)
    result = SensitivityAttack()(model, x, y)
    assert calls["rows"] == int(result.forwards.sum())
    assert (result.backwards >= model.classes).all()


def test_paper_setting():
    model = random_snode(scale=2.0)
    x = random_points(model.input_shape, 20)
    y = model(x).argmax(1)
    paper = SensitivityAttack(setting="paper")(model, x, y)
    ours = SensitivityAttack(setting="thorough")(model, x, y)
    assert (paper.forwards == 60).all()  # a linearisation and a judgement for each of 30 steps
    assert (paper.backwards == 30 * 4).all()
    assert (paper.distance[paper.success] <= 30 * 0.03 + 1e-9).all()
    assert paper.success.any()
    assert (paper.distance >= ours.distance * (1 - 1e-6)).all()
    assert paper.converged is None
    assert paper.kkt is None
    # One step on an affine classifier with kappa = 1: exactly `step` along the gradient of the nearest margin.
    affine = random_affine(bounds=(-9.0, 9.0))
    x = random_points(affine.input_shape, 30)
    y = affine(x).argmax(1)
    truth = exact(affine, x, y, "l2")
    step = float(truth.median())
    once = SensitivityAttack(setting="paper", kappa=1.0, step=step, steps=1)(affine, x, y)
    assert once.success.tolist() == (truth < step * (1 - 1e-12)).tolist()


def test_misclassified_samples_have_distance_zero():
    model = random_affine()
    x = random_points(model.input_shape, 6)
    y = model(x).argmax(1)
    y[2] = (y[2] + 1) % 4
    result = SensitivityAttack()(model, x, y)
    assert result.status[2] is Status.MISCLASSIFIED
    assert result.distance[2] == 0
    assert result.success.sum() == 5


class Misbehaving(nn.Module):
    bounds, input_shape, classes = (0.0, 1.0), (3,), 3

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize(
    ("function", "status"),
    [
        (lambda x: x.new_tensor([2.0, 1.0, 0.0]).expand(len(x), -1), Status.FAILED),  # constant, no graph
        (lambda x: 0 * x + x.new_tensor([2.0, 1.0, 0.0]), Status.FAILED),  # constant, zero gradient
        (lambda x: x * float("nan"), Status.FAILED),
        (
            lambda x: (
                torch.where(x.sum(1, keepdim=True) > 1.51, float("nan"), 1.0) * (x * x.new_tensor([3.0, 1.0, 1.0]))
            ),
            Status.SUCCESS,  # there are boundaries on this side of the region that is not a number
        ),
        (lambda x: x.detach() * 2, Status.SUCCESS),  # no gradient, but points far away are answered otherwise
        (lambda x: x[:, :1].expand(-1, 3), Status.FAILED),  # identical classes: ties
    ],
)
def test_misbehaving_models_give_a_status_and_never_nan(function, status, norm):
    model = Misbehaving(function)
    x = torch.full((4, 3), 0.5, dtype=torch.float64)
    y = torch.zeros(4, dtype=torch.int64)
    result = SensitivityAttack(norm=norm)(model, x, y)
    assert result.status == (status,) * 4
    assert torch.isfinite(result.x_adv).all()
    assert not torch.isnan(result.distance).any()
    if status is Status.SUCCESS:
        assert (model(result.x_adv).argmax(1) != y).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_target_equal_to_the_label_fails_alone(norm):
    model = random_affine()
    x = random_points(model.input_shape, 6)
    y = model(x).argmax(1)
    target = (y + 1) % 4
    target[2] = y[2]
    whole = SensitivityAttack(norm=norm)(model, x, y, target=target)
    assert whole.status[2] is Status.FAILED
    assert whole.distance[2] == math.inf
    assert whole.forwards[2] == 0
    others = torch.tensor([0, 1, 3, 4, 5])
    assert torch.allclose(
        whole.distance[others],
        SensitivityAttack(norm=norm)(model, x[others], y[others], target=target[others]).distance,
    )


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("setting", ["quick", "fast", "thorough"])
def test_a_sample_on_the_boundary_and_a_box_of_one_point(norm, setting):
    """On the boundary the distance is a rounding; a box of one point has no adversarial."""
    model = random_affine(classes=2)
    x = random_points(model.input_shape, 5)
    weight = (model.weight[0] - model.weight[1]).detach().reshape(model.input_shape)
    gap = model(x).detach() @ torch.tensor([1.0, -1.0], dtype=torch.float64)
    on = x - (gap / weight.square().sum()).reshape(-1, 1, 1, 1) * weight
    inside = ((on > 0) & (on < 1)).flatten(1).all(1)
    on, y = on[inside], model(on[inside]).argmax(1)
    assert len(on) >= 2
    result = SensitivityAttack(norm=norm, setting=setting)(model, on, y)
    assert result.success.all()
    assert (result.distance < 1e-5).all()
    point = random_affine()
    point.bounds = (0.5, 0.5)
    x = torch.full((3, *point.input_shape), 0.5, dtype=torch.float64)
    result = SensitivityAttack(norm=norm, setting=setting)(point, x, point(x).argmax(1))
    assert result.status == (Status.FAILED,) * 3
    assert torch.equal(result.x_adv, x)


@pytest.mark.parametrize("norm", NORMS)
def test_saturation_hides_nothing(norm):
    """Logits that are exactly flat around the clean inputs: the boundary, a sphere of mean 0.5, is far but there."""
    model = Misbehaving(lambda x: torch.stack([0 * x[:, 0], (x.mean(1) - 0.5).clamp(-0.1, 0.1), -1 + 0 * x[:, 0]], 1))
    x = torch.rand(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.3
    y = model(x).argmax(1)
    assert not y.any()
    result = SensitivityAttack(norm=norm)(model, x, y)
    truth = project(torch.ones_like(x), 1.5 - x.sum(1), x, model.bounds, norm).delta
    assert result.success.all()
    ratio = result.distance / distance(torch.zeros_like(truth), truth, norm)
    assert (ratio > 1 - 1e-9).all()
    assert ratio.median() < 1.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "l3"}, "unknown norm"),
        ({"setting": "fsat"}, "Did you mean 'fast'"),
        ({"setting": "paper", "norm": "linf"}, "expected norm 'l2', got 'linf'"),
        ({"eps": 0.0}, "expected a positive number"),
        ({"eps": math.nan}, "expected a positive number"),
        ({"damping": 0.0}, r"expected a number in \(0, 1\]"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(RobustODEError, match=message):
        SensitivityAttack(**arguments)


def test_bad_inputs():
    model = random_affine()
    x, y = random_points(model.input_shape, 3), torch.zeros(3, dtype=torch.int64)
    attack = SensitivityAttack()
    with pytest.raises(AttackError, match="inside the model's bounds"):
        attack(model, x + 1, y)
    with pytest.raises(AttackError, match="classes 0 to 3, got 0 to 7"):
        attack(model, x, torch.tensor([0, 1, 7]))
    with pytest.raises(AttackError, match="inputs x"):
        attack(model, x[:, :, :2], y)
    with pytest.raises(BudgetError):
        SensitivityAttack(eps=-1.0)
    assert len(attack(model, x[:0], y[:0]).status) == 0


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("setting", ["quick", "fast"])
def test_points_lie_on_the_boundary_and_residuals_are_theirs(norm, setting):
    """No point can be shortened on its ray, and what `kkt` says is measured again at the point itself."""
    model = ro.load_model("zoo:snode-digits").double()
    data = ro.load_data("digits", limit=40)
    x = data.x.double()
    y = model(x).argmax(1).detach()
    result = SensitivityAttack(norm=norm, setting=setting)(model, x, y)
    assert result.success.all()
    shorter = x + 0.999 * (result.x_adv - x)
    assert (model(shorter).argmax(1) == y).double().mean() >= 0.95  # a ray may cross a boundary more than once
    search = Search.of(model, x, y, None, norm)
    length = search.plane(search.every, result.x_adv).length
    again = (1 - length / result.distance).clamp_min(0)
    assert result.kkt is not None
    assert result.converged is not None
    assert result.converged.double().mean() > (0.2 if setting == "quick" else 0.5)
    assert (again[result.converged] < 5e-2).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_class_that_can_never_win_changes_little(norm):
    """A copy of the label's logit, lowered: its margin has no gradient and leads nowhere."""
    inner = random_snode(scale=2.0, seed=3)

    class Twin(nn.Module):
        bounds, input_shape, classes = inner.bounds, inner.input_shape, 5

        def forward(self, x):
            logits = inner(x)
            return torch.cat([logits, logits.amax(1, keepdim=True) - 0.05], 1)

    x = random_points(inner.input_shape, 20)
    y = inner(x).argmax(1).detach()
    plain = SensitivityAttack(norm=norm)(inner, x, y)
    twin = SensitivityAttack(norm=norm)(Twin(), x, y)
    both = plain.success & twin.success
    assert both.sum() >= 15
    assert ((twin.distance / plain.distance)[both] < 1.03).double().mean() > 0.9


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_a_common_shift_of_the_logits_changes_nothing(shift):
    affine = random_affine()
    model = Misbehaving(lambda x: affine(x.reshape(-1, 1, 3, 4)) + shift)
    model.input_shape, model.classes = (12,), 4
    x = random_points((12,), 20)
    y = model(x).argmax(1).detach()
    plain = SensitivityAttack()(affine, x.reshape(-1, 1, 3, 4), y)
    assert torch.allclose(SensitivityAttack()(model, x, y).distance, plain.distance, rtol=1e-6)


def test_points_on_faces_that_float32_does_not_have():
    """Bounds such as −2.1179 lie between two numbers of float32; points clipped to them are inside."""
    bounds = (-2.1179, 2.64)
    model = random_affine(bounds=bounds, dtype=torch.float32)
    x = random_points(model.input_shape, 10, dtype=torch.float32, lo=-3.0, hi=3.0).clamp(*bounds)
    assert ((x == x.min()) | (x == x.max())).any()
    y = model(x).argmax(1).detach()
    result = SensitivityAttack(norm="linf")(model, x, y)
    assert result.success.any()
    again = SensitivityAttack(norm="linf")(model, result.x_adv, model(result.x_adv).argmax(1).detach())
    assert again.success.any()
