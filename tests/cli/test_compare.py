"""`robustode run compare`: two checkpoints of the user's, and what is paired between them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pandas as pd

import robustode as ro
from robustode.evaluation.protocol import Protocol, build_protocol, read_protocol
from robustode.evaluation.rundir import read_run
from robustode.evaluation.worst_case import worst_case
from tests.cli.command import works
from tests.evaluation.problem import affine

README = (Path(__file__).parents[2] / "evaluations" / "README.md").read_text()
OUT = Path("runs/compare-s+l")


def test_two_checkpoints_side_by_side(folder):
    done = works("run compare --model s.safetensors --model l.safetensors --limit 20 --audit none")
    said = " ".join(done.out.split())
    assert "Differences of robust accuracy, L∞" in said
    assert "Differences of the median smallest distance, L2" in said
    assert "s − l" in said
    run = read_run(OUT)
    assert [model["label"] for model in run.meta["models"]] == ["s", "l"]
    frame = pd.read_csv(OUT / "tables/paired_accuracy_linf.csv")
    one, two = (worst_case(run.records, model, "linf") for model in run.meta["models"])
    for row in frame.itertuples():
        if row.eps > 0:
            assert row.estimate * 20 == (one.robust(row.eps).sum() - two.robust(row.eps).sum())
    for name in ("paired_accuracy_l2", "paired_distance_linf", "paired_distance_l2"):
        assert all((OUT / f"tables/{name}.{kind}").is_file() for kind in ("csv", "md", "tex"))
        assert (OUT / "report.html").read_text().count(f'class="{name}"') == 1
    assert "your own" in " ".join(works("list evaluations").out.lower().split())


def test_the_example_of_the_readme_is_a_protocol():
    values = tomllib.loads(README.split("```toml\n")[1].split("```")[0])
    protocol = build_protocol(values)
    assert protocol.outputs == ("tables", "report")
    assert len(protocol.models) == 2
    for key in set(Protocol.model_fields) - {"base"}:
        assert key in values or f"`{key}`" in README
    for name in ("quickstart", "compare", "mnist14", "paper-28"):
        assert read_protocol(name).title
        assert f"| `{name}` |" in README


def test_only_what_is_asked_for_is_written(tmp_path):
    model, data = affine()
    options = {"attacks": "fgm-l2", "eps": {"l2": [0.1]}, "audit": "none"}
    run = ro.evaluate([model, model], data, **options, outputs=["report"], out=tmp_path / "a")
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "run.json",
        "records.parquet",
        "timings.parquet",
        "shards",
        "report.html",
    }
    assert (run.audit, run.meta["protocol"]["outputs"]) == (None, ["report"])
    ro.evaluate(model, data, **options, outputs=["figures", "tables"], out=tmp_path / "b")
    assert {path.name for path in (tmp_path / "b").iterdir() if path.is_dir()} == {"shards", "tables", "figures"}
    assert not (tmp_path / "b" / "report.html").exists()
