"""The model of memory: what it counts, which chunks follow, and that a process keeps to its budget."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import robustode
from robustode.attacks.cards import resolve
from robustode.errors import OptionError
from robustode.evaluation.engines.options import Engine
from robustode.evaluation.footprint import AGAIN, PROCESS, Footprint, footprint, rows_in, stored_bytes
from robustode.evaluation.peak import peak_bytes
from robustode.evaluation.rundir import read_run
from robustode.models import wrap
from robustode.models.snode import SNODE
from tests.evaluation.hungry import HUNGRY
from tests.evaluation.problem import affine, plan_of
from tests.evaluation.runs import BUDGETS, run

SIZE = Footprint(fixed=1000, held=10, stored=5, rows_each=4, most=8, capped=30)


def test_bytes_and_samples_are_inverse():
    """1 sample: 1000 + 10 + 4·5; from 2 on the stored rows are capped at 30 bytes."""
    assert [SIZE.bytes(n) for n in (0, 1, 2, 3)] == [1000, 1030, 1050, 1060]
    assert replace(SIZE, capped=None).bytes(3) == 1000 + 30 + 8 * 5
    assert replace(SIZE, capped=None, most=None).bytes(3) == 1000 + 30 + 12 * 5
    for budget in range(990, 1200):
        fits = SIZE.samples(budget, 12)
        assert fits == max([n for n in range(1, 13) if SIZE.bytes(n) <= budget], default=0)


def test_what_a_sweep_stores_is_its_tape():
    """σ' of every stage and step, and the start: 64 features in float64, (2·7 + 1)·64·8 bytes."""
    model = SNODE(seed=0, input_shape=(64,), classes=3, bounds=(0.0, 1.0), steps=7, knots=7, method="midpoint").double()
    assert stored_bytes(model, torch.rand(1, 64).double()) == ((2 * 7 + 1) * 64 * 8, True)


def test_what_autograd_keeps_is_measured_without_the_weights():
    """tanh keeps its output, and the second layer that same tensor: 40 numbers of 4 bytes a row."""
    module = nn.Sequential(nn.Linear(12, 40), nn.Tanh(), nn.Linear(40, 3)).requires_grad_(False)
    model = wrap(module, bounds=(0.0, 1.0), classes=3, input_shape=(12,))
    assert stored_bytes(model, torch.rand(1, 12)) == (AGAIN * 40 * 4, False)


@pytest.mark.parametrize(
    ("backend", "method"), [("torchode", "heun"), ("torchode", "dopri5"), ("torchdiffeq", "bosh3")]
)
def test_what_an_adaptive_solve_keeps_is_measured_though_it_fills_its_batches(backend, method):
    """At least one state of 64 features for every evaluation; 16 like samples take the steps of one."""
    model = SNODE(seed=0, input_shape=(64,), classes=3, bounds=(0.0, 1.0), steps=7, knots=7).double()
    model = model.with_solver(method=method, backend=backend, rtol=1e-4, atol=1e-4)
    kept, fused = stored_bytes(model, torch.rand(1, 64).double())
    evaluations = int(model.last_nfe[0])
    assert not fused
    assert AGAIN * evaluations * 64 * 8 < kept < 20 * AGAIN * evaluations * 64 * 8


def test_a_footprint_has_all_of_it():
    model, data = affine()
    (own,), (other,) = resolve("sensitivity-l2"), resolve("fgm-l2")
    first, second = (footprint(model, card, data.x, more=77) for card in (own, other))
    assert first.fixed == second.fixed == PROCESS + 2 * 39 * 4 + 77
    assert first.held > second.held > 12 * 4
    assert (first.rows_each, second.rows_each) == (4, 1)


def test_a_budget_too_small_for_one_sample_says_what_it_needs():
    with pytest.raises(OptionError) as caught:
        rows_in(10**6, "a on m", replace(SIZE, fixed=2 * 10**6), 5)
    assert str(caught.value) == (
        "memory: expected at least 3 MB, for one sample of a on m, got 1 MB. Give at least --memory 3MB."
    )
    assert rows_in(3 * 10**6, "a on m", replace(SIZE, fixed=2 * 10**6), 5) == 5


def test_a_run_keeps_to_chunks_that_follow_from_its_budget(plan, tmp_path):
    with pytest.raises(OptionError, match="memory: expected at least 741 MB, for one sample of noise on Affine, got 1"):
        run(plan, tmp_path / "small", engine=Engine(memory=10**8))
    whole = run(plan, tmp_path / "whole", engine=Engine(memory=10**10))
    assert whole.meta["engine"]["chunks"] == {"Affine": dict.fromkeys([card.name for card in plan.attacks.cards])}
    assert whole.meta["engine"]["memory"] == 10**10
    assert 10**8 < whole.meta["engine"]["peak_bytes"] <= peak_bytes()
    model, data = affine()
    one = plan_of(model, data, attacks="sensitivity-l2", budgets={"l2": BUDGETS["l2"]})
    size = footprint(model, one.attacks.cards[0], data.x, 2 * 30 * 12 * 4)
    tight = run(one, tmp_path / "tight", engine=Engine(memory=size.bytes(7)))
    assert tight.meta["engine"]["chunks"] == {"Affine": {"sensitivity-l2": 7}}
    run(one, tmp_path / "loose")
    first, second = (read_run(tmp_path / name).records for name in ("tight", "loose"))
    columns = ["sample", "status", "distance", "adv_pred"]
    pd.testing.assert_frame_equal(first[columns], second[columns], rtol=1e-4, check_exact=False)


BUDGET = 800 * 10**6
SCRIPT = """
model, data = hungry(400)
run = ro.evaluate(model, data, attacks="fgm-l2", eps={"l2": [0.5]}, audit="none", memory=int(sys.argv[1]) or None,
                  allow_low_accuracy=True)
print(run.meta["engine"]["peak_bytes"])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak as Linux gives it")
def test_a_process_keeps_to_its_budget(tmp_path):
    (tmp_path / "script.py").write_text(HUNGRY + SCRIPT)
    peaks = []
    for budget in (0, BUDGET):
        words = [sys.executable, str(tmp_path / "script.py"), str(budget)]
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[0] > BUDGET > peaks[1], peaks


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere no process inherits a peak")
def test_the_peak_is_that_of_the_process_and_not_of_its_parent():
    """Linux hands the peak of what a process was before `exec`, its parent's, on in getrusage."""
    held = torch.ones(600 * 10**6 // 4)
    code = "import sys; sys.path.insert(0, sys.argv[1]); from robustode.evaluation.peak import peak_bytes; "
    code += "print(peak_bytes())"
    root = str(Path(robustode.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code, root], capture_output=True, text=True, check=True, timeout=120)
    assert held.numel() * 4 > int(done.stdout) > 10**7
