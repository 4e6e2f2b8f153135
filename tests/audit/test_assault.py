"""What the attacking checks share: survivors, radii, trials one after another, and what is said of those that fail."""

from functools import partial

import pytest
import torch

from robustode.attacks.base import assess
from robustode.audit.assault import Trial, assault
from robustode.audit.finding import Verdict
from robustode.audit.pgd import PGD
from robustode.errors import AttackError
from tests.audit.cases import make_case
from tests.audit.problems import affine, clear_of, distances

RADII = (0.06, 0.1, 0.15)


class Exact:
    """Steps of length ε towards the boundary of an affine classifier of two classes, of the first `most` samples."""

    norm = "l2"

    def __init__(self, eps: float, most: int = 10**6) -> None:
        self.eps, self.most, self.seen = eps, most, []

    def __call__(self, model, x, y, *, target=None, generator=None):
        self.seen.append(len(x))
        weight = model.bare.weight.detach()
        row = weight[1] - weight[0]
        toward = torch.where(y == 0, 1.0, -1.0)[:, None] * row / row.norm()
        toward[self.most :] = 0
        return assess(model, x, y, x + (self.eps * toward).reshape(x.shape), norm="l2", eps=self.eps)


def no_attack():
    raise AttackError("library", expected="3 classes", got=2, fix="Install it.")


class Raises(Exact):
    def __call__(self, model, x, y, *, target=None, generator=None):
        raise ValueError("no luck\nsecond line")


def case_of(budgets=RADII, n=60, **options):
    """No attack has run: every correctly classified sample is a survivor."""
    model, x, y = affine(n=n)
    reach = distances(model, x, y)
    sure = torch.stack([clear_of(reach, eps) for eps in RADII]).all(0)
    case = make_case(model, x[sure], y[sure], budgets={"l2": list(budgets)}, **{"full": True, **options})
    return case, reach[sure]


def exactly(norm, eps, **options):
    return [Trial(name="exact", build=partial(Exact, eps, **options))]


def test_at_every_radius_exactly_what_is_nearer_is_broken():
    case, reach = case_of(budgets=reversed(RADII))
    found = assault(case, "test", exactly)
    cells = found.details["radii"]
    assert [cell["eps"] for cell in cells] == list(RADII)
    assert [cell["broken"] for cell in cells] == [int((reach < eps).sum()) for eps in RADII]
    assert [cell["at_smaller"] for cell in cells] == [0, *(int((reach < eps).sum()) for eps in RADII[:2])]
    assert found.value == int((reach < RADII[2]).sum())
    assert found.samples == tuple((reach < RADII[2]).nonzero().squeeze(1).tolist())
    assert found.text == (
        f"{found.value:g} of {len(reach)} survivors broken at l2 0.15 "
        f"(exact {cells[2]['by']['exact']}, at smaller radii {cells[1]['broken']})"
    )
    for eps, before in zip(RADII, (0.0, *RADII[:2]), strict=True):
        new = (reach >= before) & (reach < eps)
        assert torch.equal(case.evidence.broken("test", "l2", eps), new.nonzero().squeeze(1))


def test_only_the_most_telling_radius_unless_all_are_asked_for():
    case, reach = case_of(full=False)
    found = assault(case, "test", exactly)
    assert [cell["eps"] for cell in found.details["radii"]] == [0.15]
    assert found.value == int((reach < 0.15).sum())


def test_a_trial_sees_only_what_those_before_it_left_standing():
    case, reach = case_of(budgets=[0.15])
    second = Exact(0.15)
    trials = [Trial(name="first", build=lambda: Exact(0.15, most=7)), Trial(name="second", build=lambda: second)]
    found = assault(case, "test", lambda norm, eps: trials)
    by_first = int((reach[:7] < 0.15).sum())
    assert second.seen == [len(reach) - by_first]
    assert found.details["radii"][0]["by"] == {"first": by_first, "second": int((reach < 0.15).sum()) - by_first}


@pytest.mark.parametrize(("count", "verdict"), [(1, Verdict.PASS), (2, Verdict.WARN), (3, Verdict.FAIL)])
def test_the_thresholds_are_s_and_half_of_it(count, verdict):
    case, reach = case_of(budgets=[0.15])
    near = (reach < 0.15).nonzero().squeeze(1)
    most = int(near[count]) if count < len(near) else len(reach)
    found = assault(case, "test", partial(exactly, most=most))
    assert (found.value, found.threshold, found.status) == (count, 2, verdict)


def test_more_survivors_than_the_limit_are_drawn_and_scaled_up():
    case, reach = case_of()
    found = assault(case, "test", exactly, limit=20)
    cells = found.details["radii"]
    assert [(cell["tried"], cell["survivors"]) for cell in cells] == 3 * [(20, len(reach))]
    worst = cells[2]
    assert found.value == pytest.approx(worst["broken"] * len(reach) / 20)
    assert 0.6 < found.value / int((reach < 0.15).sum()) < 1.5
    assert f"drawn from {len(reach)}: about {found.value:.0f} of all" in found.text
    again = assault(case_of()[0], "test", exactly, limit=20)
    assert again == found
    assert assault(case_of()[0], "other", exactly, limit=20).samples != found.samples


def test_what_raises_is_said_and_the_others_run():
    case, reach = case_of(budgets=[0.15])
    trials = [
        Trial(name="lacking", build=no_attack),
        Trial(name="unlucky", build=lambda: Raises(0.15)),
        Trial(name="exact", build=lambda: Exact(0.15, most=1)),
    ]
    found = assault(case, "test", lambda norm, eps: trials)
    assert found.value == int(reach[0] < 0.15)
    assert found.status is Verdict.WARN  # although nothing speaks for a defect: an attack did not end
    assert "lacking left out (library: expected 3 classes, got 2. Install it)" in found.text
    assert "unlucky did not end (ValueError: no luck)" in found.text
    assert set(found.details["left_out"]) == {"lacking"}
    assert set(found.details["raised"]) == {"unlucky"}


def test_not_applicable_without_trials_or_survivors():
    case, _ = case_of()
    found = assault(case, "test", lambda norm, eps: [], nothing="no trial")
    assert (found.status, found.text) == (Verdict.NOT_APPLICABLE, "no trial")
    found = assault(case, "test", lambda norm, eps: [Trial(name="lacking", build=no_attack)])
    assert found.status is Verdict.NOT_APPLICABLE
    assert "lacking left out" in found.text
    assert assault(make_case(*affine(), budgets={}), "test", exactly).status is Verdict.NOT_APPLICABLE
    model, x, y = affine()
    found = assault(make_case(model, x, 1 - y, budgets={"l2": [0.1]}), "test", exactly)
    assert (found.status, found.text) == (Verdict.NOT_APPLICABLE, "no sample is left standing at any radius")


def test_another_model_is_attacked_and_the_own_one_judges():
    case, reach = case_of(budgets=[0.15])
    other, *_ = affine()
    trial = Trial(name="pgd", build=partial(PGD, norm="l2", eps=0.15), model=other)
    assert assault(case, "test", lambda norm, eps: [trial]).value == int((reach < 0.15).sum())
