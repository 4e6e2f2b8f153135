"""foolbox behind the protocol: closed forms in any box, every attack of the library, every message."""

from __future__ import annotations

import inspect

import pytest
import torch

from robustode.attacks.adapters import foolbox as adapter
from robustode.attacks.adapters.foolbox import build_foolbox, import_foolbox, is_minimal
from robustode.attacks.base import Attack, Status
from robustode.errors import AttackError, BudgetError
from tests.attacks.adapter_problems import (
    BOXES,
    boxed_affine,
    check_result,
    exact_distance,
    foolbox_names,
    small_problem,
)

NO_CARD = {  # cannot be built from a card, and why
    "BinarizationRefinementAttack": "needs starting points",
    "DatasetAttack": "needs a data set to draw from",
    "L0BrendelBethgeAttack": "expected numba, which it needs",
    "L1BrendelBethgeAttack": "expected numba, which it needs",
    "L2BrendelBethgeAttack": "expected numba, which it needs",
    "LinfinityBrendelBethgeAttack": "expected numba, which it needs",
}
TARGETED_ONLY = {"GenAttack"}
MAY_FIND_NOTHING = ("Noise", "Contrast", "Blur", "Inversion")  # blind: no gradient, or one direction
QUICK = {
    "steps": 30,
    "binary_search_steps": 4,
    "directions": 50,
    "initial_gradient_eval_steps": 10,
    "max_gradient_eval_steps": 50,
}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def gen(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bounds", BOXES)
@pytest.mark.parametrize(("name", "norm"), [("LinfFastGradientAttack", "linf"), ("L2FastGradientAttack", "l2")])
def test_fast_gradient_succeeds_just_above_the_exact_distance_and_fails_just_below(name, norm, bounds, dtype):
    model, x, y = boxed_affine(bounds, dtype=dtype)
    margin = 1e-6 if dtype is torch.float64 else 1e-2
    for i, radius in enumerate(exact_distance(model, x, y, norm).tolist()):
        above, below = (
            build_foolbox(name, norm=norm, eps=factor * radius, params={})(model, x[i : i + 1], y[i : i + 1])
            for factor in (1 + margin, 1 - margin)
        )
        assert above.status == (Status.SUCCESS,)
        assert float(above.distance[0]) == pytest.approx((1 + margin) * radius, rel=margin / 10)
        assert below.status == (Status.FAILED,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bounds", BOXES)
@pytest.mark.parametrize(
    ("name", "norm", "classes", "params"),
    [
        ("L2DeepFoolAttack", "l2", 4, {"steps": 50, "overshoot": 0.02}),
        ("LinfDeepFoolAttack", "linf", 4, {"steps": 50, "overshoot": 0.02}),
        ("DDNAttack", "l2", 2, {"steps": 200, "gamma": 0.05}),
        ("LInfFMNAttack", "linf", 4, {"steps": 200}),
        ("L2CarliniWagnerAttack", "l2", 4, {"steps": 200, "stepsize": 0.01}),
    ],
)
def test_minimal_norms_are_within_5_percent_of_the_exact_distance_and_never_below(
    name, norm, classes, params, bounds, dtype
):
    model, x, y = boxed_affine(bounds, classes=classes, dtype=dtype)
    exact = exact_distance(model, x, y, norm)
    attack = build_foolbox(name, norm=norm, eps=None, params=params, minimal=True)
    result = attack(model, x, y, generator=gen())
    assert set(result.status) == {Status.SUCCESS}
    assert torch.all(result.distance >= exact * (1 - 1e-5))
    assert torch.all(result.distance <= exact * 1.05)


class Bright(torch.nn.Module):
    """Two classes on the unit box, the second where the mean of the input is above a level; constant if it is None."""

    bounds, classes, input_shape = (0.0, 1.0), 2, (1, 8, 8)

    def __init__(self, level):
        super().__init__()
        self.level = level

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        second = 0.0 * mean - 1 if self.level is None else mean - self.level
        return torch.stack([0.0 * mean, 10 * second], 1)


@pytest.mark.parametrize(("level", "starts"), [(0.9, 3), (None, 0)])  # blended noise does not reach a mean of 0.9
def test_attacks_that_need_a_start_get_another_one_or_leave_the_sample(level, starts):
    model, x, y = Bright(level).eval(), torch.full((3, 1, 8, 8), 0.4), torch.zeros(3, dtype=torch.int64)
    broken = []

    def attack(unit, u, criterion, *, starting_points, epsilons):
        broken.append(int((unit(starting_points).argmax(1) != criterion.labels.raw).sum()))
        return None, starting_points, None

    unit = import_foolbox().PyTorchModel(model, bounds=(0, 1), device="cpu")
    out = adapter._from_starts(attack, unit, x, y, None, {"epsilons": None})
    pred = model(out).argmax(1)
    assert sum(broken) == int(pred.sum()) == starts
    assert torch.equal(out[pred == 0], x[: 3 - starts])


@pytest.mark.slow  # half a minute of compilation
def test_brendel_bethge_finds_the_exact_distance_where_numba_is_there():
    pytest.importorskip("numba")
    model, x, y = boxed_affine((0.0, 1.0), classes=2)
    exact = exact_distance(model, x, y, "l2")
    params = {"steps": 200, "lr": 0.01}  # its default 0.001 is still far off after 1,000 steps
    attack = build_foolbox("L2BrendelBethgeAttack", norm="l2", eps=None, params=params, minimal=True)
    result = attack(model, x, y, generator=gen())
    assert set(result.status) == {Status.SUCCESS}
    assert torch.all(result.distance >= exact * (1 - 1e-5))
    assert torch.all(result.distance <= exact * (1 + 1e-5))


def test_a_minimal_norm_attack_given_a_budget_is_only_judged_at_it():
    model, x, y = boxed_affine((0.0, 1.0), classes=4)
    exact = exact_distance(model, x, y, "l2").sort().values
    middle = float(exact[2] * 1.05)
    result = build_foolbox("L2DeepFoolAttack", norm="l2", eps=middle, params={})(model, x, y)
    assert int(result.success.sum()) == int((exact * 1.02 < middle).sum()) > 0
    assert Status.FAILED in result.status


@pytest.mark.parametrize("bounds", BOXES)
def test_lengths_are_in_raw_units_and_relative_steps_are_not_touched(bounds):
    model, x, y = boxed_affine(bounds)
    span = bounds[1] - bounds[0]
    for step in ({"abs_stepsize": 0.03 * span}, {"rel_stepsize": 0.3}):
        params = {"steps": 2, "random_start": False} | step
        attack = build_foolbox("LinfPGD", norm="linf", eps=0.1 * span, params=params)
        moved = (attack._run(model, x, y, None) - x).abs() / span
        torch.testing.assert_close(moved, torch.full_like(moved, 0.06))


def test_every_length_of_the_table_is_a_parameter_of_some_attack():
    attacks = import_foolbox().attacks
    known = {key for name in foolbox_names() for key in inspect.signature(getattr(attacks, name)).parameters}
    assert set(adapter._LENGTHS) <= known
    assert set(adapter._RESERVED) <= known


@pytest.mark.parametrize("name", [name for name in foolbox_names() if name not in NO_CARD])
def test_every_attack_runs_in_its_box_and_ball_and_says_what_the_model_says(name, capsys):
    cls = getattr(import_foolbox().attacks, name)
    params = {key: QUICK[key] for key in inspect.signature(cls).parameters if key in QUICK}
    norm = next(n for n in ("l2", "linf", "l1") if n in adapter._norms(cls, name, n, params))
    model, x, y = small_problem()
    eps = None if is_minimal(name) else {"linf": 0.6, "l2": 6.0, "l1": 40.0}[norm]
    attack = build_foolbox(name, norm=norm, eps=eps, params=params, minimal=is_minimal(name))
    assert isinstance(attack, Attack)
    target = (y + 1) % 4 if name in TARGETED_ONLY else None
    result = attack(model, x, y, target=target, generator=gen())
    check_result(model, x, y, result, norm, eps)
    assert result.success.any() or any(word in name for word in MAY_FIND_NOTHING)
    assert torch.equal(result.x_adv, attack(model, x, y, target=target, generator=gen()).x_adv)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("name", "reason"), NO_CARD.items())
def test_those_that_cannot_be_built_say_why(name, reason, monkeypatch):
    missing = ModuleNotFoundError("No module named 'numba'", name="numba")
    monkeypatch.setattr(import_foolbox().attacks.brendel_bethge, "NUMBA_IMPORT_ERROR", missing)
    with pytest.raises(AttackError, match=reason):
        build_foolbox(name, norm="linf" if "Linf" in name else "l2", eps=None, params={}, minimal=True)


@pytest.mark.parametrize("name", ["DDNAttack", "L2CarliniWagnerAttack", "HopSkipJumpAttack", "SpatialAttack", "L2PGD"])
def test_float64_models_are_attacked_in_float64(name):
    model, x, y = small_problem(dtype=torch.float64)
    eps = None if is_minimal(name) else 6.0
    cls = getattr(import_foolbox().attacks, name)
    params = {key: QUICK[key] for key in inspect.signature(cls).parameters if key in QUICK}
    result = build_foolbox(name, norm="l2", eps=eps, params=params)(model, x, y, generator=gen())
    check_result(model, x, y, result, "l2", eps)
    assert bool(result.success.any())


@pytest.mark.parametrize("name", ["L2PGD", "DDNAttack", "L2DeepFoolAttack"])
def test_inputs_that_are_not_images(name):
    model, x, y = boxed_affine((-1.0, 1.0), classes=4, input_shape=(6,))
    eps = 2 * float(exact_distance(model, x, y, "l2").max())
    result = build_foolbox(name, norm="l2", eps=eps, params={})(model, x, y, generator=gen())
    assert result.x_adv.shape == (6, 6)
    assert set(result.status) == {Status.SUCCESS}


def test_randomness_comes_from_the_generator_alone():
    model, x, y = small_problem()
    for name in ("LinfPGD", "L0FMNAttack", "PointwiseAttack", "L2AdditiveUniformNoiseAttack"):
        norm = "linf" if name == "LinfPGD" else "l2"
        attack = build_foolbox(name, norm=norm, eps=0.3, params={})
        torch.manual_seed(5)
        state = torch.get_rng_state()
        one = attack(model, x, y, generator=gen(1))
        assert torch.equal(torch.get_rng_state(), state), name
        torch.manual_seed(6)
        assert torch.equal(one.x_adv, attack(model, x, y, generator=gen(1)).x_adv), name
    pgd = build_foolbox("LinfPGD", norm="linf", eps=0.6, params={"steps": 5})
    assert not torch.equal(pgd(model, x, y, generator=gen(1)).x_adv, pgd(model, x, y, generator=gen(2)).x_adv)


def test_the_model_is_left_as_it_was_found():
    model, x, y = small_problem()
    model.train()
    model.norm.eval()
    model.head.weight.requires_grad_(False)
    modes = [m.training for m in model.modules()]
    grads = [p.requires_grad for p in model.parameters()]
    build_foolbox("DDNAttack", norm="l2", eps=None, params={"steps": 5})(model, x, y)
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == grads
    assert all(p.grad is None for p in model.parameters())


def test_targets():
    model, x, y = boxed_affine((-1.0, 1.0), classes=4)
    target = (y + 1) % 4
    exact = exact_distance(model, x, y, "l2", target)
    result = build_foolbox("DDNAttack", norm="l2", eps=None, params={"steps": 300}, minimal=True)(
        model, x, y, target=target
    )
    assert torch.equal(result.adv_pred, target)
    assert set(result.status) == {Status.SUCCESS}
    assert torch.all(result.distance >= exact * (1 - 1e-6))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("L2DeepFool", {}, "expected 'L2DeepFoolAttack' or another .*. Did you mean 'L2DeepFoolAttack'\\?$"),
        ("LinfFMNAttack", {}, "got 'LinfFMNAttack'. Did you mean 'LInfFMNAttack'\\?$"),
        ("Attack", {}, "unknown foolbox attack"),
        ("L2PGD", {}, "norm of foolbox attack L2PGD: expected l2, got linf$"),
        ("DDNAttack", {}, "norm of foolbox attack DDNAttack: expected l2, got linf$"),
        ("HopSkipJumpAttack", {"norm": "l1"}, "norm of .* HopSkipJumpAttack: expected l2 or linf, got l1$"),
        (
            "LinfPGD",
            {"params": {"step": 3}},
            "unknown parameter of foolbox attack LinfPGD: .*'step'. Did you mean 'steps'",
        ),
        (
            "LinfPGD",
            {"params": {"epsilons": 1}},
            "unknown parameter of foolbox attack LinfPGD: expected one of abs_steps",
        ),
        ("LinfPGD", {"params": {"steps": "10"}}, "parameter 'steps' of foolbox .*: expected an integer, got '10'$"),
        ("LinfPGD", {"params": {"abs_stepsize": "x"}}, "'abs_stepsize' of .*: expected a number, got 'x'$"),
        (
            "LinfDeepFoolAttack",
            {"params": {"loss": "dlr"}},
            "'loss' of .*: expected 'logits' or 'crossentropy', got 'dlr'$",
        ),
        (
            "InversionAttack",
            {"params": {"distance": 2}},
            "parameter 'distance' of .*: got 2. The card's norm sets it.$",
        ),
        ("VirtualAdversarialAttack", {"norm": "l2"}, "parameters of .*: expected a value for steps, got none$"),
        ("LinfPGD", {"eps": None}, "foolbox attack LinfPGD: expected a budget eps, got none. Give a radius"),
        ("LinfPGD", {"minimal": True}, "foolbox attack LinfPGD: expected a budget eps, got a minimal-norm run"),
    ],
)
def test_what_is_wrong_is_said_before_any_model_is_there(name, options, message):
    with pytest.raises(AttackError, match=message):
        build_foolbox(name, **({"norm": "linf", "eps": 0.1, "params": {}} | options))


def test_a_radius_is_positive():
    with pytest.raises(
        BudgetError, match=r"budget of foolbox attack LinfPGD: expected a positive finite number, got 0"
    ):
        build_foolbox("LinfPGD", norm="linf", eps=0, params={})


def test_minimal_norm_attacks_have_no_radius():
    assert is_minimal("DDNAttack")
    assert is_minimal("SpatialAttack")
    assert not is_minimal("PGD")
    assert build_foolbox("DDNAttack", norm="l2", eps=0.5, params={}, minimal=True).eps is None
    assert build_foolbox("DDNAttack", norm="l2", eps=0.5, params={}).eps == 0.5
