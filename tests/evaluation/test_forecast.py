"""Predicted passes, operations, time and memory against closed forms and against the run itself."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from robustode.errors import ModelError, RunError
from robustode.evaluation.flops import flops_per_row
from robustode.evaluation.forecast import _line, _makespan, _scaled, forecast
from robustode.evaluation.trial import Clean
from robustode.models import wrap
from robustode.models.resnet import ResNet
from tests.evaluation.hungry import HUNGRY
from tests.evaluation.problem import affine, forms, plan_of
from tests.evaluation.runs import BUDGETS, run
from tests.problems import random_affine, random_conv_snode, random_points, random_snode


def test_operations_of_a_dense_snode_are_those_of_its_products():
    for activation, method, stages in (("tanh", "euler", 1), ("relu", "rk4", 4)):
        model = random_snode(activation=activation, method=method, steps=12)
        forward, backward = flops_per_row(model, random_points((1, 3, 4), 1))
        assert forward == 2 * 12 * 12 * 12 * stages
        assert backward == forward


def test_operations_of_other_models():
    x = random_points((2, 4, 6), 1)
    model = random_conv_snode(method="euler", steps=5)
    forward, backward = flops_per_row(model, x)
    assert forward == 5 * 2 * 4 * 4 * 9 * 24  # channels², offsets, positions
    assert backward == forward
    net = ResNet(input_shape=(1, 8, 8), classes=3, width=4).eval()
    forward, backward = flops_per_row(net, torch.rand(1, 1, 8, 8))
    assert 0.5 * forward < backward <= 1.5 * forward  # with respect to the input alone
    assert flops_per_row(random_affine(classes=3), random_points((1, 3, 4), 1)) == (2 * 12 * 3, 2 * 12 * 3)


def test_operations_that_are_not_seen_are_unknown():
    model = wrap(nn.Flatten(), bounds=(0.0, 1.0), classes=3, input_shape=(3,))  # no product in it
    assert all(math.isnan(count) for count in flops_per_row(model, torch.rand(1, 3)))


@pytest.mark.parametrize("size", [1, 10, 64, 500, 10**6])
def test_a_line_through_two_sizes(size):
    assert _line((16, 64), (1.0 + 0.25 * 16, 1.0 + 0.25 * 64), size) == pytest.approx(1.0 + 0.25 * size)
    assert _line((16, 64), (9.0, 8.0), size) == pytest.approx(size / 8)  # more samples in less time: in proportion
    assert _line((16, 64), (1.0, 100.0), size) == pytest.approx(size * 100 / 64)  # never less than nothing at 0
    assert _line((30, 30), (3.0, 3.0), size) == pytest.approx(size / 10)
    assert _line((0, 0), (3.0, 3.0), size) == 3.0  # nothing was classified correctly


def test_makespan():
    assert _makespan([3.0, 1.0, 2.0, 2.0], 1) == 8.0
    assert _makespan([3.0, 1.0, 2.0, 2.0], 2) == 4.0
    assert _makespan([3.0, 1.0, 2.0, 2.0], 9) == 3.0
    assert _makespan([], 2) == 0.0
    # Graham's bound for the longest first: at most 4/3 − 1/(3m) of the best, found here by trying all
    times, m = [5.0, 5.0, 4.0, 4.0, 3.0, 3.0, 3.0], 3
    best = min(
        max(sum(t for t, w in zip(times, who, strict=True) if w == i) for i in range(m))
        for who in itertools.product(range(m), repeat=len(times))
    )
    assert best <= _makespan(times, m) <= (4 / 3 - 1 / (3 * m)) * best + 1e-9


def clean(correct, n):
    return Clean(correct=correct, n=n, sizes=(1, 1), seconds=(1.0, 1.0))


def test_the_interval_of_the_passes_covers_the_total_as_often_as_it_says():
    """600 samples, of which 60 % are correctly classified; the share is taken from 300, the passes from 64."""
    rng = np.random.default_rng(0)
    right = rng.random(600) < 0.6
    passes = np.where(right, rng.gamma(2.0, 10.0, size=600), 0.0)
    hits = 0
    for _ in range(400):
        wide = rng.permutation(600)[:300]
        few = wide[:64]
        found = _scaled(passes[few][right[few]], clean(int(right[wide].sum()), 300), 600)
        hits += found.lo <= passes.sum() <= found.hi
    assert 0.91 < hits / 400 < 0.98
    whole = _scaled(passes[right], clean(int(right.sum()), 600), 600)  # nothing is left to guess
    assert whole.lo == pytest.approx(passes.sum())
    assert whole.hi == pytest.approx(passes.sum())
    assert _scaled(passes[right][:1], clean(1, 2), 600).lo is None
    assert _scaled(passes[:0], clean(0, 10), 600).value == 0.0


def test_a_forecast_beside_its_run(suite, tmp_path):
    model, data = affine(n=100)
    plan = plan_of(model, data, attacks=suite, budgets=BUDGETS, shard=25)
    found = forecast(plan, workers=2)
    done = run(plan, tmp_path / "run")
    records = done.records
    assert (found.samples, found.units, found.measured) == (100, 24, 64)
    for cost in found.costs:
        rows = records[records["attack"] == cost.attack]
        for name in ("forwards", "backwards"):
            passes, said = float(rows[name].sum()), getattr(cost, name).value
            assert said == pytest.approx(passes, rel=0.25, abs=1)
        tried = rows[rows["status"] != "misclassified"]["sample"].nunique()
        assert cost.attacked == pytest.approx(tried, rel=0.1)
    pgd = next(cost for cost in found.costs if cost.attack == "pgd-foolbox-linf")
    per_row = 2 * 12 * model.classes
    assert pgd.flops == pytest.approx((pgd.forwards.value + pgd.backwards.value) * per_row)
    assert 0 < found.seconds < found.clean + found.total("seconds")
    assert found.seconds > found.clean + found.total("seconds") / 2.001


def test_nothing_is_left_to_guess_where_all_samples_are_measured(plan, tmp_path):
    found, records = forecast(plan), run(plan, tmp_path / "run").records
    for cost in found.costs:
        rows = records[records["attack"] == cost.attack]
        assert cost.attacked == rows[rows["status"] != "misclassified"]["sample"].nunique()
        if not cost.attack.startswith("sensitivity"):  # whose batches have other coarse searches
            assert cost.forwards.value == pytest.approx(rows["forwards"].sum())
        assert cost.forwards.lo == pytest.approx(cost.forwards.value)


def test_a_cascade_costs_what_is_left_standing(tmp_path):
    model, data = affine(n=80)
    plan = plan_of(model, data, attacks="strong-l2", budgets={"l2": BUDGETS["l2"][:1]})
    cascade = forecast(plan)
    records = run(plan, tmp_path / "run").records
    passes = float(records["forwards"].sum() + records["backwards"].sum())
    assert cascade.total("forwards") + cascade.total("backwards") == pytest.approx(passes, rel=0.25)
    attacked = [cost.attacked for cost in cascade.costs]
    assert min(attacked) < max(attacked)


def test_a_low_accuracy_that_the_run_accepts_is_accepted_though_few_samples_could_not_tell_it_from_chance():
    model, data = affine(n=100, wrong=45)  # of 16 samples 70 % would be asked for
    plan = plan_of(model, data, attacks="fgm-l2", budgets={"l2": BUDGETS["l2"]}, allow_low_accuracy=False)
    (cost,) = forecast(plan).costs
    assert cost.attacked == 55
    model, data = affine(n=100, wrong=100)
    plan = plan_of(model, data, attacks="fgm-l2", budgets={"l2": BUDGETS["l2"]}, allow_low_accuracy=False)
    with pytest.raises(ModelError, match=r"0.0% of 100 samples, no better than chance"):
        forecast(plan)


def test_a_unit_that_ran_out_of_memory_is_timed_with_what_it_took(tmp_path):
    folder = forms(tmp_path)
    code = (
        "import time\n\ndef fn(model, x, y, *, norm, eps, generator):\n    if len(x) > 40:\n        raise MemoryError\n"
    )
    (folder / "greedy.py").write_text(code + "    time.sleep(0.2)\n    return x\n")
    model, data = affine(n=100)
    attack = f"python:{folder / 'greedy.py'}:fn"
    (cost,) = forecast(plan_of(model, data, attacks=attack, norms=["l2"], budgets={"l2": [0.1]})).costs
    assert cost.seconds > 0.4


def test_an_attack_that_always_fails_has_no_cost(tmp_path):
    folder = forms(tmp_path)
    model, data = affine()
    (folder / "bad.py").write_text("def fn(model, x, y, *, norm, eps, generator):\n    raise ValueError('not today')\n")
    plan = plan_of(model, data, attacks=f"python:{folder / 'bad.py'}:fn", norms=["l2"], budgets={"l2": [0.1]})
    with pytest.raises(RunError, match=r"expected an attack that runs, got .*not today.* Leave it out"):
        forecast(plan)


SCRIPT = """
from robustode.evaluation.engines.options import Engine
from robustode.evaluation.forecast import forecast
from robustode.evaluation.plan import make_plan
from robustode.evaluation.protocol import build_protocol
from robustode.evaluation.runner import execute

memory = int(sys.argv[2]) or None
model, data = hungry(400)
values = {"models": [{"model": "m"}], "attacks": "fgm-l2", "budgets": {"l2": [0.5]}, "allow_low_accuracy": True}
plan = make_plan(build_protocol(values, "test"), data=data, modules=[model])
if sys.argv[1] == "plan":
    print(forecast(plan, memory=memory).bytes)
else:
    run = execute(plan, Path(sys.argv[3]), command="test", engine=Engine(memory=memory))
    print(run.meta["engine"]["peak_bytes"])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads memory as Linux gives it")
@pytest.mark.parametrize("budget", [0, 900 * 10**6])
def test_predicted_memory_is_within_a_quarter_of_the_peak(budget, tmp_path):
    (tmp_path / "script.py").write_text(HUNGRY + SCRIPT)

    def said(what):
        words = [sys.executable, str(tmp_path / "script.py"), what, str(budget), str(tmp_path / "run")]
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
        return int(done.stdout.split()[-1])

    predicted, peak = said("plan"), said("run")
    assert peak * 0.75 < predicted < peak * 1.25, (predicted, peak)
