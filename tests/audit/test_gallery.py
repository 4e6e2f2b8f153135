"""The gallery: the sick are what they claim to be, the table says who got away, and six exhibits end as they must."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torchdiffeq import odeint

from robustode.attacks.cards import resolve
from robustode.audit.check import Check, Found
from robustode.audit.checks import CHECKS
from robustode.audit.finding import Verdict
from robustode.audit.gallery import EXHIBITS, HONEST, IMPOSTORS, Exhibit, Scene, examine, self_test
from robustode.audit.gallery.bases import Turning
from robustode.audit.gallery.data import one_hot_row, two_digits
from robustode.audit.gallery.gradients import Staircase, WrongBackward
from robustode.audit.gallery.sick import leaves_ball, zero_step
from robustode.audit.gallery.solver import TURNING
from robustode.data import load_data
from robustode.errors import OptionError
from robustode.models.wrap import wrap
from tests.audit import user_node
from tests.audit.cases import make_case

TYPICAL = {
    "saturated logits": "saturation",
    "reversed backward": "gradient-fidelity",
    "strips of another class": "noise",
    "a step of zero": "one-step",
    "a few repeated points": "data",
}
HEALTHY = "moons, MLP"


def test_the_gallery_is_large_enough_and_its_halves_share_no_seed():
    held = [exhibit for exhibit in EXHIBITS if exhibit.half == "held-out"]
    assert len(IMPOSTORS) >= 24
    assert len(HONEST) >= 30
    assert sum(exhibit.kind == "impostor" for exhibit in held) >= 10
    assert sum(exhibit.kind == "honest" for exhibit in held) >= 15
    assert len({exhibit.name for exhibit in EXHIBITS}) == len(EXHIBITS)
    assert not {e.seed for e in held} & {e.seed for e in EXHIBITS if e.half == "development"}


def test_typical_exhibits_end_as_they_must():
    chosen = [exhibit for exhibit in EXHIBITS if exhibit.name in {*TYPICAL, HEALTHY}]
    diseases = {name for exhibit in chosen for name in exhibit.disease}
    checks = [check for check in CHECKS if check.cheap or check.id in diseases]
    test = self_test(chosen, checks=checks)
    assert test.passed, test.table
    table = test.table.set_index("name")
    for name, check in TYPICAL.items():
        assert table.loc[name, check] == "fail"
    assert "fail" not in set(table.loc[HEALTHY, test.checks])


SHOWN = [*IMPOSTORS, *(exhibit for exhibit in HONEST if exhibit.half == "development")]  # the others take minutes each
PARTS = 8


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_every_impostor_is_exposed_and_no_honest_model_fails(part):
    test = self_test(SHOWN[part::PARTS])
    assert test.passed, test.wrong()
    models, cells = test.warnings()
    if models.value is not None:
        assert max(models.value, cells.value or 0.0) <= 1 / 4, test.markdown()  # one of the six or seven of a part


@pytest.mark.slow
def test_the_usual_neural_ode_of_a_user_fails_batch_invariance():
    data = load_data("digits", split="test", limit=40)
    model = wrap(user_node.factory(), bounds=(0, 1), sample=data.x[:1])
    case = make_case(model, data.x, data.y, attacks=["fgsm-linf", "sensitivity-linf"], budgets={"linf": (0.05, 0.1)})
    failed = {check.id for check in CHECKS if check.cheap and check(case).status is Verdict.FAIL}
    assert len(case.correct) > 35
    # its steps are chosen by the whole batch, and by the input, which the reverse pass does not know
    assert failed == {"batch-invariance", "gradient-fidelity"}


def scene_of(seed: int) -> Scene:
    """A linear classifier of two points, without any attack that could break it."""
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        linear.bias.zero_()
    x = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    model = wrap(linear, bounds=(0, 1), sample=x[:1])
    cards = tuple(resolve("fgsm-linf"))
    return Scene(model=model, x=x, y=torch.tensor([0, 1]), cards=cards, budgets={"linf": (0.1,)})


def check_that_says(status: Verdict, name: str = "finite", cheap: bool = True) -> Check:
    return Check(
        id=name, title="t", cheap=cheap, source="s", advice="a", run=lambda case: Found(status=status, text="said")
    )


def exhibit(name: str, **options) -> Exhibit:
    return Exhibit(name=name, about="a linear classifier", make=scene_of, **options)


def test_an_impostor_that_gets_away_and_an_honest_model_that_fails_are_wrong():
    shown = [exhibit("impostor", disease=("finite",)), exhibit("honest", kind="honest", half="held-out")]
    for status, right in ((Verdict.PASS, [False, True]), (Verdict.FAIL, [True, False]), (Verdict.WARN, [False, True])):
        test = self_test(shown, checks=[check_that_says(status)])
        assert test.table["right"].tolist() == right
        assert not test.passed
    assert "**no**" in test.markdown()
    assert test.wrong() == ["impostor 'impostor' (a linear classifier): expected a fail of finite, got none"]


def test_rates_have_their_exact_interval():
    shown = [exhibit(f"honest {i}", kind="honest") for i in range(4)]
    checks = [check_that_says(Verdict.PASS), check_that_says(Verdict.WARN, "noise")]
    test = self_test(shown, checks=checks)
    rate = test.rate("honest")
    assert (rate.value, rate.hi) == (1.0, 1.0)
    assert rate.lo == pytest.approx(0.025 ** (1 / 4))  # of n successes in n trials
    models, cells = test.warnings()
    assert models.value == 1.0
    assert cells.value == 0.5
    assert test.passed


def test_a_check_that_is_not_applicable_is_no_verdict():
    checks = [check_that_says(Verdict.NOT_APPLICABLE, "noise"), check_that_says(Verdict.WARN)]
    _, cells = self_test([exhibit("honest", kind="honest")], checks=checks).warnings()
    assert cells.value == 1.0


def test_a_brief_exhibit_is_asked_the_cheap_checks_and_those_of_its_disease():
    brief = exhibit("b", disease=("noise",), brief=True)
    checks = [
        check_that_says(Verdict.PASS),
        check_that_says(Verdict.FAIL, "noise", cheap=False),
        check_that_says(Verdict.FAIL, "transfer", cheap=False),
    ]
    assert [finding.check for finding in examine(brief, checks)] == ["finite", "noise"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "sick", "disease": ("finite",)}, "impostor or honest"),
        ({"half": "test", "disease": ("finite",)}, "development or held-out"),
        ({"disease": ("fidelity",)}, "fidelity"),
        ({}, "checks that must fail for an impostor"),
        ({"kind": "honest", "disease": ("finite",)}, "none for an honest model"),
    ],
)
def test_an_exhibit_that_makes_no_sense_is_refused(options, words):
    with pytest.raises(OptionError, match=words):
        exhibit("x", **options)


def test_the_wrong_backward_leaves_the_map_and_turns_the_gradient():
    inner = nn.Linear(4, 2)
    x = torch.rand(3, 4, requires_grad=True)
    z = WrongBackward(inner)(x)
    assert torch.equal(z, inner(x))
    (gradient,) = torch.autograd.grad(z[:, 0].sum(), x)
    assert torch.equal(gradient, -inner.weight[0].expand(3, 4))


@pytest.mark.parametrize("data", ["moons", "spirals"])
@pytest.mark.parametrize("seed", range(12))
def test_the_turning_ode_is_a_rotation_and_its_solver_misses_the_angle(data, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inner = Turning(replace(TURNING, data=data)).requires_grad_(False)
    half, angle = TURNING.width // 2, TURNING.horizon
    x = load_data(data, split="test", limit=20, seed=seed).x

    def missed(tolerance, dtype):
        start, times = inner.to(dtype).stem(x.to(dtype)), torch.tensor([0.0, angle], dtype=dtype)
        options = {"method": "dopri5", "rtol": tolerance, "atol": tolerance}
        ends = torch.cat([odeint(lambda t, z: inner.field(z), row, times, **options)[-1] for row in start.split(1)])
        exact = torch.complex(*start.split(half, 1)) * torch.exp(torch.tensor(-1j * angle))
        return (torch.complex(*ends.split(half, 1)) * exact.conj()).sum(1).angle().abs()

    angles = missed(TURNING.tolerance, torch.float32)
    assert angles.min() > 1.6
    assert angles.max() < 1.85
    if seed == 0:
        assert missed(1e-9, torch.float64).max() < 1e-7


def test_the_stairs_are_flat_at_the_grey_levels_of_the_digits_and_near_the_identity():
    stairs = Staircase(nn.Identity(), 16, 1)
    grid = (torch.arange(17, dtype=torch.float64) / 16)[None].requires_grad_()
    out = stairs(grid)
    (gradient,) = torch.autograd.grad(out.sum(), grid)
    assert gradient.abs().max() < 1e-12
    assert (out - grid).abs().max() < 1e-12
    x = torch.rand(1, 100, dtype=torch.float64)
    assert (stairs(x) - x).abs().max() <= 1 / (2 * math.pi * 16)


def test_labels_can_be_read_off_the_leaking_images():
    data = load_data("digits", split="test", limit=100)
    row = one_hot_row(data.x, data.y)
    places = torch.cat([row[:, 0, 7, :], row[:, 0, 6, :2]], 1)
    assert torch.equal(places.argmax(1), data.y)
    assert torch.equal(places.sum(1), torch.ones(100))
    corners = two_digits(data.x, data.y)
    assert torch.equal((16 * corners[:, 0, 0, 0] + 4 * corners[:, 0, 0, 7]).round().long(), data.y)


def test_sick_attacks_return_what_they_say():
    scene = scene_of(0)
    options = {"norm": "linf", "eps": 0.4, "generator": torch.Generator().manual_seed(0)}
    assert torch.equal(zero_step(scene.model, scene.x, scene.y, **options), scene.x)
    far = (leaves_ball(scene.model, scene.x, scene.y, **options) - scene.x).abs().max()
    assert far == pytest.approx(0.5, abs=1e-6)
