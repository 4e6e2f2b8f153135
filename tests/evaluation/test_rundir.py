"""Reading a run directory: round trip, and one clear error for each way it can be wrong."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from robustode.errors import RunError
from robustode.evaluation.rundir import hash_files, read_run
from robustode.files import file_digest, write_json
from tests import runs


@pytest.fixture
def run(tmp_path):
    return runs.write_run(tmp_path / "run", *runs.synthetic({"a": 0.2}, n=30))


def edit(run, **changes):
    """Change top-level keys of run.json."""
    path = run.path / "run.json"
    write_json({**json.loads(path.read_text()), **changes}, path)


def test_round_trip(run):
    frame, meta = runs.synthetic({"a": 0.2}, n=30)
    assert {**run.meta, "files": {}} == {**meta, "files": {}}
    assert sorted(run.meta["files"]) == ["records.parquet", "timings.parquet"]
    pd.testing.assert_frame_equal(run.records, frame.sort_values(run_order(), ignore_index=True))
    assert run.timings["seconds"].sum() == pytest.approx(0.002 * (frame["status"] != "misclassified").sum())


def run_order():
    return ["model", "attack", "norm", "eps", "sample"]


def test_timings_may_be_absent(tmp_path):
    run = runs.write_run(tmp_path, *runs.synthetic({"a": 0.2}, n=30), timed=False)
    assert run.timings is None


def test_missing_directory(tmp_path):
    with pytest.raises(RunError, match=r"no run directory '.*nowhere'"):
        read_run(tmp_path / "nowhere")


def test_not_a_run_directory(tmp_path):
    with pytest.raises(RunError, match=r"is not a run directory: expected a file run.json in it, got none"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("schema", "fix"), [(0, "Run the evaluation again"), (2, "Update robustode"), ("none", "again")]
)
def test_other_schema(run, schema, fix):
    edit(run, schema=None if schema == "none" else schema)
    with pytest.raises(RunError, match=f"expected 1, got {schema}. .*{fix}"):
        read_run(run.path)


def test_broken_json(run):
    (run.path / "run.json").write_text('{"schema": 1')
    with pytest.raises(RunError, match="expected a JSON document"):
        read_run(run.path)
    (run.path / "run.json").write_text("[1]")
    with pytest.raises(RunError, match="expected 1, got none"):
        read_run(run.path)


def test_unfinished_says_resume(run):
    edit(run, status="running")
    with pytest.raises(
        RunError, match=r"is not finished: .* got 'running'\. Finish it with the same command and --resume"
    ):
        read_run(run.path)


def test_partial_is_finished(run):
    edit(run, status="partial")
    assert read_run(run.path).meta["status"] == "partial"


def test_changed_by_hand(run):
    records = run.path / "records.parquet"
    records.write_bytes(records.read_bytes() + b"\0")
    (run.path / "timings.parquet").unlink()
    message = r"was changed by hand: records.parquet has other bytes; timings.parquet is missing"
    with pytest.raises(RunError, match=message):
        read_run(run.path)


def test_hashes(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "shards").mkdir()
    for name in ("run.json", "tables/b.csv", "a.bin", "shards/0.parquet"):
        (tmp_path / name).write_bytes(b"abc")
    assert list(hash_files(tmp_path)) == ["a.bin", "tables/b.csv"]
    assert file_digest(tmp_path / "a.bin") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = write_json({"ε": [1, None]}, tmp_path / "deep" / "x.json")
    assert path.read_text(encoding="utf-8") == '{\n  "ε": [\n    1,\n    null\n  ]\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json({"a": float("nan")}, path)
    assert json.loads(path.read_text(encoding="utf-8")) == {"ε": [1, None]}
    assert [file.name for file in path.parent.iterdir()] == ["x.json"]
