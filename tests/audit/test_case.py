"""A case: distances and survivors from the records, radii, what checks take as evidence, and draws that can be told."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from robustode.attacks.base import assess
from robustode.attacks.norms import ball_tolerance
from robustode.audit import case as case_module
from robustode.audit.evidence import attack_name
from robustode.errors import AttackError
from robustode.evaluation import records
from robustode.evaluation.examination import is_audit
from tests.audit.cases import make_case
from tests.audit.problems import Through, affine, clear_of, distances

WRONG = 3


def case_of(*attacks, budgets=None, n=40, wrong=WRONG, classes=2, **options):
    """A case of an affine classifier, its first samples labelled wrongly, its indices three apart."""
    model, x, y = affine(n=n, classes=classes)
    reach = distances(model, x, y)
    y[:wrong] = (y[:wrong] + 1) % classes
    case = make_case(model, x, y, attacks=attacks, budgets=budgets or {"l2": [0.05, 0.1, 0.15]}, **options)
    index = 3 * case.shard.index + 1
    found = case.records.assign(sample=3 * case.records["sample"] + 1)
    return replace(case, shard=replace(case.shard, index=index), records=found), reach


def outward(case, rows, length):
    """Points that far from the clean ones, straight towards the boundary of two classes."""
    weight = case.model.weight.detach()
    row = weight[1] - weight[0]
    here = case.shard
    toward = torch.where(here.y[rows] == 0, 1.0, -1.0)[:, None] * row / row.norm()
    return here.x[rows] + (length * toward).reshape(-1, *here.x.shape[1:])


class Push:
    """`outward` for some rows as an attack, by a length that is drawn."""

    norm = "l2"

    def __init__(self, eps, broken_model=False):
        self.eps, self.sizes, self.drawn, self.broken_model = eps, [], [], broken_model

    def __call__(self, model, x, y, *, target=None, generator=None):
        self.sizes.append(len(x))
        share = torch.rand(len(x), 1, generator=generator)
        self.drawn.append(share)
        bare = getattr(model, "bare", model)
        row = (bare.weight[1] - bare.weight[0]).detach()
        toward = torch.where(y == 0, 1.0, -1.0)[:, None] * row / row.norm()
        points = x + (self.eps * share * toward).reshape(x.shape)
        result = assess(model, x, y, points, norm="l2", eps=self.eps)
        if self.broken_model:
            bare.weight.data.neg_()
        return result


def test_distances_are_those_of_the_records_and_zero_where_the_clean_answer_is_wrong():
    case, reach = case_of("sensitivity-l2", classes=3)
    found = case.distances("l2")
    assert (found[:WRONG] == 0).all()
    np.testing.assert_allclose(found[WRONG:], reach[WRONG:].numpy(), rtol=1e-3)
    assert np.isinf(case.distances("linf")[WRONG:]).all()
    assert (case.distances("linf")[:WRONG] == 0).all()
    assert np.isinf(case.distances("l2", without=["sensitivity-l2"])[WRONG:]).all()


@pytest.mark.parametrize("eps", [0.05, 0.1, 0.2])
def test_survivors_are_correct_and_further_than_the_radius(eps):
    case, reach = case_of("sensitivity-l2", "pgd-l2", classes=3)
    survivors = case.survivors("l2", eps)
    sure = clear_of(reach, eps)
    expected = (reach > eps) & (torch.arange(len(reach)) >= WRONG)
    assert torch.equal(torch.isin(torch.arange(len(reach)), survivors)[sure], expected[sure])
    assert torch.equal(case.survivors("l2", eps, without=["sensitivity-l2", "pgd-l2"]), case.correct)
    assert case.correct.tolist() == list(range(WRONG, len(reach)))
    assert case.samples(survivors) == tuple((3 * survivors + 1).tolist())
    assert case.samples([0, 2]) == (1, 7)


def test_a_point_within_the_tolerance_of_the_ball_is_in_it():
    case, _ = case_of("sensitivity-l2", classes=3)
    row = case.correct[0]
    at = case.distances("l2")[row]
    slack = ball_tolerance(at, (0.0, 1.0), 36, "l2")
    assert row not in case.survivors("l2", at)
    assert row not in case.survivors("l2", at - 0.9 * slack)
    assert row in case.survivors("l2", at - 1.1 * slack)


def test_the_most_telling_radius_leaves_half_of_the_correct_ones():
    case, _ = case_of("sensitivity-l2", budgets={"l2": [0.03, 0.08, 0.2]}, classes=3)
    left = {eps: len(case.survivors("l2", eps)) for eps in (0.03, 0.08, 0.2)}
    nearest = min(left, key=lambda eps: abs(left[eps] - len(case.correct) / 2))
    assert case.radii("l2") == (nearest,) == (0.08,)
    assert replace(case, full=True).radii("l2") == (0.03, 0.08, 0.2)
    assert case.radii("linf") == ()


def test_radii_of_ties_and_without_survivors():
    case, _ = case_of(budgets={"l2": [0.1, 0.3, 0.2]})  # nothing was attacked: all radii leave everything
    assert case.radii("l2") == (0.3,)
    assert replace(case, full=True).radii("l2") == (0.1, 0.3, 0.2)
    case, _ = case_of("sensitivity-l2", budgets={"l2": [0.1, 10.0]}, classes=3)
    assert replace(case, full=True).radii("l2") == (0.1,)
    case, _ = case_of("sensitivity-l2", budgets={"l2": [10.0]}, classes=3)
    assert case.radii("l2") == replace(case, full=True).radii("l2") == ()


@pytest.mark.parametrize(("n", "slack"), [(40, 2.0), (200, 2.0), (201, 2.01), (1000, 10.0)])
def test_slack_is_a_hundredth_and_at_least_two(n, slack):
    case, _ = case_of(wrong=0)
    one = case.shard
    rows = torch.arange(n) % len(one.y)
    many = replace(one, **{k: getattr(one, k)[rows] for k in ("x", "y", "index", "clean_pred", "clean_margin")})
    assert replace(case, shard=many).slack == pytest.approx(slack)


def test_what_is_taken_is_judged_and_becomes_rows_of_the_records():
    case, reach = case_of("sensitivity-l2")
    rows = torch.arange(WRONG, 20)
    verdict = case.take("noise", "l2", 0.1, rows, outward(case, rows, 0.0999))
    near = reach[rows] < 0.0999
    assert torch.equal(verdict.success, near)
    assert torch.equal(case.evidence.broken("noise", "l2", 0.1), rows[near])
    ((name, unit),) = case.evidence.units(case, "noise")
    assert name == attack_name("noise", "l2") == "audit-noise-l2"
    assert is_audit(name)
    made = records.validate(unit.records)
    assert len(made) == len(reach)
    assert made["sample"].tolist() == case.shard.index.tolist()
    status = dict(zip(made["sample"], made["status"], strict=True))
    for row, sample in enumerate(case.shard.index.tolist()):
        tried = bool((rows == row).any())
        expected = "skipped" if not tried else "success" if reach[row] < 0.0999 else "failed"
        assert status[sample] == ("misclassified" if row < WRONG else expected)
    successes = made[made["status"] == "success"]
    np.testing.assert_allclose(successes["distance"], 0.0999, rtol=1e-4)
    assert (successes["adv_margin"] < 0).all()
    assert (successes["adv_pred"] != successes["label"]).all()
    assert set(made["params"]) == {'{"check":"noise"}'}
    assert made["eps"].tolist() == len(reach) * [0.1]
    both = records.validate(pd.concat([case.records, made], ignore_index=True))
    assert len(both) == 2 * len(reach)
    assert unit.sample.tolist() == case.shard.index[rows[near]].tolist()
    torch.testing.assert_close(unit.x_adv, verdict.x_adv[near])


def test_points_outside_the_ball_or_the_box_are_not_taken():
    case, _ = case_of()
    rows = case.correct
    assert not case.take("noise", "l2", 0.1, rows, outward(case, rows, 0.3)).success.any()
    assert not case.take("noise", "l2", None, rows, case.shard.x[rows] + 2).success.any()
    assert len(case.evidence.broken("noise", "l2", 0.1)) == 0
    (_, unit), *_ = case.evidence.units(case, "noise")
    assert set(records.validate(unit.records)["status"]) == {"failed", "misclassified"}
    assert len(unit.sample) == 0


def test_of_several_points_the_nearest_is_kept_over_calls_and_radii():
    case, reach = case_of()
    row = int((reach[WRONG:] < 0.08).nonzero()[0]) + WRONG
    rows = torch.tensor([row])
    lengths = {0.2: [0.15, 0.12, 0.14], 0.1: [0.09], None: [0.11]}
    for eps, values in lengths.items():
        for value in values:
            assert case.take("noise", "l2", eps, rows, outward(case, rows, value)).success.all()
    case.take("noise", "l2", 0.2, rows, case.shard.x[rows])  # a later failure changes nothing
    ((_, unit),) = case.evidence.units(case, "noise")
    made = records.validate(unit.records)
    mine = made[made["sample"] == 3 * row + 1]
    found = dict(zip(mine["eps"].fillna(-1), mine["distance"], strict=True))
    assert found == pytest.approx({0.2: 0.12, 0.1: 0.09, -1: 0.11}, rel=1e-4)
    assert unit.distance.tolist() == pytest.approx([0.09], rel=1e-4)
    torch.testing.assert_close(unit.x_adv, outward(case, rows, 0.09))


def test_units_are_those_of_the_check_one_for_each_norm():
    case, _ = case_of()
    rows = case.correct
    case.take("noise", "l2", 0.1, rows, case.shard.x[rows])
    case.take("noise", "linf", 0.1, rows, case.shard.x[rows])
    case.take("one-step", "l2", 0.1, rows, case.shard.x[rows])
    assert [name for name, _ in case.evidence.units(case, "noise")] == ["audit-noise-l2", "audit-noise-linf"]
    assert [name for name, _ in case.evidence.units(case, "one-step")] == ["audit-one-step-l2"]
    assert case.evidence.units(case, "finite") == []
    assert case.evidence.broken("finite", "l2", 0.1).tolist() == []


def test_an_attack_is_run_in_parts_and_its_points_are_taken(monkeypatch):
    case, reach = case_of()
    monkeypatch.setattr(case_module, "AT_ONCE", 10)
    attack = Push(0.2)
    broken = case.attack("one-step", attack, case.correct)
    drawn = torch.cat(attack.drawn).squeeze(1)
    assert attack.sizes == [10, 10, 10, 7]
    assert len(drawn.unique()) > 35
    assert torch.equal(broken, 0.2 * drawn > reach[case.correct])
    assert torch.equal(case.evidence.broken("one-step", "l2", 0.2), case.correct[broken])
    assert case.attack("one-step", attack, case.correct[:0]).tolist() == []
    assert len(attack.sizes) == 4


def test_draws_follow_from_the_run_the_check_and_the_name():
    def drawn(check="one-step", name="", seed=0):
        case, _ = case_of()
        attack = Push(0.2)
        torch.rand(1)  # the state of the global generator has no part in it
        replace(case, common={**case.common, "seed": seed}).attack(check, attack, case.correct, name=name)
        return attack.drawn[0]

    assert torch.equal(drawn(), drawn())
    for other in ({"check": "noise"}, {"name": "again"}, {"seed": 1}):
        assert not torch.equal(drawn(), drawn(**other))
    case, _ = case_of()
    state = torch.random.get_rng_state()
    case.attack("one-step", Push(0.2), case.correct)
    assert torch.equal(torch.random.get_rng_state(), state)
    first, second = (torch.rand(3, generator=case.generator(check)) for check in ("noise", "noise"))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(3, generator=case.generator("data")))


def test_another_model_is_attacked_but_the_own_one_judges():
    case, reach = case_of()
    passes = []
    other, *_ = affine()
    watched = Through(other, inputs=lambda x: passes.append(len(x)) or x)
    watched.weight = other.weight
    attack = Push(0.2)
    broken = case.attack("transfer", attack, case.correct, model=watched)
    assert sum(passes) > 0
    assert case.subject.counted.forwards == 0
    assert torch.equal(broken, 0.2 * attack.drawn[0].squeeze(1) > reach[case.correct])


def test_an_attack_that_changes_the_model_is_refused_and_the_model_put_back():
    case, _ = case_of()
    before = case.model.weight.detach().clone()
    with pytest.raises(AttackError, match="the attack changed the model: expected the model as it was"):
        case.attack("more-effort", Push(0.2, broken_model=True), case.correct)
    assert torch.equal(case.model.weight, before)
    assert case.evidence.units(case, "more-effort") == []


def test_an_answer_that_is_not_finite_is_a_broken_sample_in_the_records():
    model, x, y = affine()
    hole = Through(model, inputs=lambda point: torch.where(point > x.max(), math.nan, point))
    case = make_case(hole, x, y, budgets={"linf": [0.9]})
    rows = case.correct
    assert case.take("noise", "linf", 0.9, rows, (x[rows] + 0.5).clamp(0, 1)).success.all()
    ((_, unit),) = case.evidence.units(case, "noise")
    made = records.validate(unit.records)
    assert set(made["adv_pred"]) == {-1}
    assert made["adv_margin"].max() == -math.inf
