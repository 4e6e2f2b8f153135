"""Each format in the library that its users use, the data card, the checksums, broken shards and missing columns."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from robustode.data import DatasetWriter, load_data, repair
from robustode.data.formats import FORMATS
from robustode.errors import DataError

N = 25
X = torch.rand(N, 1, 4, 5, generator=torch.Generator().manual_seed(1)).mul(255).round().div(255)
Y = torch.arange(N) % 3
DISTANCE = torch.where(Y == 0, float("inf"), 0.25 + 0.01 * torch.arange(N)).double()
STATUS = ["failed" if label == 0 else "success" for label in Y.tolist()]
META = {
    "source": "digits",
    "split": "test",
    "caption": "25 test images",
    "model": "net",
    "model_hash": "0123456789abcdef",
    "attack": "pgd-linf",
    "attack_card": {"name": "pgd-linf", "params": {"steps": 4}},
    "params": {"steps": 4, "rate": 0.5},
    "norm": "linf",
    "eps": 0.5,
    "command": "robustode generate | more",
}


def make(place, form, x=X, meta=META, card=True, **settings):
    """Three shards of 10, 10 and 5 samples."""
    values = {"bounds": (0, 1), "classes": 3, "input_shape": x.shape[1:], "shards": 3, **settings}
    with DatasetWriter(place, format=form, meta=meta, card=card, **values) as writer:
        for k in range(3):
            rows = slice(10 * k, 10 * k + 10)
            columns = {"index": torch.arange(N)[rows], "distance": DISTANCE[rows], "status": STATUS[rows]}
            writer.write(k, x=x[rows], y=Y[rows], **columns)
    return place


def read_all(place, form, name):
    """A column of all shards as it is read back."""
    from robustode.data.exported import read_index, shards_of

    return np.concatenate([shard.column(name) for shard in shards_of(place, read_index(place))])


@pytest.fixture(params=list(FORMATS))
def form(request):
    return request.param


def example(place) -> dict:
    """Run the code of the data card, and return its variables."""
    code = re.search(r"```python\n(.*?)```", (place / "README.md").read_text(), re.DOTALL)
    assert code is not None
    names: dict = {}
    exec(code[1].replace("path/to/this/folder", str(place)), names)
    return names


def test_every_column_comes_back(tmp_path, form):
    make(tmp_path / "set", form)
    assert read_all(tmp_path / "set", form, "distance").tolist() == DISTANCE.tolist()
    assert read_all(tmp_path / "set", form, "index").tolist() == list(range(N))
    assert read_all(tmp_path / "set", form, "status").tolist() == [2 if word == "failed" else 1 for word in STATUS]
    assert torch.equal(torch.from_numpy(read_all(tmp_path / "set", form, "x")), X)


def test_npz_in_numpy(tmp_path):
    names = example(make(tmp_path / "set", "npz"))
    assert np.array_equal(names["x"], X.numpy())
    assert names["y"].tolist() == Y.tolist()
    assert names["distance"].tolist() == DISTANCE.tolist()


def test_safetensors_as_a_torch_dataset(tmp_path):
    data = example(make(tmp_path / "set", "safetensors"))["data"]
    batches = list(DataLoader(data, batch_size=10))
    assert torch.equal(torch.cat([x for x, _ in batches]), X)
    assert torch.equal(torch.cat([y for _, y in batches]), Y)


def test_parquet_in_pandas(tmp_path):
    place = make(tmp_path / "set", "parquet")
    names = example(place)
    table = names["table"]
    assert np.array_equal(names["x"], X.numpy())
    assert table["status"].tolist() == STATUS
    assert table["distance"].tolist() == DISTANCE.tolist()
    assert set(table["attack"]) == {"pgd-linf"}
    assert set(table["eps"]) == {0.5}
    assert json.loads(table["params"][0]) == {"rate": 0.5, "steps": 4}


def test_png_as_images_and_a_table(tmp_path):
    place = make(tmp_path / "set", "png")
    names = example(place)
    assert np.array_equal(np.asarray(names["image"]), (255 * X[0, 0]).round().byte().numpy())
    table = names["table"]
    assert table["file_name"].tolist() == [f"images/{y}/{k:06d}.png" for k, y in enumerate(Y.tolist())]
    assert table["distance"].tolist() == DISTANCE.tolist()
    assert set(table["norm"]) == {"linf"}
    folders = load_data(f"folder:{place / 'images'}")
    assert torch.equal(folders.x, X[Y.argsort(stable=True)])
    assert torch.equal(folders.y, Y.sort().values)


def test_png_of_colours_in_0_to_255(tmp_path):
    x = torch.randint(0, 256, (N, 3, 4, 5), generator=torch.Generator().manual_seed(2)).float()
    place = make(tmp_path / "set", "png", x=x, bounds=(0, 255))
    assert torch.equal(load_data(place).x, x)


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    library = pytest.importorskip("datasets")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    library.disable_progress_bars()
    return library


def test_huggingface_in_datasets(tmp_path, datasets):
    place = make(tmp_path / "set", "huggingface")
    names = example(place)
    assert names["x"].shape == (1, 4, 5)
    sets = datasets.load_dataset(str(place))
    assert list(sets) == ["test"]
    data = sets["test"]
    assert data.features["x"] == datasets.Array3D((1, 4, 5), "float32")
    assert data.features["y"] == datasets.ClassLabel(names=["0", "1", "2"])
    assert torch.equal(data.with_format("torch")[:]["x"], X)
    assert data["status"][:] == STATUS
    assert data["distance"][:] == DISTANCE.tolist()
    assert set(data["attack"][:]) == {"pgd-linf"}
    assert torch.equal(load_data(place).x, X)  # also where the library has registered its types


@pytest.mark.parametrize("shape", [(2,), (4, 5), (2, 1, 2, 5)])
def test_huggingface_of_other_shapes(tmp_path, datasets, shape):
    x = torch.rand(N, *shape, generator=torch.Generator().manual_seed(3))
    place = make(tmp_path / "set", "huggingface", x=x)
    data = datasets.load_dataset(str(place), split="test").with_format("torch")
    assert torch.equal(data[:]["x"], x)
    assert torch.equal(load_data(place).x, x)


def test_huggingface_writes_and_reads_without_datasets(tmp_path):
    code = (
        "import sys; sys.modules['datasets'] = None\n"
        "import torch; from robustode.data import DatasetWriter, load_data\n"
        "x = torch.rand(4, 1, 2, 2); y = torch.arange(4) % 2\n"
        "settings = dict(bounds=(0, 1), classes=2, input_shape=(1, 2, 2), shards=1)\n"
        "with DatasetWriter('set', format='huggingface', **settings) as writer: writer.write(0, x=x, y=y)\n"
        "assert torch.equal(load_data('./set').x, x)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [file.name for file in (tmp_path / "set/data").iterdir()] == ["all-00000-of-00001.parquet"]


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((2,), {}, "format png: expected images of shape (1, height, width) or (3, height, width), got inputs of"),
        (
            (4, 4, 5),
            {},
            "(4, 4, 5). Choose another format: npz, safetensors, parquet or huggingface.",
        ),
        ((1, 4, 5), {"bounds": (-1, 1)}, "format png: expected bounds [0, 1] or [0, 255], got [-1, 1]"),
        ((1, 4, 5), {"bounds": None}, "format png: expected bounds [0, 1] or [0, 255], got none"),
    ],
)
def test_png_takes_images_only(tmp_path, shape, settings, message):
    values = {"bounds": (0, 1), "classes": 3, "input_shape": shape, **settings}
    with pytest.raises(DataError, match=re.escape(message)):
        DatasetWriter(tmp_path / "set", format="png", **values)
    assert not (tmp_path / "set").exists()


def test_huggingface_must_know_how_many_shards(tmp_path):
    with pytest.raises(DataError, match=re.escape("expected the number of shards, got none")):
        DatasetWriter(tmp_path / "set", format="huggingface", bounds=None, classes=2, input_shape=(2,))
    with pytest.raises(DataError, match="expected inputs of 1 to 5 dimensions"):
        DatasetWriter(tmp_path / "set", format="huggingface", bounds=None, classes=2, input_shape=(1,) * 6, shards=1)
    assert not (tmp_path / "set").exists()


def test_card(tmp_path, form):
    text = (make(tmp_path / "set", form) / "README.md").read_text()
    assert text.startswith('---\npretty_name: "Adversarial digits: pgd-linf on net"\nlicense: other\n')
    yaml = pytest.importorskip("yaml")
    block = yaml.safe_load(text.split("---\n")[1])
    assert block["size_categories"] == ["n<1K"]
    assert ("configs" in block) == (form in ("parquet", "huggingface"))
    for part in (
        "# Adversarial digits: pgd-linf on net\n",
        "| command | robustode generate \\| more |\n",
        "| hash of the model's configuration and weights | 0123456789abcdef |\n",
        "| norm | linf |\n",
        "| ε (radius of the ball; none: minimal norm) | 0.5 |\n",
        '"steps": 4',
        "- test: 25 samples in 3 shards: 16 success, 9 failed.\n",
        "| `distance` | from the clean input",
        "The licence of the source data applies",
        "sha256sum -c SHA256SUMS",
    ):
        assert part in text
    assert "further column" not in text


def sums(place):
    return dict(reversed(line.split("  ", 1)) for line in (place / "SHA256SUMS").read_text().splitlines())


def test_checksums_name_every_file(tmp_path, form):
    place = make(tmp_path / "set", form)
    listed = sums(place)
    there = {file.relative_to(place).as_posix(): file for file in place.rglob("*") if file.is_file()}
    assert set(listed) == set(there) - {"SHA256SUMS"}
    for name, digest in listed.items():
        assert hashlib.sha256(there[name].read_bytes()).hexdigest() == digest
    if shutil.which("sha256sum"):
        done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=place, capture_output=True, text=True, check=True)
        assert done.stdout.count(": OK\n") == len(listed)


def damage(place, form, number):
    index = json.loads((place / "dataset.json").read_text())
    file = place / index["shards"][number]["file"]
    if form == "png":
        file = place / "images/1/000010.png"  # of shard 1
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return index["shards"][number]["file"]


def test_repair(tmp_path, form):
    place = make(tmp_path / "set", form)
    assert repair(place).dropped == ()
    whole = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
    bad = damage(place, form, 1)
    with pytest.raises(DataError, match=re.escape(f"shard '{place / bad}': expected the bytes that were written")):
        load_data(place)
    done = repair(place)
    assert (done.lost, done.count) == (10, 15)
    assert len(done.dropped) == 1
    assert done.dropped[0].startswith(f"{bad} (sha256 ")
    data = load_data(place)
    assert torch.equal(data.x, torch.cat([X[:10], X[20:]]))
    assert data.index.tolist() == [*range(10), *range(20, 25)]
    assert data.caption.endswith(f"(9 adversarial; without the broken {bad})")
    assert f"Dropped, because it was broken: `{bad}` (10 samples)." in (place / "README.md").read_text()
    assert (place / "broken" / bad).is_file()
    assert not (place / bad).exists()
    assert not any(name.startswith("broken/") for name in sums(place))
    if form == "png":
        assert len(pd.read_csv(place / "metadata.csv")) == 15
        assert len(list((place / "images").rglob("*.png"))) == 15
    assert repair(place).dropped == ()
    settings = {"bounds": (0, 1), "classes": 3, "input_shape": X.shape[1:], "shards": 3, "meta": META}
    with DatasetWriter(place, format=form, resume=True, **settings) as writer:
        assert [writer.done(k, n) for k, n in enumerate((10, 10, 5))] == [True, False, True]
        rows = slice(10, 20)
        columns = {"index": torch.arange(N)[rows], "distance": DISTANCE[rows], "status": STATUS[rows]}
        writer.write(1, x=X[rows], y=Y[rows], **columns)
    assert {file: file.read_bytes() for file in place.rglob("*") if file.is_file()} == whole


def test_repair_of_what_is_no_set_or_all_broken(tmp_path):
    with pytest.raises(DataError, match=re.escape("expected a directory with dataset.json")):
        repair(tmp_path)
    place = make(tmp_path / "set", "npz")
    for file in place.glob("*.npz"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match="expected at least one shard that is intact, got none"):
        repair(place)
    assert len(json.loads((place / "dataset.json").read_text())["shards"]) == 3


@pytest.mark.parametrize("form", ["npz", "safetensors", "parquet", "huggingface"])
def test_a_label_column_missing_in_a_shard(tmp_path, form):
    place = make(tmp_path / "set", form)
    index = json.loads((place / "dataset.json").read_text())
    file = place / index["shards"][2]["file"]
    if form == "npz":
        np.savez(file, x=X[20:].numpy(), target=Y[20:].numpy())
    elif form == "safetensors":
        from safetensors.numpy import save_file

        save_file({"x": X[20:].numpy(), "target": Y[20:].numpy()}, file)
    else:
        table = pq.ParquetFile(file).read()
        pq.write_table(table.rename_columns(["target" if name == "y" else name for name in table.column_names]), file)
    index["shards"][2]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (place / "dataset.json").write_text(json.dumps(index))
    with pytest.raises(DataError) as caught:
        load_data(place)
    assert f"shard '{file}': expected a column y, got columns " in str(caught.value)
    assert "target" in str(caught.value)


def test_an_index_without_labels(tmp_path):
    place = make(tmp_path / "set", "parquet")
    index = json.loads((place / "dataset.json").read_text())
    del index["columns"]["y"]
    (place / "dataset.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="expected a column y, got x, index, distance, status"):
        load_data(place)


def test_one_parquet_file(tmp_path):
    place = make(tmp_path / "set", "parquet")
    data = load_data(place / "data-00001.parquet")
    assert torch.equal(data.x, X[10:20])
    assert (data.bounds, data.split, data.index.tolist()) == ((0.0, 1.0), "all", list(range(10, 20)))
    own = tmp_path / "own.parquet"
    pq.write_table(pa.table({"x": [[0.0, 0.5], [1.0, 0.25]], "y": [0, 1]}), own)
    assert load_data(own, bounds=(0, 1)).x.tolist() == [[0, 0.5], [1, 0.25]]
    for table, message in (
        ({"x": [[0.0]], "label": [1]}, "expected columns x and y, got x, label"),
        ({"x": [[0.0], [1.0, 2.0, 3.0]], "y": [0, 1]}, "column x: expected numbers, got lists of 1 and of 3"),
        ({"x": [[[0.0, 1.0], [0.0]]], "y": [0]}, "column x: expected numbers, got lists of 2 and of 1"),
        ({"x": [[0.0], None], "y": [0, 1]}, "column x: expected numbers, got no value in 1 places"),
        ({"x": pa.array([], pa.list_(pa.float32())), "y": pa.array([], pa.int64())}, "expected at least one sample"),
    ):
        pq.write_table(pa.table(table), own)
        with pytest.raises(DataError, match=re.escape(message)):
            load_data(own)
    own.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="expected a Parquet table, got "):
        load_data(own)
    with pytest.raises(DataError, match="expected a file, got no such file"):
        load_data(tmp_path / "none.parquet")
