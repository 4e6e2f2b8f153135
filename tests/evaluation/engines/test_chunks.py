"""Attacks on fewer samples at a time: asked for, or because memory runs out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from robustode.attacks.cards import resolve
from robustode.data import load_data
from robustode.evaluation.chunks import out_of_memory
from robustode.evaluation.counting import Counted
from robustode.evaluation.engine import run_unit
from robustode.evaluation.engines.failed import UnitsFailed
from robustode.evaluation.judge import Judge
from robustode.evaluation.parts import parts_of
from robustode.evaluation.records import validate
from robustode.evaluation.rows import Subject
from robustode.models import load_model
from tests.evaluation.problem import affine, forms, plan_of, subject_and_shard
from tests.evaluation.runs import BUDGETS, CARD, contents, run

GREEDY = """
from pathlib import Path
from forms import noise

def memory(model, x, y, *, norm, eps, generator, most: int = 4, kind: str = "python"):
    own = noise(model, x, y, norm=norm, eps=eps, generator=generator)  # draws before memory runs out
    room = Path(__file__).with_name("room")
    if len(x) > (int(room.read_text()) if room.exists() else most):
        raise MemoryError if kind == "python" else RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
            "allocate 80000000000000 bytes. Error code 12 (Cannot allocate memory)"
        )
    return own
"""


@pytest.fixture
def greedy(tmp_path, monkeypatch):
    """Makes cards of an attack that takes more memory than there is for more than `most` samples."""
    folder = forms(tmp_path / "greedy")
    (folder / "greedy.py").write_text(GREEDY)
    monkeypatch.syspath_prepend(str(folder))

    def make(**params):
        (card,) = resolve("python:greedy.py:memory", norms=["linf"], params=params, base=folder)
        return card.model_copy(update={"kind": "budget"})

    return make


def unit(card, **options):
    model, data = affine(30)
    subject, shard = subject_and_shard(model, data)
    made = run_unit(subject, card, shard, radii=(0.1, 0.2), data="toy", seed=0, protocol="p", **options)
    return made, validate(made.records)


@pytest.mark.parametrize("kind", ["python", "torch"])
def test_where_memory_runs_out_the_unit_is_as_if_fewer_had_been_asked_for(greedy, kind):
    """28 samples are attacked: 14, 7 and then 3 at once."""
    halved, frame = unit(greedy(most=4, kind=kind))
    asked, other = unit(greedy(most=4, kind=kind), rows=3)
    assert (halved.halved, asked.halved) == (3, None)
    pd.testing.assert_frame_equal(frame, other)
    assert torch.equal(halved.x_adv, asked.x_adv)
    assert {"success", "failed"} <= set(frame["status"])
    enough, whole = unit(greedy(most=28, kind=kind))
    assert enough.halved is None
    assert not whole["adv_margin"].equals(frame["adv_margin"])  # draws of a batch are the batch's


def test_memory_that_does_not_suffice_for_one_sample(greedy):
    with pytest.raises(MemoryError):
        unit(greedy(most=0))


def test_torch_s_own_exception_is_seen():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert out_of_memory(caught.value)
    assert out_of_memory(MemoryError())
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("out of memory"))


@pytest.fixture(scope="module")
def digits():
    """The bundled sNODE in float64, and ten digits as one shard."""
    model, data = load_model("zoo:snode-digits").double(), load_data("digits", limit=10)
    x, judge = data.x.double(), Judge(model)
    pred, margin = judge.answer(x, data.y)
    (shard,) = parts_of(x, data.y, data.index, pred, margin, 10)
    return Subject(label="m", hash="h", counted=Counted(model), judge=judge), shard


@pytest.mark.parametrize("name", ["sensitivity-l2", "one-step-random-linf", "ddn-l2"])
def test_chunks_in_float64_find_the_same(digits, name):
    """Of attacks without draws, and of our own, whose draws are each sample's."""
    (card,), (subject, shard) = resolve(name), digits
    common = {"radii": (0.3,), "data": "digits", "seed": 0, "protocol": "p"}
    first = validate(run_unit(subject, card, shard, **common).records)
    second = validate(run_unit(subject, card, shard, rows=4, **common).records)
    assert (first["status"] == second["status"]).all()
    assert (second["sample"] == first["sample"]).all()
    for name in ("distance", "adv_margin", "forwards", "backwards"):
        np.testing.assert_allclose(second[name].to_numpy(float), first[name].to_numpy(float), rtol=1e-5, atol=1e-9)
    assert (first["status"] == "success").sum() > 2


def test_a_run_tells_of_it_once_and_goes_on(greedy, tmp_path):
    folder = tmp_path / "greedy"
    (folder / "memory.toml").write_text(
        CARD.format(name="memory", norm="linf", kind="budget").replace("forms", "greedy")
    )
    model, data = affine()
    values = {"attacks": str(folder / "memory.toml"), "also": ["fgm-l2"], "budgets": BUDGETS, "shard": 16}
    events = []
    made = run(plan_of(model, data, **values), tmp_path / "a", listen=events.append)
    told = [event for event in events if event.kind == "memory"]
    assert [event.text for event in told] == [
        "Affine · memory · shard 0: memory did not suffice for all samples at once; such units are computed on fewer "
        "at a time, this one on 3"
    ]
    assert made.meta["engine"]["halved"] == {"Affine · memory · shard 0": 3, "Affine · memory · shard 1": 3}
    assert made.meta["status"] == "complete"


def test_a_unit_that_never_has_enough_memory_is_left_for_a_resume(greedy, tmp_path):
    folder = tmp_path / "greedy"
    text = CARD.format(name="memory", norm="linf", kind="budget").replace("forms", "greedy")
    (folder / "memory.toml").write_text(text)
    model, data = affine()
    values = {"attacks": str(folder / "memory.toml"), "also": ["fgm-l2"], "budgets": BUDGETS, "shard": 16}
    run(plan_of(model, data, **values), tmp_path / "whole")
    (folder / "room").write_text("0")
    with pytest.raises(UnitsFailed) as caught:
        run(plan_of(model, data, **values), tmp_path / "a")
    assert str(caught.value) == (
        f"2 of 4 units of run '{tmp_path / 'a'}' failed: got Affine · memory · shard 0: MemoryError; "
        "Affine · memory · shard 1: MemoryError. The others are kept: go on with the same command and --resume."
    )
    assert len(list((tmp_path / "a" / "shards").rglob("fgm-l2-0000?.parquet"))) == 2
    (folder / "room").unlink()
    run(plan_of(model, data, **values), tmp_path / "a", resume=True)
    assert contents(tmp_path / "a") == contents(tmp_path / "whole")
