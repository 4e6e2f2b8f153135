"""A small study on digits: resume, parts, refusals, and what its definition does not accept."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from robustode.data import load_data
from robustode.errors import DataError, OptionError, ProtocolError, RobustODEError, RunError
from robustode.evaluation import study_runner, study_unit
from robustode.evaluation.study import read_study
from robustode.evaluation.study_runner import open_study_run, run_study
from robustode.evaluation.study_unit import matched, units_of
from robustode.training import fit
from tests import studies
from tests.cli.command import robustode, works

TIMES = ["seconds"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return read_study(str(studies.write(tmp_path_factory.mktemp("study"), seeds=2)))


@pytest.fixture(scope="module")
def whole(study, tmp_path_factory) -> Path:
    """The folder of the study, run in one go."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    run_study(study, out)
    return out


@pytest.fixture
def no_training(monkeypatch):
    def fail(*arguments, **options):
        raise AssertionError("a unit was computed again")

    monkeypatch.setattr(study_runner, "run_unit", fail)


def same(one: study_runner.StudyRun, two: study_runner.StudyRun) -> None:
    """Equal numbers, apart from seconds."""
    pd.testing.assert_frame_equal(one.units.drop(columns=TIMES), two.units.drop(columns=TIMES))
    pd.testing.assert_frame_equal(one.distances, two.distances)


def test_ctrl_c_in_the_middle_of_a_training_leaves_no_unit(study, tmp_path, monkeypatch):
    def interrupted(model, *arguments, **options):
        return replace(fit(model, *arguments, **options), interrupted=True)  # as `fit` says after Ctrl-C

    monkeypatch.setattr(study_unit, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, tmp_path / "s")
    assert not list(tmp_path.rglob("unit.json"))


def test_an_attack_that_raises_is_no_robustness(study, tmp_path, monkeypatch):
    def failing(self, *arguments, **options):
        raise RuntimeError("boom")

    monkeypatch.setattr("robustode.attacks.sensitivity.SensitivityAttack.__call__", failing)
    with pytest.raises(RunError, match=r"attack 'sensitivity-l2' of a study: expected an answer .*RuntimeError: boom"):
        run_study(study, tmp_path / "s")
    assert not list(tmp_path.rglob("unit.json"))


def test_data_without_a_test_split_are_refused_before_anything_is_written(study, tmp_path, monkeypatch):
    def joined(name, **options):
        return replace(load_data(name, **options), split="all")

    monkeypatch.setattr(study_unit, "load_data", joined)
    with pytest.raises(DataError, match=r"expected separate training and test splits, got one set"):
        run_study(study, tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('attacks = ["sensitivity-l2"]', 'attacks = ["sensitivity-l22"]', "sensitivity-l22"),
        ("samples = 10", "samples = 1000", "at most 360"),
        ("steps = 4", "steps = 4\nknots = 2", "layered"),
    ],
)
def test_what_would_fail_after_a_training_fails_before(tmp_path, old, new, message):
    path = studies.write(tmp_path)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(RobustODEError, match=message):
        run_study(read_study(str(path)), tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('outcome = "median minimal L2 distance"', 'outcome = "accuracy"', "primary.outcome"),
        ("[[settings]]", "[settings]", r", line \d+: settings: expected tables, each under \[\[settings\]\]"),
        (
            "[[settings]]",
            '[[extra]]\nname = "adam-l2-ce-spline"\noptimiser = "adam"\noperator = "l2"\ncost = "ce"\n'
            'initialisation = "spline"\n\n[[settings]]',
            "arms: expected different names, got 'adam-l2-ce-spline' 2 times",
        ),
        (
            "[[settings]]",
            '[[extra]]\nname = "more"\noptimiser = "adam"\noperator = "l2"\ncost = "ce"\ninitialisation = "spline"\n'
            "higher = true\n\n[[settings]]",
            "expected a higher_target in every table",
        ),
    ],
)
def test_a_definition_that_does_not_fit(tmp_path, old, new, message):
    path = studies.write(tmp_path)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ProtocolError, match=message):
        read_study(str(path))


@pytest.mark.parametrize(("name", "text"), [("unit.json", "{"), ("unit.json", "{}"), ("records.parquet", "half")])
def test_a_damaged_folder_says_which_file(whole, tmp_path, name, text):
    shutil.copytree(whole, tmp_path / "s")
    next((tmp_path / "s").rglob(name)).write_text(text)
    with pytest.raises(RunError, match=rf"{name}' of a study: expected what the study wrote, .*Delete its folder"):
        open_study_run(tmp_path / "s")


def test_a_study_of_which_nothing_is_finished_may_be_corrected(study, whole, tmp_path):
    (tmp_path / "s").mkdir()
    shutil.copy(whole / "study.json", tmp_path / "s")
    changed = study.model_copy(update={"checks": 2})
    study_runner._open(changed, tmp_path / "s", resume=False)
    assert open_study_run(tmp_path / "s").study.checks == 2


def test_units_hold_what_was_asked(study, whole):
    run = open_study_run(whole)
    assert run.units["arm"].tolist() == ["adam-l2-ce-spline", "adam-l2-ce-independent"] * 2
    assert run.units["seed"].tolist() == [0, 0, 1, 1]
    assert {"noise.0.1", "noise.0.4", "steps.8.accuracy"} <= set(run.units.columns)
    assert len(run.distances) == 4 * study.evaluation.samples
    samples = run.distances.groupby(["arm", "seed"])["sample"].apply(tuple)
    assert samples.nunique() == 1  # all units share the attacked test images
    assert ((run.distances["distance"] > 0) == run.distances["clean"]).all()
    assert run.units["smoothness"].nunique() == 4  # seeds and initialisations do differ


