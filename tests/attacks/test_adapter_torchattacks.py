"""torchattacks behind the protocol: closed forms in any box, every attack of the library, every message."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import logging
import subprocess
import sys

import pytest
import torch

from robustode.attacks.adapters import torchattacks as adapter
from robustode.attacks.adapters.torchattacks import build_torchattacks, import_torchattacks, is_minimal
from robustode.attacks.base import Attack, Status
from robustode.errors import AttackError, BudgetError, MissingDependency
from tests.attacks.adapter_problems import BOXES, boxed_affine, check_result, exact_distance, small_problem

NAMES = sorted(set(import_torchattacks().__all__) - {"MultiAttack", "LGV"})
RUNS = [(name, norm) for name in NAMES for norm in adapter._NORMS.get(name, ("l2",))]
QUICK = {
    "Square": {"n_queries": 100},
    "CW": {"c": 10.0, "steps": 100, "lr": 0.05},
    "SPSA": {"nb_iter": 20, "lr": 0.05},
    "OnePixel": {"pixels": 10},
}
STILL = {"random_start": False}


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
def test_fgsm_succeeds_just_above_the_exact_distance_and_fails_just_below(bounds, dtype):
    model, x, y = boxed_affine(bounds, dtype=dtype)
    margin = 1e-6 if dtype is torch.float64 else 1e-2
    for i, radius in enumerate(exact_distance(model, x, y, "linf").tolist()):
        above, below = (
            build_torchattacks("FGSM", norm="linf", eps=factor * radius, params={})(model, x[i : i + 1], y[i : i + 1])
            for factor in (1 + margin, 1 - margin)
        )
        assert above.status == (Status.SUCCESS,)
        assert float(above.distance[0]) == pytest.approx((1 + margin) * radius, rel=margin / 10)
        assert below.status == (Status.FAILED,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bounds", BOXES)
def test_deepfool_is_within_its_overshoot_of_the_exact_distance_and_never_below(bounds, dtype):
    model, x, y = boxed_affine(bounds, classes=4, dtype=dtype)
    attack = build_torchattacks("DeepFool", norm="l2", eps=None, params={"steps": 50, "overshoot": 0.02}, minimal=True)
    result, exact = attack(model, x, y), exact_distance(model, x, y, "l2")
    assert set(result.status) == {Status.SUCCESS}
    assert torch.all(result.distance >= exact * (1 - 1e-6))
    assert torch.all(result.distance <= exact * 1.025)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("bounds", BOXES)
def test_fab_finds_the_exact_distance_in_both_norms(bounds, norm):
    model, x, y = boxed_affine(bounds, classes=4, dtype=torch.float64)
    exact = exact_distance(model, x, y, norm)
    attack = build_torchattacks("FAB", norm=norm, eps=2 * float(exact.max()), params={"steps": 20})
    result = attack(model, x, y, generator=gen())
    assert set(result.status) == {Status.SUCCESS}
    assert torch.all(result.distance >= exact * (1 - 1e-5))
    assert torch.all(result.distance <= exact * 1.06)


def test_a_minimal_norm_attack_given_a_budget_is_only_judged_at_it():
    model, x, y = boxed_affine((0.0, 1.0), classes=4)
    exact = exact_distance(model, x, y, "l2").sort().values
    middle = float(exact[2] * 1.05)
    result = build_torchattacks("DeepFool", norm="l2", eps=middle, params={})(model, x, y)
    assert int(result.success.sum()) == int((exact * 1.02 < middle).sum()) > 0
    assert Status.FAILED in result.status


@pytest.mark.parametrize("bounds", BOXES)
def test_lengths_are_in_raw_units(bounds):
    model, x, y = boxed_affine(bounds)
    span = bounds[1] - bounds[0]
    pgd = build_torchattacks("PGD", norm="linf", eps=span, params={"alpha": 0.03 * span, "steps": 2} | STILL)
    moved = (pgd._run(model, x, y, None, 0) - x).abs() / span
    torch.testing.assert_close(moved, torch.full_like(moved, 0.06))
    noise = build_torchattacks("GN", norm="linf", eps=span, params={"std": 1e-3 * span})
    moved = (noise._run(model, x, y, None, 0) - x) / span
    assert 0.7e-3 < float(moved.square().mean().sqrt()) < 1.3e-3


def test_the_tables_name_attacks_and_parameters_that_exist():
    for name, lengths in adapter._LENGTHS.items():
        assert set(lengths) <= set(inspect.signature(getattr(import_torchattacks(), name)).parameters)
    tables = {*adapter._NORMS, *adapter._NO_TARGET, *adapter._FLOAT32, *adapter._ENDS_ON_BOUNDARY}
    assert tables <= set(NAMES)
    unnamed = {"GN", "JSMA", "OnePixel", "Pixle", "SparseFool", "VANILA"}
    assert set(NAMES) - set(adapter._NORMS) == unnamed


@pytest.mark.parametrize(("name", "norm"), RUNS)
def test_every_attack_runs_in_its_box_and_ball_and_says_what_the_model_says(name, norm, capsys):
    model, x, y = small_problem()
    eps = None if is_minimal(name) else {"linf": 0.4, "l2": 4.0}[norm]
    params = QUICK.get(name, {})
    if "alpha" in inspect.signature(getattr(import_torchattacks(), name)).parameters:
        params = params | {"alpha": eps / 4}
    attack = build_torchattacks(name, norm=norm, eps=eps, params=params, minimal=is_minimal(name))
    assert isinstance(attack, Attack)
    result = attack(model, x, y, generator=gen())
    check_result(model, x, y, result, norm, eps)
    if name == "VANILA":  # which returns the clean inputs
        assert not result.success.any()
    elif name != "GN":  # random noise, which may find nothing
        assert result.success.any()
    again = attack(model, x, y, generator=gen())
    assert torch.equal(result.x_adv, again.x_adv)
    assert result.status == again.status
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["FAB", "EADEN", "EADL1", "CW", "APGD", "Square", "PGDL2", "SparseFool"])
def test_float64_models_are_attacked_in_float64(name):
    model, x, y = small_problem(dtype=torch.float64)
    norm = {"EADL1": "l1"}.get(name, "l2")
    eps = None if is_minimal(name) else 4.0
    result = build_torchattacks(name, norm=norm, eps=eps, params=QUICK.get(name, {}))(model, x, y, generator=gen())
    check_result(model, x, y, result, norm, eps)
    assert bool(result.success.any())


@pytest.mark.parametrize("name", ["PGD", "PGDL2", "APGD", "FAB", "Square"])
def test_inputs_that_are_not_images(name):
    norm = "l2" if name == "PGDL2" else "linf"
    model, x, y = boxed_affine((-1.0, 1.0), classes=4, input_shape=(6,))
    eps = 1.5 * float(exact_distance(model, x, y, norm).max())
    params = QUICK.get(name, {"alpha": eps / 4} if name.startswith("PGD") else {})
    result = build_torchattacks(name, norm=norm, eps=eps, params=params)(model, x, y, generator=gen())
    assert result.x_adv.shape == (6, 6)
    assert set(result.status) == {Status.SUCCESS}


def test_randomness_comes_from_the_generator_alone():
    model, x, y = small_problem()
    for name in ("PGD", "APGD", "Square", "FAB", "Pixle"):
        norm = "l2" if name == "Pixle" else "linf"
        attack = build_torchattacks(name, norm=norm, eps=0.1, params=QUICK.get(name, {}))
        torch.manual_seed(5)
        state = torch.get_rng_state()
        one = attack(model, x, y, generator=gen(1))
        assert torch.equal(torch.get_rng_state(), state), name
        torch.manual_seed(6)
        assert torch.equal(one.x_adv, attack(model, x, y, generator=gen(1)).x_adv), name
    pgd = build_torchattacks("PGD", norm="linf", eps=0.4, params={})
    assert not torch.equal(pgd(model, x, y, generator=gen(1)).x_adv, pgd(model, x, y, generator=gen(2)).x_adv)
    assert torch.equal(pgd(model, x, y).x_adv, pgd(model, x, y).x_adv)


def test_the_model_is_left_as_it_was_found():
    model, x, y = small_problem()
    model.train()
    model.norm.eval()
    model.head.weight.requires_grad_(False)
    modes = [m.training for m in model.modules()]
    grads = [p.requires_grad for p in model.parameters()]
    running = model.norm.running_mean.clone()
    for name in ("CW", "DeepFool", "PGDL2"):  # the first two call backward()
        build_torchattacks(name, norm="l2", eps=1.0, params={})(model, x, y)
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == grads
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(model.norm.running_mean, running)


def test_an_attack_that_raises_leaves_the_model_and_the_random_state(monkeypatch):
    model, x, y = small_problem()
    model.train()
    state = torch.get_rng_state()

    def broken(self, images, labels):
        torch.rand(3)
        raise ArithmeticError("from inside")

    monkeypatch.setattr(import_torchattacks().PGD, "forward", broken)
    with pytest.raises(ArithmeticError, match="from inside"):
        build_torchattacks("PGD", norm="linf", eps=0.1, params={})(model, x, y)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_point_that_is_not_finite_is_a_failure(monkeypatch):
    model, x, y = small_problem()
    monkeypatch.setattr(import_torchattacks().FGSM, "forward", lambda self, u, labels: u * torch.nan)
    result = build_torchattacks("FGSM", norm="linf", eps=0.1, params={})(model, x, y)
    assert result.status == (Status.MISCLASSIFIED, *[Status.FAILED] * 3)
    assert torch.equal(result.x_adv, x)


def test_targets():
    model, x, y = boxed_affine((-1.0, 1.0), classes=4)
    target = (y + 1) % 4
    eps = 3 * float(exact_distance(model, x, y, "l2", target).max())
    pgd = build_torchattacks("PGDL2", norm="l2", eps=eps, params={"alpha": eps / 4, "steps": 30})
    result = pgd(model, x, y, target=target)
    assert set(result.status) == {Status.SUCCESS}
    assert torch.equal(result.adv_pred, target)
    for name in ("APGD", "FAB"):
        attack = build_torchattacks(name, norm="l2", eps=eps, params={})
        with pytest.raises(AttackError, match=f"^torchattacks attack {name}: expected no target, got a targeted run$"):
            attack(model, x, y, target=target)


def test_a_model_behind_a_counter_is_frozen_too_and_gradients_are_enabled():
    net, x, y = small_problem()
    net.train()

    class Counter:
        bare, bounds, classes, input_shape, calls = net, net.bounds, net.classes, net.input_shape, 0

        def __call__(self, x):
            assert not net.training
            assert not any(p.requires_grad for p in net.parameters())
            Counter.calls += 1
            return net(x)

    attack = build_torchattacks("PGD", norm="linf", eps=0.4, params={"alpha": 0.1, "steps": 7})
    with torch.no_grad():
        result = attack(Counter(), x, y)
    assert Counter.calls == 7  # judging is not counted
    assert bool(result.success.any())
    assert net.training


def test_a_classifier_that_is_no_module_and_an_empty_batch():
    affine, x, y = boxed_affine((0.0, 1.0))

    class Plain:
        bounds, classes, input_shape = affine.bounds, affine.classes, affine.input_shape

        def __call__(self, x):
            return affine(x)

    attack = build_torchattacks("PGD", norm="linf", eps=0.5, params={"alpha": 0.1})
    assert set(attack(Plain(), x, y).status) == {Status.SUCCESS}
    assert attack(affine, x[:0], y[:0]).status == ()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("PDG", {}, "unknown torchattacks attack: expected 'PGD' or another .*, got 'PDG'. Did you mean 'PGD'\\?"),
        ("MultiAttack", {}, "torchattacks attack MultiAttack: expected an attack on its own, got needs other attacks"),
        (
            "PGD",
            {"params": {"step": 3}},
            "unknown parameter of torchattacks attack PGD: expected one of alpha, random_",
        ),
        ("PGD", {"params": {"step": 3}}, "got 'step'. Did you mean 'steps'\\?$"),
        ("PGD", {"params": {"eps": 0.1}}, "parameter 'eps' of torchattacks attack PGD: got 0.1. The budget sets it"),
        (
            "APGD",
            {"params": {"seed": 1}},
            "parameter 'seed' of torchattacks attack APGD: got 1. The run's seed sets it",
        ),
        ("PGD", {"params": {"steps": 3.5}}, "parameter 'steps' of .* PGD: expected an integer, got 3.5$"),
        ("PGD", {"params": {"alpha": "big"}}, "parameter 'alpha' of .* PGD: expected a number, got 'big'$"),
        ("PGD", {"params": {"random_start": 1}}, "'random_start' of .* PGD: expected true or false, got 1$"),
        ("PGD", {"norm": "l2"}, "norm of torchattacks attack PGD: expected linf, got l2$"),
        ("APGD", {"norm": "l1"}, "norm of torchattacks attack APGD: expected linf or l2, got l1$"),
        ("PGD", {"eps": None}, "torchattacks attack PGD: expected a budget eps, got none. Give a radius"),
        ("PGD", {"minimal": True}, "torchattacks attack PGD: expected a budget eps, got a minimal-norm run"),
    ],
)
def test_what_is_wrong_is_said_before_any_model_is_there(name, options, message):
    with pytest.raises(AttackError, match=message):
        build_torchattacks(name, **({"norm": "linf", "eps": 0.1, "params": {}} | options))


@pytest.mark.parametrize("eps", [0.0, -0.1, float("nan"), float("inf"), "8/255", True])
def test_a_radius_is_positive_and_finite(eps):
    with pytest.raises(BudgetError, match=r"budget of torchattacks attack PGD: expected a positive finite number, got"):
        build_torchattacks("PGD", norm="linf", eps=eps, params={})
    with pytest.raises(BudgetError, match="unknown norm"):
        build_torchattacks("PGD", norm="Linf", eps=0.1, params={})


def test_minimal_norm_attacks_are_known_and_have_no_radius():
    minimal = {"CW", "DeepFool", "EADEN", "EADL1", "JSMA", "OnePixel", "Pixle", "SparseFool"}
    assert {name for name in NAMES if is_minimal(name)} == minimal
    assert build_torchattacks("CW", norm="l2", eps=0.5, params={"c": 0.5}, minimal=True).eps is None
    assert build_torchattacks("CW", norm="l2", eps=0.5, params={}).eps == 0.5


def test_a_real_robustbench_is_noticed_once(monkeypatch, caplog):
    versions = {"robustbench": "1.1"}
    monkeypatch.setattr(importlib.metadata, "version", versions.__getitem__)
    adapter._notice_robustbench.cache_clear()
    with caplog.at_level(logging.WARNING, logger="robustode"):
        import_torchattacks()
        import_torchattacks()
    adapter._notice_robustbench.cache_clear()
    assert [r.name for r in caplog.records] == ["robustode"]
    assert caplog.messages[0].startswith("robustbench 1.1 is installed; torchattacks 3.5.1 ships a stripped")


def test_without_torchattacks_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r'torchattacks is not installed. Install it with: pip install "robust'):
        build_torchattacks("PGD", norm="linf", eps=0.1, params={})


def test_imports_are_lazy_and_raise_no_warning():
    code = (
        "import sys, robustode.attacks.adapters as a; assert not {'torchattacks', 'foolbox'} & set(sys.modules)\n"
        "a.build_torchattacks('PGD', norm='linf', eps=.1, params={})\n"
        "a.build_foolbox('LinfPGD', norm='linf', eps=.1, params={})\n"
        "assert {'torchattacks', 'foolbox'} <= set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
