"""The tables of the benchmark of minimal-norm attacks, from runs whose every number is known."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.harness.compare import attack_table, lost_samples, markdown, read_runs, summary_rows
from benchmarks.harness.configs import Plan, read_plan
from benchmarks.harness.pareto import pareto_table
from benchmarks.harness.store import Place

INF = float("inf")


def made(peer, distances, *, passes=100.0, ours=False, default=True, cpu=1.0, samples=(3, 5, 8, 9), adv_pred=2):
    """A stored run: distance of each sample, the same passes for all, half of them backwards."""
    frame = pd.DataFrame({"sample": list(samples), "distance": list(distances)})
    fields = {
        "peer": peer, "ours": ours, "default": default, "params": json.dumps({"peer": peer}), "cpu": cpu, "wall": cpu,
        "forwards": passes / 2, "backwards": passes / 2, "label": 1, "adv_pred": adv_pred, "kkt": 0.01,
        "converged": False, "adv_margin": -0.1, "clean_margin": 1.0,
    }  # fmt: skip
    return frame.assign(**fields).set_index("sample")


@pytest.fixture
def runs():
    return {
        "fast": made("fast", [1.0, 2.0, INF, INF], passes=50, ours=True, cpu=0.5),
        "thorough": made("thorough", [1.0, 1.0, 3.0, INF], passes=200, ours=True),
        "ddn": made("ddn", [2.0, 1.0, 1.5, INF], passes=200, cpu=5.0, adv_pred=7),
        "ddn steps=9": made("ddn", [1.0, 0.995, 6.0, INF], passes=300, default=False),
        "slow": made("slow", [0.5, 4.0], samples=(3, 5), passes=20),
    }


def test_ratios_are_to_the_best_of_all_peers_sample_by_sample(runs):
    table = attack_table(runs).set_index(["attack", "kind"])
    # best of all peers: 0.5 (from a run on two samples only), 0.995, 1.5, none
    fast = table.loc[("fast", "ours")]
    assert fast["ratio max"] == INF
    assert fast["failed"] == 2
    thorough = table.loc[("thorough", "ours")]
    assert thorough["ratio median"] == pytest.approx((1 / 0.995 + 2.0) / 2)  # 2, 1.005, 2, and 1 where both failed
    assert thorough["ratio max"] == 2.0
    assert table.loc[("ddn", "best of grid"), "ratio max"] == 4.0
    assert table.loc[("slow", "default, best of grid"), "n"] == 2
    assert list(table["passes"]) == [50, 200, 200, 300, 20]


def test_wins_and_times_against_ours(runs):
    table = attack_table(runs).set_index("parameters")
    ddn = table[table["kind"] == "default"].iloc[0]
    assert (ddn["beats fast"], ddn["beats thorough"]) == (2, 1)  # samples 5 and 8; sample 8
    assert ddn["time / fast"] == 10.0
    chosen = table[table["kind"] == "best of grid"].iloc[0]
    assert (chosen["beats fast"], chosen["beats thorough"]) == (2, 0)  # half a per cent is no win
    slow = table[table["attack"] == "slow"].iloc[0]
    assert slow["beats fast"] == 1
    assert slow["time / fast"] == pytest.approx((1.0 / 2) / (0.5 / 4))  # each sample, as it has two of four


def test_lost_samples_are_listed_worst_first_with_the_peer_that_won(runs):
    lost = lost_samples("m", "l2", runs)
    assert list(lost["sample"]) == [3, 8]
    assert list(lost["peer"]) == ["slow", "ddn"]
    row = lost.set_index("sample").loc[8]
    assert (row["distance"], row["peer distance"], row["class"], row["peer class"]) == (3.0, 1.5, 2, 7)
    assert row["peers ahead"] == 1


def test_summary_counts_samples_that_peers_win(runs):
    rows = pd.DataFrame(summary_rows("m", "l2", runs)).set_index("attack")
    assert rows.loc["fast", "peers nearer by > 1 %"] == 3
    assert rows.loc["thorough", "peers nearer by > 1 %"] == 2
    assert sum(name.startswith("best single peer: ddn") for name in rows.index) == 1


def test_pareto_marks_what_another_attack_beats_at_fewer_passes():
    runs = {
        "fast": made("fast", [1.1] * 4, passes=50, ours=True),
        "near": made("near", [1.0] * 4, passes=40),
        "far": made("far", [1.2] * 4, passes=60),
        "lost": made("lost", [1.0, 1.0, 1.0, INF], passes=45),
    }
    table = pareto_table(runs).set_index("attack")
    assert list(table.index) == ["near", "lost", "fast", "far"]
    assert list(table["dominated"]) == [False, True, True, True]
    assert list(table["ahead of ours"]) == [True, True, False, False]
    assert table.loc["far", "mean excess"] == pytest.approx(0.2)
    assert table.loc["lost", "mean excess"] == INF
    assert table.loc["lost", "failed"] == 1


def test_markdown_leaves_unknown_cells_empty():
    text = markdown(pd.DataFrame({"a": [1.23456, np.nan], "b": ["x|y", None]}))
    assert text.splitlines() == ["| a | b |", "| --- | --- |", "| 1.235 | x\\|y |", "|  |  |"]


@pytest.mark.parametrize("name", ["minimal_norm", "minimal_norm_costly", "robust_accuracy"])
def test_every_configuration_of_the_shipped_files_can_be_built(name):
    pytest.importorskip("torchattacks")
    plan = read_plan(Path(__file__).parents[2] / "benchmarks" / f"{name}.toml")
    for norm in ("l2", "linf"):
        names = [config.name for config in plan.of_norm(norm)]
        assert len(set(names)) == len(names) > 6
        assert {"fast", "thorough"} <= set(names[:3])
    for config in plan.configs:
        if "BrendelBethge" not in config.card.implementation:  # needs numba
            config.card.check()


def test_unknown_keys_are_refused(tmp_path):
    (tmp_path / "x.toml").write_text('[[peer]]\nname = "a"\nnorms = ["l2"]\nstep = 1\n')
    with pytest.raises(ValueError, match=r"attack a: unknown key step"):
        read_plan(tmp_path / "x.toml")


def test_runs_of_other_lists_of_peers_stay_in_the_tables_and_other_images_do_not(tmp_path):
    place = Place(out=tmp_path, model="m", norm="l2", part="report")
    place.folder.mkdir(parents=True)
    frames = {
        "elsewhere": made("elsewhere", [1.0] * 4),
        "fast": made("fast", [1.0] * 4, ours=True),
        "old": made("old", [1.0] * 2, samples=(3, 99)),
    }
    for name, frame in frames.items():
        frame.assign(attack=name, model_hash="h").reset_index().to_parquet(place.file(name, ".parquet"))
    assert list(read_runs(place, Plan(configs=(), passes=1.0))) == ["fast", "elsewhere"]
