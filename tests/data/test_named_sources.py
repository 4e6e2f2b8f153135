"""The named sets: digits and points here, MNIST and the others on the real files where these are."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import re
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from robustode.data import CATALOGUE, DEFAULT_BUDGETS, check_fits, default_budgets, list_data, load_data
from robustode.data.cifar import _ArraysOnly, read_batch
from robustode.data.idx import read_idx
from robustode.data.public import CIFAR10, MNIST
from robustode.errors import DataError


def test_digits_are_scikit_learns_in_a_fixed_stratified_split():
    train, test = load_data("digits", split="train"), load_data("digits")
    assert (len(train), len(test)) == (1437, 360)
    assert test.x.shape[1:] == (1, 8, 8)
    assert (test.classes, test.bounds, test.name, test.split) == (10, (0.0, 1.0), "digits", "test")
    assert test.caption == "all 360 test images of digits 8x8"
    counts = torch.bincount(torch.cat([train.y, test.y]))
    assert float((torch.bincount(test.y) - counts * 360 / 1797).abs().max()) < 1
    everything, labels = load_digits(return_X_y=True)
    rows = torch.cat([train.x, test.x]).flatten(1).mul(16).numpy()
    order, wanted = np.lexsort(rows.T), np.lexsort(np.asarray(everything).T)
    np.testing.assert_array_equal(rows[order], np.asarray(everything)[wanted])
    np.testing.assert_array_equal(torch.cat([train.y, test.y]).numpy()[order], np.asarray(labels)[wanted])
    assert test.fingerprint == FINGERPRINT


FINGERPRINT = (
    "73b724e7012d568ae96e4216912fde133b2b8e90fac6976a355969844a246b2a"  # published numbers on digits rest on this split
)


@pytest.mark.parametrize("name", ["moons", "spirals"])
def test_points_fill_the_square_and_leave_a_gap_between_the_classes(name):
    train, test = load_data(name, split="train"), load_data(name)
    assert (len(train), len(test)) == (2000, 1000)
    assert torch.bincount(train.y).tolist() == [1000, 1000]
    x, y = torch.cat([train.x, test.x]), torch.cat([train.y, test.y])
    assert len(torch.unique(x, dim=0)) == 3000
    assert float(x.min(0).values.max()) < 0.1
    assert float(x.max(0).values.min()) > 0.9
    assert float(torch.cdist(x[y == 0], x[y == 1]).min()) > 0.1
    assert load_data(name).fingerprint == test.fingerprint


def test_noise_of_the_moons_stays_in_its_disc_around_the_arc():
    data = load_data("moons")
    raw = data.x.double() * torch.tensor([3.3, 1.8]) + torch.tensor([-1.15, -0.65])
    for label, centre in ((0, (0.0, 0.0)), (1, (1.0, 0.5))):
        radius = (raw[data.y == label] - torch.tensor(centre)).norm(dim=1)
        assert 0.85 - 1e-6 < float(radius.min()) < 0.9
        assert 1.1 < float(radius.max()) < 1.15 + 1e-6


def test_limit_records_indices_of_the_full_split():
    full, part = load_data("digits"), load_data("digits", limit=100, seed=2)
    assert torch.equal(part.x, full.x[part.index])
    assert torch.equal(part.y, full.y[part.index])
    assert part.index.tolist() == sorted(part.index.tolist())
    assert part.caption == "100 random test images of digits 8x8, class-stratified, seed 2"
    first = load_data("digits", limit="first:5")
    assert first.index.tolist() == [0, 1, 2, 3, 4]
    assert first.caption == "the first 5 test images of digits 8x8"
    assert first.classes == 10


def test_names_and_errors():
    with pytest.raises(DataError) as caught:
        load_data("mnsit14")
    assert str(caught.value) == (
        "unknown data set: expected one of cifar10, digits, fashion-mnist, fashion-mnist14, mnist, mnist14, moons, "
        "spirals, got 'mnsit14'. Did you mean 'mnist14'?"
    )
    with pytest.raises(DataError, match="unknown split: expected one of test, train, got 'validation'"):
        load_data("digits", split="validation")
    with pytest.raises(DataError, match="at most 360, which is all there are, got 1,000"):
        load_data("digits", limit=1000)
    with pytest.raises(DataError, match=re.escape("inside the bounds [0, 0.5], got inputs from 0 to 1")):
        load_data("digits", bounds=(0, 0.5))
    assert load_data("digits", bounds=(-1, 1)).bounds == (-1.0, 1.0)


def test_every_named_set_is_listed_with_both_budgets():
    assert [info.name for info in list_data() if info.shape] == list(CATALOGUE)
    assert set(DEFAULT_BUDGETS) == set(CATALOGUE)
    for budgets in DEFAULT_BUDGETS.values():
        assert set(budgets) == {"linf", "l2"}
        assert all(list(radii) == sorted(set(radii)) and radii[0] > 0 for radii in budgets.values())
    assert default_budgets("mnist", (0, 1), 784) == {"linf": (0.1, 0.2, 0.3), "l2": (0.5, 1.0, 2.0)}
    assert default_budgets("cifar10", (0, 1), 3072)["linf"] == (2 / 255, 4 / 255, 8 / 255)
    own = default_budgets("mine.npz", (-1, 1), 16)
    assert own["linf"] == pytest.approx((0.02, 0.04, 0.1, 0.2))
    assert own["l2"] == pytest.approx((0.04, 0.08, 0.2, 0.4))


def test_check_fits():
    data = load_data("digits")
    model = SimpleNamespace(input_shape=(1, 8, 8), classes=10, bounds=(0.0, 1.0))
    check_fits(data, model)
    for change, message in (
        (
            {"input_shape": (1, 14, 14)},
            "shape (1, 14, 14), as the model takes, got (1, 8, 8). Data sets of that shape: mni",
        ),
        ({"classes": 5}, "labels of data 'digits': expected classes 0 to 4, as the model has, got labels up to 9"),
        ({"bounds": (-0.5, 0.5)}, "inputs inside the bounds [-0.5, 0.5], got inputs from 0 to 1"),
    ):
        with pytest.raises(DataError, match=re.escape(message)):
            check_fits(data, SimpleNamespace(**{**vars(model), **change}))


# --- the idx and CIFAR formats, on small files -----------------------------------------------------------------------


def idx(array):
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def test_idx_round_trip_and_damage():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    plain = idx(array)
    np.testing.assert_array_equal(read_idx(plain, (2, 3, 4), "it"), array)
    np.testing.assert_array_equal(read_idx(gzip.compress(plain), (2, 3, 4), "it"), array)
    for bad, message in (
        (plain[:-1], "got header (2051, 2, 3, 4) and 23 bytes"),
        (b"", "got header () and 0 bytes"),
        (b"\0\0\x08\x01" + plain[4:], "got header (2049, 2, 3, 4)"),
        (gzip.compress(plain)[:-9], "expected a gzip file, got a damaged one"),
    ):
        with pytest.raises(DataError, match=re.escape(message)):
            read_idx(bad, (2, 3, 4), "it")


def fake_mnist(root, monkeypatch, *, gz):
    """A test split of the right shape with pixels that are known, in torchvision's layout."""
    folder = root / "MNIST/raw"
    folder.mkdir(parents=True)
    pixels = (np.arange(10_000 * 784, dtype=np.uint64) * 7919 % 256).astype(np.uint8).reshape(-1, 28, 28)
    labels = (np.arange(10_000) % 10).astype(np.uint8)
    for name, array in (("t10k-images-idx3-ubyte", pixels), ("t10k-labels-idx1-ubyte", labels)):
        content = gzip.compress(idx(array), 1) if gz else idx(array)
        (folder / (name + (".gz" if gz else ""))).write_bytes(content)
        monkeypatch.setitem(MNIST.files, f"{name}.gz", hashlib.md5(content).hexdigest())
    return pixels, labels


