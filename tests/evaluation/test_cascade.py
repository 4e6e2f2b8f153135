"""A cascade starts each attack on what is standing; the worst case is that of the suite without it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from robustode.attacks.norms import ball_tolerance
from robustode.errors import AttackError
from robustode.evaluation import engine
from robustode.evaluation.cascade import smallest
from robustode.evaluation.engine import run_unit
from robustode.evaluation.engines import bench
from robustode.evaluation.records import best_distance, rows
from robustode.reporting.captions import common
from tests.attacks.adapter_problems import exact_distance
from tests.evaluation.problem import affine, as_data, forms, plan_of, refused, subject_and_shard
from tests.evaluation.runs import BUDGETS, CARD, contents, run
from tests.problems import Affine, random_points


@pytest.fixture
def suite(tmp_path):
    """Returns the path of a suite: an exact attack in the ball, a minimal-norm one, random ones of both norms."""
    folder = forms(tmp_path / "suite")
    for name, norm, kind in (("within", "l2", "budget"), ("push", "l2", "minimal"), ("noise", "linf", "budget")):
        (folder / f"{name}.toml").write_text(CARD.format(name=name, norm=norm, kind=kind))
    short = {"search": "robustode:random-search", "pgd": "foolbox:LinfPGD", "pgd2": "torchattacks:PGDL2"}
    for (name, code), steps in zip(short.items(), ("queries = 20", "steps = 3", "steps = 3"), strict=True):
        norm = "l2" if name == "pgd2" else "linf"
        text = f"title = 't'\nimplementation = '{code}'\nnorm = '{norm}'\nkind = 'budget'\n[params]\n{steps}\n"
        (folder / f"{name}.toml").write_text(text)
    attacks = ["within", "noise", "push", *short]

    def write(*, cascade, attacks=attacks):
        path = folder / f"suite-{cascade}.toml"
        path.write_text(f"cascade = {str(cascade).lower()}\nattacks = {attacks}\n")
        return str(path)

    return write


def plan(suite, budgets=BUDGETS):
    model, data = affine()
    return plan_of(model, data, attacks=suite, budgets=budgets, shard=16)


def test_only_what_stands_is_attacked_and_the_worst_case_is_the_same(suite, tmp_path):
    model, data = affine()
    cascade = run(plan(suite(cascade=True)), tmp_path / "cascade")
    whole = run(plan(suite(cascade=False)), tmp_path / "whole")
    exact = exact_distance(model, data.x, data.y, "l2").numpy()
    right = (model(data.x).argmax(1) == data.y).numpy()
    order = [card["name"] for card in cascade.meta["protocol"]["attacks"]]
    known = {norm: np.full(len(right), np.inf) for norm in BUDGETS}
    skipped = 0
    for name in order:
        own = rows(cascade.records, attack=name)
        norm = own["norm"].iloc[0]
        before = known[norm].copy()
        for eps in sorted(own["eps"].dropna().unique()) or [None]:
            part = rows(own, eps=eps).sort_values("sample")
            radius = min(BUDGETS[norm]) if eps is None else eps
            stands = right & (before > radius + ball_tolerance(radius, (0.0, 1.0), 12, norm))
            started = part["status"].isin(["success", "failed"]).to_numpy()
            assert (started == stands).all(), (name, eps)
            assert (part["status"].to_numpy()[right & ~stands] == "skipped").all()
            assert (part["status"].to_numpy()[~right] == "misclassified").all()
            assert (part["forwards"].to_numpy()[~stands] == 0).all()
            skipped += int((right & ~stands).sum())
            before = np.minimum(before, np.where(started, part["distance"].to_numpy(), np.inf))
        known[norm] = before
    assert skipped > 50
    assert ((exact < 0.1) & right).any()
    for norm, radii in BUDGETS.items():
        both = [best_distance(rows(one.records, norm=norm))["distance"].to_numpy() for one in (cascade, whole)]
        for eps in radii:
            limit = eps + ball_tolerance(eps, (0.0, 1.0), 12, norm)
            assert ((both[0] <= limit) == (both[1] <= limit)).all()
    assert cascade.meta["protocol_hash"] != whole.meta["protocol_hash"]
    assert cascade.meta["status"] == whole.meta["status"] == "complete"
    assert not (whole.records["status"] == "skipped").any()


def test_a_resumed_cascade_gives_the_same_bytes(suite, tmp_path, monkeypatch):
    path = suite(cascade=True)
    whole = run(plan(path), tmp_path / "whole")
    real = engine.run_unit
    for stop in (1, 7):
        calls = []

        def interrupted(*args, calls=calls, stop=stop, **options):
            calls.append(1)
            if len(calls) > stop:
                raise KeyboardInterrupt
            return real(*args, **options)

        out = tmp_path / f"resumed-{stop}"
        monkeypatch.setattr(bench, "run_unit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(plan(path), out)
        monkeypatch.setattr(bench, "run_unit", real)
        assert contents(run(plan(path), out, resume=True).path) == contents(whole.path)


def test_a_resumed_run_without_a_cascade_is_another_run(suite, tmp_path):
    run(plan(suite(cascade=True)), tmp_path / "run")
    with pytest.raises(Exception, match=r"attacks\.within\.cascade: true then, nothing now"):
        run(plan(suite(cascade=False)), tmp_path / "run", resume=True)


def test_an_attack_that_raises_leaves_its_samples_standing(tmp_path, suite):
    folder = forms(tmp_path / "suite")
    (folder / "raises.toml").write_text(CARD.format(name="raises", norm="l2", kind="budget"))
    path = suite(cascade=True, attacks=["raises", "push"])
    done = run(plan(path, {"l2": BUDGETS["l2"]}), tmp_path / "run")
    model, data = affine()
    right = int((model(data.x).argmax(1) == data.y).sum())
    assert (rows(done.records, attack="push")["status"] == "failed").sum() + (
        rows(done.records, attack="push")["status"] == "success"
    ).sum() == right


def test_the_border_of_the_radius_counts_as_broken(card):
    model, data = affine(6, wrong=0)
    subject, shard = subject_and_shard(model, data)
    tau = ball_tolerance(0.1, (0.0, 1.0), 12, "l2")
    found = torch.tensor([0.1, 0.1 + tau, 0.1 + 2 * tau, 0.05, 0.2, torch.inf], dtype=torch.float64)
    options = {"radii": (0.1, 0.2), "data": "toy", "seed": 0, "protocol": "p", "found": found}
    frame = run_unit(subject, card("clean"), shard, **options).records
    state = [list(rows(frame, eps=eps)["status"]) for eps in (0.1, 0.2)]
    assert state[0] == ["skipped", "skipped", "failed", "skipped", "failed", "failed"]
    assert state[1] == ["skipped"] * 5 + ["failed"]
    minimal = run_unit(subject, card("clean", kind="minimal"), shard, **options).records
    assert list(minimal["status"]) == state[0]


def test_smallest_takes_successes_only():
    inf, samples = float("inf"), [3, 5, 7, 9]
    assert smallest([], samples).tolist() == [inf] * 4
    frames = [
        pd.DataFrame({"sample": samples, "status": status, "distance": distance})
        for status, distance in (
            (["misclassified", "success", "failed", "success"], [0.0, 0.3, inf, 0.2]),
            (["misclassified", "success", "skipped", "failed"], [0.0, 0.1, inf, inf]),
        )
    ]
    assert smallest(frames, samples).tolist() == [inf, 0.1, inf, 0.2]
    assert smallest(frames, [9, 11]).tolist() == [0.2, inf]


def test_attacks_that_are_not_for_the_model_are_named_and_the_run_is_complete(tmp_path):
    text = "title='t'\nimplementation='foolbox:LinfPGD'\nnorm='linf'\nkind='budget'\n[params]\nsteps = 3\n"
    for name, needs in (
        ("two", "classes = 2"),
        ("four", "classes = 4"),
        ("table", "image = false"),
        ("few", "features = 2"),
    ):
        (tmp_path / f"{name}.toml").write_text(text + f"[needs]\n{needs}\n")
    (tmp_path / "s.toml").write_text("attacks = ['two', 'four', 'table', 'few']")
    heard = []
    made = plan_of(*affine(), attacks=str(tmp_path / "s.toml"), budgets={"linf": [0.1]})
    done = run(made, tmp_path / "run", listen=heard.append)
    assert done.meta["status"] == "complete"
    assert done.meta["skipped"] == []
    assert {one["attack"]: one["reason"] for one in done.meta["not_applicable"]} == {
        "four": "needs at least 4 classes, the model has 3 (Affine)",
        "table": "needs inputs that are not images, the model has inputs of shape (1, 3, 4) (Affine)",
    }  # and not "few": for many coordinates it is no part of the suite
    said = [event.text for event in heard if event.kind == "skipped"]
    assert len(said) == 1
    assert said[0].startswith("Not applicable: four: needs at least 4 classes, the model has 3 (Affine); table: needs")
    assert said[0] in common(done.records, done.meta)
    assert set(done.records["attack"]) == {"two"}
    (tmp_path / "s.toml").write_text("attacks = ['four']")
    message = (
        "attacks: expected at least one that is for the models, got Not applicable: four: needs at least 4 classes"
    )
    refused(
        AttackError,
        message,
        lambda: plan_of(*affine(), attacks=str(tmp_path / "s.toml"), budgets={"linf": [0.1]}),
    )


def test_every_model_of_a_run_must_fit(tmp_path):
    text = "title='t'\nimplementation='foolbox:LinfPGD'\nnorm='linf'\nkind='budget'\n"
    (tmp_path / "four.toml").write_text(text + "[needs]\nclasses = 4\n")
    x = random_points((5,), 8).float()
    models = [Affine(torch.eye(n, 5), torch.zeros(n), (5,)).eval() for n in (4, 3)]
    data = as_data(x, torch.zeros(8, dtype=torch.long), classes=3)
    made = plan_of(models, data, attacks="fgsm-linf", also=[str(tmp_path / "four.toml")], budgets={"linf": [0.1]})
    assert [card.name for card in made.attacks.cards] == ["fgsm-linf"]
    assert made.attacks.unfit[0]["reason"].endswith("has 3 (Affine#2)")
