"""One unit: rows, points and draws of an honest attack, and of stored points."""

from __future__ import annotations

import math
import time

import pandas as pd
import pytest
import torch

from robustode.attacks.cards import resolve
from robustode.attacks.norms import distance
from robustode.data import export, load_data
from robustode.evaluation import records
from robustode.evaluation.engine import seed_of
from robustode.evaluation.judge import Judge
from robustode.evaluation.rows import Shard
from robustode.evaluation.stored import read_stored
from robustode.evaluation.worst_case import worst_case
from tests.attacks.adapter_problems import exact_distance
from tests.evaluation.problem import affine, as_data, subject_and_shard
from tests.evaluation.units import WRONG, N, attacked, unit


def test_honest_attack_has_the_exact_distances(card):
    model, data = affine(N, wrong=WRONG)
    made, frame = unit(card("push", kind="minimal", by=1e-3))
    wrong, rest = attacked(frame)
    assert wrong["sample"].tolist() == data.index[:WRONG].tolist()
    assert (wrong["distance"] == 0).all()
    assert (wrong["adv_pred"] == wrong["clean_pred"]).all()
    assert (wrong[["forwards", "backwards"]] == 0).all().all()
    assert (rest["status"] == "success").all()
    exact = exact_distance(model, data.x, data.y, "l2")[WRONG:]
    torch.testing.assert_close(torch.tensor(rest["distance"].to_numpy()), 1.001 * exact, rtol=1e-5, atol=0)
    assert (rest["adv_pred"] != rest["label"]).all()
    assert (rest["adv_margin"] < 0).all()
    assert (rest["clean_margin"] > 0).all()
    assert rest["forwards"].tolist() == [1.0] * 28
    assert set(frame["eps"].isna()) == {True}
    torch.testing.assert_close(made.distance, torch.tensor(rest["distance"].to_numpy()))
    assert made.sample.tolist() == rest["sample"].tolist()


def test_a_stored_set_is_judged_like_an_attack(tmp_path, card):
    _, data = affine(N, wrong=WRONG)
    made, _ = unit(card("push", kind="minimal", by=1e-3))
    x = data.x.clone()
    x[WRONG:] = made.x_adv
    some = as_data(x[:20], data.y[:20], index=data.index[:20])
    export(tmp_path / "adv", some, meta={"norm": "l2"})
    stored = read_stored(tmp_path / "adv")
    again, judged = unit(stored)
    assert torch.equal(again.distance, made.distance[:18])
    assert judged["status"].tolist() == ["misclassified"] * 2 + ["success"] * 18 + ["failed"] * 10
    assert judged["message"].tolist() == [""] * 20 + ["not in the stored set"] * 10
    assert set(judged["params"]) == {'{"stored":"' + load_data(str(tmp_path / "adv")).fingerprint[:16] + '"}'}
    _, rest = attacked(judged)
    assert (rest[["forwards", "backwards"]] == 0).all().all()


def test_best_point_is_the_nearest_over_the_budgets(card):
    made, frame = unit(card("within", norm="linf"), radii=(0.05, 0.1, 0.2))
    model, data = affine(N, wrong=WRONG)
    found = records.rows(frame, status="success").groupby("sample")["distance"].min()
    assert made.sample.tolist() == found.index.tolist()
    assert made.distance.tolist() == found.tolist()
    rows = [data.index.tolist().index(int(i)) for i in made.sample]
    assert torch.equal(distance(data.x[rows], made.x_adv, "linf"), made.distance)
    assert (model(made.x_adv).argmax(1) != data.y[rows]).all()
    assert torch.equal(model(made.x_adv).argmax(1), made.pred)
    exact = exact_distance(model, data.x, data.y, "linf")
    smallest = torch.tensor([min((e for e in (0.05, 0.1, 0.2) if e > exact[row]), default=math.inf) for row in rows])
    torch.testing.assert_close(made.distance, smallest.double(), rtol=1e-6, atol=1e-7)