@pytest.mark.parametrize("gz", [True, False])
def test_mnist_layout_packed_and_unpacked(tmp_path, monkeypatch, gz):
    pixels, labels = fake_mnist(tmp_path, monkeypatch, gz=gz)
    data = load_data("mnist", root=tmp_path, limit="first:50")
    np.testing.assert_array_equal(data.x[:, 0].numpy(), pixels[:50].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(data.y.numpy(), labels[:50])
    monkeypatch.setenv("ROBUSTODE_DATA", str(tmp_path))
    pooled = load_data("mnist14", limit="first:50")
    means = pixels[:50].astype(np.float64).reshape(50, 14, 2, 14, 2).mean((2, 4)) / 255
    np.testing.assert_allclose(pooled.x[:, 0].numpy(), means, rtol=1e-7)
    assert pooled.caption == "the first 50 test images of MNIST 14x14"


def test_changed_file_is_refused_by_its_checksum(tmp_path, monkeypatch):
    fake_mnist(tmp_path, monkeypatch, gz=True)
    file = tmp_path / "MNIST/raw/t10k-images-idx3-ubyte.gz"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_data("mnist", root=tmp_path)
    assert str(caught.value) == (
        f"data file {file}: expected the published bytes, md5 {MNIST.files[file.name]}, "
        f"got md5 {hashlib.md5(content).hexdigest()}. "
        f"Delete it and run: robustode data fetch mnist --data-root {tmp_path}"
    )


def test_missing_files_say_which_and_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.delenv("ROBUSTODE_DATA", raising=False)
    with pytest.raises(DataError) as caught:
        load_data("mnist14", root=tmp_path)
    assert str(caught.value) == (
        f"data set 'mnist': expected a file {tmp_path}/MNIST/raw/t10k-labels-idx1-ubyte.gz, got no such file. "
        f"Run: robustode data fetch mnist --data-root {tmp_path}, "
        "or set ROBUSTODE_DATA to the folder that holds MNIST/raw"
    )
    with pytest.raises(DataError) as caught:
        load_data("cifar10")
    assert str(caught.value) == (
        "data set 'cifar10': expected the folder that holds cifar-10-batches-py, from --data-root or the variable "
        "ROBUSTODE_DATA, got neither. Run: robustode data fetch cifar10 --data-root DIR, then set ROBUSTODE_DATA=DIR"
    )


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemError('it ran')",))


def test_cifar_batches_and_pickles_that_would_run_code(tmp_path, monkeypatch):
    images = (np.arange(4 * 3072) % 251).astype(np.uint8).reshape(4, 3072)
    content = pickle.dumps({b"data": images, b"labels": [3, 1, 4, 1], b"batch_label": b"test"}, protocol=3)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(content)
    monkeypatch.setitem(CIFAR10.files, "test_batch", hashlib.md5(content).hexdigest())
    data = load_data("cifar10", root=tmp_path)
    assert data.y.tolist() == [3, 1, 4, 1]
    np.testing.assert_array_equal(data.x.numpy(), images.reshape(4, 3, 32, 32).astype(np.float32) / np.float32(255))
    with pytest.raises(DataError, match=r"UnpicklingError: '(builtins|__builtin__).exec' is not allowed"):
        read_batch(pickle.dumps({b"data": Evil(), b"labels": [1]}, protocol=3), "batch")
    with pytest.raises(DataError, match="expected a CIFAR-10 batch"):
        read_batch(content[:100], "batch")
    with pytest.raises(DataError, match=re.escape("uint8 of shape (n, 3072), got uint8 (4, 3072)")):
        read_batch(pickle.dumps({b"data": images, b"labels": [1]}, protocol=3), "batch")
    python2 = b"\x80\x02cnumpy\ndtype\n(U\x02u1K\x00K\x01tR."  # numpy.dtype("u1", 0, 1), as in the published files
    assert _ArraysOnly(io.BytesIO(python2), encoding="bytes").load() == np.uint8


# --- the real files ---------------------------------------------------------------------------------------------------


@pytest.mark.data
def test_real_mnist(data_root):
    data = load_data("mnist", root=data_root)
    assert torch.bincount(data.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert float(data.x.mean()) == pytest.approx(0.1325, abs=1e-4)
    part = load_data("mnist14", root=data_root, limit=1000)
    assert torch.equal(part.y, data.y[part.index])
    pooled = torch.nn.functional.avg_pool2d(data.x[part.index], 2)
    torch.testing.assert_close(part.x, pooled, rtol=0, atol=1e-6)


@pytest.mark.data
def test_real_mnist_for_training(data_root):
    data = load_data("mnist", split="train", root=data_root)
    assert float(data.x.double().mean()) == pytest.approx(0.1307, abs=1e-4)
    assert float(data.x.double().std()) == pytest.approx(0.3081, abs=1e-4)


@pytest.mark.data
def test_real_fashion_mnist(data_root):
    data = load_data("fashion-mnist14", root=data_root)
    assert data.x.shape == (10_000, 1, 14, 14)
    assert torch.bincount(data.y).tolist() == [1000] * 10
