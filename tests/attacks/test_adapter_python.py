"""The user's own attack: found, checked against its signature, called and judged."""

from __future__ import annotations

import pytest
import torch

from robustode.attacks.adapters.python import build_python
from robustode.attacks.base import Attack, Status
from robustode.errors import AttackError, BudgetError
from tests.attacks.adapter_problems import boxed_affine, exact_distance, small_problem

CODE = """
import torch

def step(model, x, y, *, norm, eps, generator, scale: float = 1.0, restarts: int = 1):
    assert norm == "linf"
    x = x.requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    (gradient,) = torch.autograd.grad(loss, x)
    return x + scale * eps * gradient.sign()

def noise(net, images, labels, *, norm, eps, generator, both=False):
    own = torch.rand(images.shape, generator=generator)
    return images + eps * (own + torch.rand(images.shape) if both else own)

def aimed(model, x, y, *, norm, eps, generator, target=None):
    w = model.weight.detach()
    k = (y + 1) % len(w) if target is None else target
    d = (w[k] - w[y]).reshape(x.shape)
    return x + eps * d / d.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)

def anything(model, x, y, **options):
    return x + options["shift"] * (options["eps"] or 0.5)

def needs(model, x, y, *, norm, eps, generator, budget):
    return x

def no_norm(model, x, y, *, eps, generator):
    return x

def few(model, x, *, norm, eps, generator):
    return x

def returns(model, x, y, *, norm, eps, generator, what):
    return {"none": None, "list": [1], "short": x[:1], "int": x.long(), "nan": x * torch.nan, "far": x + 99}[what]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path


def build(folder, name, **options):
    options = {"norm": "linf", "eps": 0.1, "params": {}, "base": folder} | options
    return build_python(f"python:mine.py:{name}", **options)


def test_the_function_is_an_attack_judged_by_the_exact_distance(folder):
    model, x, y = boxed_affine((-1.0, 1.0))
    for i, radius in enumerate(exact_distance(model, x, y, "linf").tolist()):
        for factor, status in ((1.001, Status.SUCCESS), (0.999, Status.FAILED)):
            attack = build(folder, "step", eps=factor * radius)
            assert isinstance(attack, Attack)
            assert attack(model, x[i : i + 1], y[i : i + 1]).status == (status,)


def test_a_point_outside_the_ball_the_box_or_the_numbers_is_a_failure(folder):
    model, x, y = boxed_affine((-1.0, 1.0))
    radius = 2 * float(exact_distance(model, x, y, "linf").max())
    assert set(build(folder, "step", eps=radius)(model, x, y).status) == {Status.SUCCESS}
    assert set(build(folder, "step", eps=radius, params={"scale": 1.01})(model, x, y).status) == {Status.FAILED}
    for what in ("nan", "far"):
        result = build(folder, "returns", eps=200.0, params={"what": what})(model, x, y)
        assert set(result.status) == {Status.FAILED}
        assert torch.equal(result.x_adv, x)


def test_minimal_norm_passes_no_radius(folder):
    model, x, y = boxed_affine((0.0, 1.0))
    attack = build(folder, "anything", eps=0.1, params={"shift": 0.0}, minimal=True)
    assert attack.eps is None
    assert set(attack(model, x, y).status) == {Status.FAILED}


def test_the_same_generator_gives_the_same_bits_and_the_global_state_stays(folder):
    model, x, y = small_problem()
    y = (y + torch.tensor([0, 1, 1, 1])) % 4  # all wrong: nothing is judged, so look at what is returned
    attack = build(folder, "noise", params={"both": True}, eps=0.1)
    seen = []

    def spy(points, *_):
        seen.append(points)
        return points

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robustode.attacks.adapters.python._check_points", spy)
        for global_seed, seed in ((1, 7), (2, 7), (1, 8), (1, None), (2, None)):
            torch.manual_seed(global_seed)
            state = torch.get_rng_state()
            attack(model, x, y, generator=None if seed is None else torch.Generator().manual_seed(seed))
            assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert torch.equal(seen[3], seen[4])


def test_a_target_goes_to_a_function_that_takes_one(folder):
    model, x, y = boxed_affine((-1.0, 1.0), classes=4)
    target = (y + 2) % 4
    eps = 1.001 * float(exact_distance(model, x, y, "l2", target)[0])
    attack = build(folder, "aimed", norm="l2", eps=eps)
    result = attack(model, x[:1], y[:1], target=target[:1])
    assert result.status == (Status.SUCCESS,)
    assert int(result.adv_pred) == int(target[0])
    with pytest.raises(AttackError, match=r"attack python:mine.py:step: expected an argument 'target', got a targeted"):
        build(folder, "step")(model, x, y, target=target)


def test_the_inputs_given_to_the_function_are_copies(folder):
    (folder / "mine.py").write_text(
        "def spoil(model, x, y, *, norm, eps, generator):\n    x.zero_()\n    y.zero_()\n    return x\n"
    )
    model, x, y = boxed_affine((0.0, 1.0))
    before = x.clone(), y.clone()
    build(folder, "spoil")(model, x, y)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("stepp", {}, "attack 'python:mine.py:stepp': expected one of .*, got no 'stepp' there"),
        ("step", {"params": {"scal": 1.0}}, "unknown parameter of attack python:mine.py:step: .* Did you mean 'scale'"),
        ("step", {"params": {"scale": "x"}}, "parameter 'scale' of .*: expected a number, got 'x'$"),
        ("step", {"params": {"restarts": 1.5}}, "parameter 'restarts' of .*: expected an integer, got 1.5$"),
        ("step", {"params": {"eps": 1.0}}, "parameter 'eps' of .*: got 1.0. The budget sets it"),
        ("noise", {"params": {"net": 1}}, "parameter 'net' of .*: got 1. It is given when the attack runs.$"),
        ("needs", {}, "parameters of attack python:mine.py:needs: expected a value for budget, got none$"),
        ("no_norm", {}, r"signature of .*: expected fn\(model, x, y, \*, norm, .*, got no argument norm$"),
        ("few", {}, r"signature of .*: expected fn\(model, x, y, \*, norm, .*, got too many positional arguments$"),
        ("step", {"eps": None}, "attack python:mine.py:step: expected a budget eps, got none"),
    ],
)
def test_what_is_wrong_is_said_before_any_model_is_there(folder, name, options, message):
    with pytest.raises(AttackError, match=message):
        build(folder, name, **options)


def test_kwargs_take_anything_and_a_radius_is_positive(folder):
    model, x, y = boxed_affine((0.0, 1.0))
    assert build(folder, "anything", params={"shift": 0.0, "more": [1, 2]})(model, x, y).x_adv.shape == x.shape
    with pytest.raises(BudgetError, match=r"budget of attack python:mine.py:step: expected a positive finite number"):
        build(folder, "step", eps=-1.0)
    with pytest.raises(AttackError, match="no such file"):
        build_python("python:other.py:fn", norm="linf", eps=0.1, params={}, base=folder)


@pytest.mark.parametrize(
    ("what", "got"),
    [("none", "NoneType"), ("list", "list"), ("short", r"torch.float64 \(1, 1, 4, 5\)"), ("int", "torch.int64")],
)
def test_what_the_function_returns_is_checked(folder, what, got):
    model, x, y = boxed_affine((0.0, 1.0))
    message = rf"return value of attack python:mine.py:returns: expected a floating tensor of shape .*, got {got}"
    with pytest.raises(AttackError, match=message):
        build(folder, "returns", params={"what": what})(model, x, y)


def test_a_function_may_return_its_own_claim_beside_its_points(folder):
    (folder / "claims.py").write_text(
        "import torch\n"
        "def fn(model, x, y, *, norm, eps, generator, kind):\n"
        "    return x, {'all': y >= 0, 'short': y[:1] > 0, 'int': y, 'list': [True]}[kind]\n"
    )
    model, x, y = small_problem()

    def run(kind):
        options = {"norm": "linf", "eps": 0.1, "params": {"kind": kind}, "base": folder}
        return build_python("python:claims.py:fn", **options)(model, x, y)

    result = run("all")
    assert result.claimed is not None
    assert bool(result.claimed.all())
    assert not bool(result.success.any())  # it is kept, and not believed
    for kind, got in ("short", r"torch.bool \(1,\)"), ("int", "torch.int64"), ("list", "list"):
        with pytest.raises(AttackError, match=rf"returns beside its points: expected bools of shape .*, got {got}"):
            run(kind)