def test_a_second_call_computes_nothing(study, whole, no_training):
    run = run_study(study, whole, resume=True)
    assert len(run.units) == 4
    with pytest.raises(RunError, match="expected a new folder, got an existing study"):
        run_study(study, whole)


def test_a_kill_between_units_keeps_the_finished_ones(study, whole, tmp_path, monkeypatch):
    out = tmp_path / "killed"

    def stop(name: str, done: int, total: int) -> None:
        assert total == 4
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(study, out, listen=stop)
    assert open_study_run(out).units["arm"].tolist() == ["adam-l2-ce-spline"]
    kept = out / "units" / units_of(study)[0].name / "unit.json"
    before, computed = kept.read_bytes(), []
    real = study_runner.run_unit
    monkeypatch.setattr(study_runner, "run_unit", lambda *a, **k: (computed.append(a[1].name), real(*a, **k))[1])
    run = run_study(study, out, resume=True)
    assert computed == [unit.name for unit in units_of(study)[1:]]
    assert kept.read_bytes() == before
    same(run, open_study_run(whole))


def test_parts_give_the_numbers_of_the_whole(study, whole, tmp_path):
    out = tmp_path / "parts"
    first = run_study(study, out, shard=(0, 2))
    assert first.units["arm"].unique().tolist() == ["adam-l2-ce-spline"]
    same(run_study(study, out, shard=(1, 2), resume=True), open_study_run(whole))


def test_one_seed(study, whole, tmp_path):
    run = run_study(study, tmp_path / "seed", seed=1)
    assert run.units["seed"].tolist() == [1, 1]
    complete = open_study_run(whole).units
    expected = complete[complete["seed"] == 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(run.units.drop(columns=TIMES), expected.drop(columns=TIMES))
    with pytest.raises(OptionError, match="expected a seed of the study, 0 to 1, got 2"):
        run_study(study, tmp_path / "none", seed=2)
    assert not (tmp_path / "none").exists()


def test_a_changed_study_refuses(study, whole, no_training):
    changed = study.model_copy(update={"checks": 2})
    with pytest.raises(RunError, match=f"expected study {changed.hash}, got study {study.hash}"):
        run_study(changed, whole, resume=True)
    retitled = study.model_copy(update={"title": "another"})  # the title is not part of what was run
    assert len(run_study(retitled, whole, resume=True).units) == 4


def test_another_folder_refuses(study, tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(RunError, match="got other files in it"):
        run_study(study, tmp_path)
    with pytest.raises(RunError, match=r"expected study\.json, got none"):
        open_study_run(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["adam"]', '["adm"]', "unknown level of optimiser.*Did you mean 'adam'"),
        ('cost = ["ce"]', 'costs = ["ce"]', "factors: expected optimiser, operator, cost, initialisation, got"),
        ("checks = 1", "check = 1", "line 4: unknown key of protocol.*Did you mean 'checks'"),
        ("epochs = 1", "epoch = 1", "settings: .*'epoch'.*Did you mean 'epochs'"),
        ('arm = "adam-l2-ce-spline"', 'arm = "adam-l2-ce-splin"', "unknown arm of the primary.*'adam-l2-ce-spline'"),
        ('data = "digits"', 'data = "digit"', "primary.data: expected one of the study's data, got 'digit'"),
        ("samples = 10\n", "sample = 10\n", "unknown key of evaluation.*Did you mean 'samples'"),
        ("train = 60", "trian = 60", "unknown key of data.*Did you mean 'train'"),
        ("horizon = 1.0", "horizons = 1.0", "unknown key of network.*Did you mean 'horizon'"),
        ('optimiser = "adam"\n', 'optimiser = "adan"\n', "unknown level of optimiser in settings.*Did you mean 'adam'"),
        ("horizon = 1.0", "horizon = -1.0", "horizon: expected a number > 0, got -1"),
        ('kind = "study"', 'kind = "studies"', "kind: expected 'study', got 'studies'"),
    ],
)
def test_what_a_definition_does_not_accept(tmp_path, old, new, message):
    path = studies.write(tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ProtocolError, match=f"(?s){message}") as error:
        read_study(str(path))
    assert "Traceback" not in str(error.value)


def test_matched_is_decimal():
    """0.923 − 0.92 is above 0.003 in floating point."""
    assert matched(0.923, 0.92)
    assert matched(0.917, 0.92)
    assert not matched(0.9235, 0.92)
    assert not matched(None, 0.92)


def test_the_command(study, whole, tmp_path, monkeypatch, no_training):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole, "runs/small")
    studies.write(tmp_path, seeds=2)
    done = works("run small.toml --out runs/small --resume --seed 0")
    assert "Primary outcome: median minimal L2 distance" in done.out
    assert f"4 of 4 units of study {study.hash}" in done.out
    assert Path("runs/small/tables/primary.tex").is_file()
    assert Path("runs/small/figures/distance_by_arm.png").is_file()
    shutil.rmtree("runs/small/units/digits/adam-l2-ce-spline-1")
    document = works("report runs/small --out part --json").json
    assert (document["units"], document["of"]) == (3, 4)
    assert [row["seed"] for row in document["primary"]] == ["0", "mean"]
    assert "3 of 4 units are finished" in Path("part/tables/primary.md").read_text(encoding="utf-8")
    refused = robustode("run small.toml --out new --seed 5")
    assert (refused.code, refused.out) == (2, "")
    assert "expected a seed of the study, 0 to 1, got 5" in refused.err


def test_it_is_listed():
    assert "paper" in works("list evaluations").out