def test_robust_accuracy_falls_with_eps_and_agrees_with_the_exact_distances(card):
    """The worst case per sample is monotone by construction, even where each budget finds other samples."""
    model, data = affine(N, wrong=WRONG)
    radii = tuple(0.02 * k for k in range(1, 15))
    _, frame = unit(card("noise", norm="l2"), radii=radii, seed=4)
    _, pushed = unit(card("within"), radii=radii)
    meta = {"label": "m", "bounds": (0.0, 1.0), "input_shape": (1, 3, 4)}
    both = records.validate(pd.concat([frame, pushed]))
    for part, exact in ((frame, False), (both, True)):
        case = worst_case(part, meta, "l2")
        curve = [case.robust(eps).mean() for eps in radii]
        assert curve == sorted(curve, reverse=True)
        assert curve[0] > curve[-1]
        if exact:
            true = exact_distance(model, data.x, data.y, "l2")
            true[:WRONG] = 0
            assert curve == [float((true > eps).double().mean()) for eps in radii]


def test_draws_follow_the_seed_the_model_and_the_budget_and_nothing_else(card):
    attack = card("noise")
    torch.manual_seed(1)
    one = unit(attack, seed=0, radii=(0.3,))[0]
    torch.manual_seed(2)
    torch.rand(7)
    state = torch.get_rng_state()
    again = unit(attack, seed=0, radii=(0.2, 0.3))[0]
    assert torch.equal(torch.get_rng_state(), state)  # the caller's generator is not touched
    at = again.records["eps"] == 0.3
    pd.testing.assert_frame_equal(again.records[at].reset_index(drop=True), one.records)
    other = unit(attack, seed=1, radii=(0.3,))[0]
    assert not other.records["adv_margin"].equals(one.records["adv_margin"])


def test_own_attacks_draw_for_each_sample_alone():
    """A sample's random step does not depend on which others are in the shard."""
    (attack,) = resolve("one-step-random-linf")
    model, data = affine(N, wrong=WRONG)
    _, whole = unit(attack, radii=(0.2,))
    part = as_data(data.x[11:], data.y[11:], index=data.index[11:])
    _, rest = unit(attack, model, part, radii=(0.2,))
    margins = whole.set_index("sample")["adv_margin"].loc[part.index.tolist()].to_numpy()
    assert margins == pytest.approx(rest["adv_margin"].to_numpy(), abs=1e-6)
    assert len(set(rest["status"])) == 2


def test_a_shard_without_correct_samples(card):
    model, data = affine(N)
    wrong = as_data(data.x, (model(data.x).argmax(1) + 1) % 3)
    for attack in (card("push", kind="minimal"), *resolve("pgd-foolbox-l2"), *resolve("sensitivity-l2")):
        made, frame = unit(attack, model, wrong)
        assert set(frame["status"]) == {"misclassified"}
        assert len(made.sample) == 0


def test_seeds_are_63_bits_and_of_every_part():
    seeds = {seed_of(*parts) for parts in ((0, "a"), (1, "a"), (0, "b"), (0, "a", 0), ("0a",), (0, "a", None))}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(0, "a", 0.1) == seed_of(0, "a", 0.1)


def test_seconds_are_those_of_the_attack_and_not_of_the_judge(monkeypatch, card):
    judge = Judge.judge

    def slow(self, *args, **kwargs):
        time.sleep(0.5)
        return judge(self, *args, **kwargs)

    monkeypatch.setattr(Judge, "judge", slow)
    made, _ = unit(card("within"), radii=(0.1,))
    assert 0 < made.timings["seconds"].item() < 0.5


def test_timings_have_one_row_a_budget(card):
    made, _ = unit(card("within"), radii=(0.05, 0.1))
    assert made.timings["eps"].tolist() == [0.05, 0.1]
    assert made.timings["samples"].tolist() == [28, 28]
    assert (made.timings["seconds"] > 0).all()
    assert isinstance(subject_and_shard(*affine())[1], Shard)
