"""Written data sets: round trips, resuming, nothing half written, damage named."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robustode.data import DatasetWriter, export, load_data
from robustode.data.formats import FORMATS, Layout
from robustode.errors import DataError, RunError

N = 25
GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(N, 1, 2, 3, generator=GENERATOR).mul(255).round().div(255)  # 8-bit levels, which png keeps
Y = torch.arange(N) % 4
INDEX = torch.arange(N) * 7
STATUS = ["success" if i % 5 else "failed" for i in range(N)]
SETTINGS = {
    "bounds": (0, 1),
    "classes": 4,
    "input_shape": (1, 2, 3),
    "meta": {"attack": "pgd", "split": "test"},
    "shards": 3,
}


def write(writer, k, size=10):
    rows = slice(k * size, (k + 1) * size)
    writer.write(
        k,
        x=X[rows],
        y=Y[rows],
        index=INDEX[rows],
        status=STATUS[rows],
        distance=torch.where(Y[rows] == 0, float("inf"), 0.5).double(),
    )


@pytest.fixture(params=list(FORMATS))
def form(request):
    return request.param


def make(directory, form="npz", **options):
    with DatasetWriter(directory, format=form, **SETTINGS, **options) as writer:
        for k in range(3):
            write(writer, k)


def files(directory):
    """Every file below a directory, the images of the format png apart."""
    found = (file.relative_to(directory).as_posix() for file in directory.rglob("*") if file.is_file())
    return sorted(name for name in found if not name.endswith(".png"))


def shard_name(form, k, shards=3):
    """Where the tests' shard lies."""
    layout = Layout(input_shape=(), bounds=None, classes=None, split="test", codes={}, constants={}, shards=shards)
    return FORMATS[form].file(k, layout)


def finished(form, shards=3):
    """The files of a finished set."""
    names = [shard_name(form, k) for k in range(shards)]
    return sorted([*names, *FORMATS[form].whole, "dataset.json", "README.md", "SHA256SUMS"])


def test_round_trip(tmp_path, form):
    place = tmp_path / "new" / "set"
    make(place, form)
    assert files(place) == finished(form)
    data = load_data(str(place))
    assert torch.equal(data.x, X)
    assert torch.equal(data.y, Y)
    assert torch.equal(data.index, INDEX)
    assert (data.bounds, data.classes, data.split, data.name) == ((0.0, 1.0), 4, "test", str(place))
    assert data.caption == f"all 25 test samples of {place} (20 adversarial)"
    index = json.loads((place / "dataset.json").read_text())
    assert index["count"] == 25
    assert index["meta"]["attack"] == "pgd"
    assert [shard["count"] for shard in index["shards"]] == [10, 10, 5]
    assert index["status"] == {"success": 20, "failed": 5}
    assert index["columns"] == {
        "x": "float32", "y": "int64", "index": "int64", "status": "int8", "distance": "float64"
    }  # fmt: skip
    assert index["codes"]["status"] == ["misclassified", "success", "failed", "skipped", "error"]


@pytest.mark.parametrize("limit", [7, "first:13"])
def test_subset_reads_rows_across_shards(tmp_path, form, limit):
    make(tmp_path / "set", form)
    part = load_data(tmp_path / "set", limit=limit)
    rows = part.index // 7
    assert torch.equal(part.x, X[rows])
    assert torch.equal(part.y, Y[rows])
    hits = sum(STATUS[i] == "success" for i in rows.tolist())
    assert part.caption.endswith(f"({hits} adversarial)")


def test_shards_stand_alone(tmp_path):
    make(tmp_path / "set")
    data = load_data(tmp_path / "set" / "data-00001.npz")
    assert torch.equal(data.x, X[10:20])
    assert torch.equal(data.index, INDEX[10:20])
    assert data.bounds == (0.0, 1.0)
    with np.load(tmp_path / "set" / "data-00001.npz") as archive:
        assert archive["status"].tolist() == [1 if s == "success" else 2 for s in STATUS[10:20]]
        assert np.isinf(archive["distance"]).tolist() == (Y[10:20] == 0).tolist()


def test_same_content_same_bytes(tmp_path, form):
    make(tmp_path / "a", form)
    make(tmp_path / "b", form)
    for name in files(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def interrupted(place, form):
    with DatasetWriter(place, format=form, **SETTINGS) as writer:
        write(writer, 0)
        write(writer, 1)
        raise KeyboardInterrupt


def test_interrupted_set_is_unfinished_and_goes_on(tmp_path, form):
    place = tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        interrupted(place, form)
    with pytest.raises(DataError) as caught:
        load_data(place)
    assert str(caught.value) == (
        f"unfinished data set '{place}': expected a file dataset.json, got 2 finished shards. "
        "Finish it with the command that began it and --resume."
    )
    with pytest.raises(RunError, match=re.escape("got files in it. Use --resume or --force.")):
        DatasetWriter(place, format=form, **SETTINGS)
    (place / shard_name(form, 1)).write_bytes(b"damaged since")
    before = (place / shard_name(form, 0)).stat().st_mtime_ns
    with DatasetWriter(place, format=form, resume=True, **SETTINGS) as writer:
        assert writer.done(0, 10)
        assert not writer.done(0, 9)
        assert not writer.done(1, 10)
        assert not writer.done(2, 5)
        write(writer, 1)
        write(writer, 2)
    assert (place / shard_name(form, 0)).stat().st_mtime_ns == before
    assert torch.equal(load_data(place).x, X)
    assert files(place) == finished(form)


def test_resuming_a_finished_set_finds_all_done(tmp_path):
    make(tmp_path / "set")
    with DatasetWriter(tmp_path / "set", resume=True, **SETTINGS) as writer:
        assert [writer.done(k, count) for k, count in enumerate((10, 10, 5))] == [True] * 3
    assert torch.equal(load_data(tmp_path / "set").x, X)


def test_what_a_killed_writer_left_before_its_header_is_no_obstacle(tmp_path):
    place = tmp_path / "set"
    place.mkdir()
    (place / ".dataset.partial.json.4711.tmp").write_bytes(b"{")
    make(place)
    assert files(place) == finished("npz")


def test_resuming_clears_away_halves(tmp_path, form):
    place = tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        interrupted(place, form)
    names = [shard_name(form, 2), "README.md", *(["images/1/000007.png"] if form == "png" else [])]
    for name in names:
        (place / name).parent.joinpath(f".{Path(name).name}.4711.tmp").write_bytes(b"half")
    with DatasetWriter(place, format=form, resume=True, **SETTINGS) as writer:
        write(writer, 2)
    assert not list(place.rglob("*.tmp"))
    assert files(place) == finished(form)


def test_resuming_with_other_settings_is_refused(tmp_path):
    make(tmp_path / "set")
    with pytest.raises(RunError, match="expected the same settings as when it was begun, got other meta, bounds"):
        DatasetWriter(tmp_path / "set", resume=True, **{**SETTINGS, "meta": {"attack": "fgsm"}, "bounds": (0, 2)})


def test_force_deletes_our_files_and_no_others(tmp_path, form):
    place = tmp_path / "set"
    make(place, form)
    (place / "notes.txt").write_text("mine")
    with DatasetWriter(place, format="safetensors", force=True, **SETTINGS) as writer:
        write(writer, 0)
    assert files(place) == sorted([*finished("safetensors", 1), "notes.txt"])
    assert not (place / "images").exists()
    assert len(load_data(place)) == 10


def test_force_deletes_what_a_killed_writer_left(tmp_path):
    place = tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        interrupted(place, "npz")
    for name in ("data-00002.npz", "data-00001.json", "dataset.json"):
        (place / f".{name}.4711.tmp").write_bytes(b"half")
    (place / ".notes.txt.4711.tmp").write_text("mine")
    make(place, force=True)
    assert files(place) == sorted([".notes.txt.4711.tmp", *finished("npz")])


@pytest.mark.parametrize("names", [("data-00000.npz",), ("manifest.json", "records.parquet"), ("notes.txt",)])
def test_force_replaces_data_sets_only(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(RunError, match=re.escape("expected an empty or new one, got files in it. Choose another")):
        DatasetWriter(tmp_path, force=True, **SETTINGS)
    assert files(tmp_path) == sorted(names)
    assert all((tmp_path / name).read_text() == "mine" for name in names)


def test_directories_that_are_not_empty(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(RunError, match=re.escape("expected an empty or new one, got files in it. Choose another")):
            DatasetWriter(tmp_path, resume=resume, **SETTINGS)
    assert files(tmp_path) == ["notes.txt"]
    with pytest.raises(RunError, match="expected a directory, got a file"):
        DatasetWriter(tmp_path / "notes.txt", **SETTINGS)


def test_bad_shard_leaves_nothing(tmp_path):
    writer = DatasetWriter(tmp_path / "set", **SETTINGS)
    good = {"x": X[:3], "y": Y[:3], "status": STATUS[:3]}
    for change, message in (
        ({"x": X[:3, :, :1]}, "x: expected inputs of shape (1, 2, 3), got (1, 1, 3)"),
        ({"x": X[:3] + 1}, "expected inputs inside the bounds [0, 1], got inputs from 1"),
        ({"x": X[:3] * float("nan")}, "NaN or infinity in 3 samples"),
        ({"y": Y[:2]}, "labels y: expected one for each of the 3 inputs, got 2"),
        ({"y": Y[:3] + 4}, "labels y: expected classes 0 to 3, got 4 to 6"),
        ({"status": ["success", "won", "failed"]}, "status: expected words of misclassified, success, failed"),
        ({"status": ["success"]}, "status: expected one for each of the 3 samples, got (1,)"),
    ):
        with pytest.raises(DataError, match=re.escape(message)):
            writer.write(0, **{**good, **change})
    assert files(tmp_path / "set") == ["dataset.partial.json"]
    writer.write(0, **good)
    with pytest.raises(DataError, match="columns of shard 1: expected"):
        writer.write(1, x=X[:3], y=Y[:3])
    writer.write(2, **good)
    with pytest.raises(RunError, match="expected every shard from 0 to the last, got none of number 1"):
        writer.close()


def test_unknown_format():
    expected = "unknown data set format: expected one of huggingface, npz, parquet, png, safetensors, got 'parket'. "
    with pytest.raises(DataError, match=re.escape(f"{expected}Did you mean 'parquet'?")):
        DatasetWriter("nowhere", format="parket", **SETTINGS)


def test_broken_shard_is_named(tmp_path, form):
    make(tmp_path / "set", form)
    shard = tmp_path / "set" / shard_name(form, 1)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_data(tmp_path / "set")
    assert str(caught.value).startswith(f"shard '{shard}': expected the bytes that were written, sha256")
    assert str(caught.value).endswith(
        "Make it again: the command in dataset.json with --resume. Or use the 15 samples of the other shards: "
        f"robustode data repair {tmp_path / 'set'}"
    )
    shard.unlink()
    with pytest.raises(DataError, match=re.escape(f"shard '{shard}': expected a file, got no such file")):
        load_data(tmp_path / "set")


def test_index_that_is_none(tmp_path):
    make(tmp_path / "set")
    path = tmp_path / "set" / "dataset.json"
    for text, message in (
        ("{", "expected a JSON object, got an error: "),
        ("[]", "expected a JSON object, got list"),
        ('{"schema": 9}', "expected schema 1 with shards, got schema 9 without bounds, classes"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=re.escape(f"file '{path}': {message}")):
            load_data(tmp_path / "set")


def test_export_of_data_in_memory(tmp_path, form):
    data = load_data("digits", limit=50, seed=4)
    data = replace(data, x=data.x.mul(255).round().div(255))
    path = export(tmp_path / "set", data, format=form, shard_size=20, meta={"why": "test"}, score=torch.arange(50.0))
    back = load_data(path.parent)
    assert back.fingerprint == data.fingerprint
    assert (back.bounds, back.classes, back.split) == (data.bounds, 10, "test")
    assert back.caption == f"all 50 test samples of {tmp_path / 'set'}"
    index = json.loads(path.read_text())
    assert index["meta"] == {"source": "digits", "split": "test", "caption": data.caption, "why": "test"}
    assert len(index["shards"]) == 3
    with pytest.raises(RunError, match="output directory"):
        export(tmp_path / "set", data)
    assert export(tmp_path / "set", data, force=True) == path
