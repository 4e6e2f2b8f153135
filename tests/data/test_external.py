"""The user's own data: npz, arrays, Datasets, DataLoaders, factories, image folders; and one error for each fault."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from robustode.data import Data, load_data
from robustode.errors import DataError

X = np.linspace(0, 1, 24, dtype=np.float64).reshape(6, 4)
Y = np.array([0, 1, 2, 0, 1, 2])


def refused(source, message, **options):
    with pytest.raises(DataError, match=re.escape(message)):
        load_data(source, **options)


# --- npz --------------------------------------------------------------------------------------------------------------


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_npz_round_trip(tmp_path):
    path = save(tmp_path / "mine.npz", x=X, y=Y.astype(np.uint8), index=np.arange(6) * 3, bounds=np.array([-1, 1]))
    data = load_data(path)
    np.testing.assert_array_equal(data.x.numpy(), X.astype(np.float32))
    assert data.y.tolist() == Y.tolist()
    assert data.index.tolist() == [0, 3, 6, 9, 12, 15]
    assert (data.name, data.split, data.bounds, data.classes) == (path, "all", (-1.0, 1.0), 3)
    assert data.caption == f"all 6 samples of {path}"
    assert load_data(path, bounds=(0, 2)).bounds == (0.0, 2.0)
    part = load_data(tmp_path / "mine.npz", limit=3)
    assert part.index.tolist() == [3 * i for i in part.index.div(3).int().tolist()]
    assert sorted(part.y.tolist()) == [0, 1, 2]
    assert part.classes == 3


def test_npz_without_bounds_has_none(tmp_path):
    assert load_data(save(tmp_path / "a.npz", x=X, y=Y)).bounds is None


def test_whole_numbers_are_never_scaled_by_a_guess(tmp_path):
    path = save(tmp_path / "a.npz", x=(X * 255).astype(np.uint8), y=Y)
    with pytest.raises(DataError) as caught:
        load_data(path)
    assert str(caught.value) == (
        f"data '{path}', inputs x: expected floating point, got uint8. Divide by 255 and save as float32, "
        "or give the bounds of the whole numbers (--bounds 0,255)."
    )
    data = load_data(path, bounds=(0, 255))
    assert float(data.x.max()) == 255
    refused(path, "expected inputs inside the bounds [0, 1], got inputs from 0 to 255", bounds=(0, 1))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "expected arrays x and y, got x"),
        ({"x": X, "y": Y[:5]}, "labels y: expected one for each of the 6 inputs, got 5"),
        ({"x": X, "y": Y.astype(float)}, "labels y: expected whole numbers of shape (n,), got float64 of shape (6,)"),
        ({"x": X, "y": np.eye(3)[Y]}, "got float64 of shape (6, 3). Turn one-hot rows into numbers with argmax(1)."),
        ({"x": X, "y": Y - 1}, "labels y: expected classes 0 to 1, got -1 to 1"),
        ({"x": X[:0], "y": Y[:0]}, "expected at least one sample, got an empty set, x of shape (0, 4)"),
        ({"x": X[:, 0], "y": Y}, "inputs x: expected shape (n, ...), got (6,)"),
        ({"x": np.where(X > 0.9, np.nan, X), "y": Y}, "NaN or infinity in 1 samples, first in sample 5"),
        ({"x": X * 1e300, "y": Y}, "NaN or infinity in 6 samples, first in sample 0"),
        ({"x": X, "y": Y, "index": np.arange(5)}, "index: expected one for each of the 6 inputs, got 5"),
        ({"x": X, "y": Y, "bounds": np.arange(3)}, "bounds: expected two numbers, got shape (3,)"),
        ({"x": X.astype(str), "y": Y}, "inputs x: expected an array of numbers, got ndarray of dtype <U"),
        ({"x": X > 0.5, "y": Y}, "inputs x: expected an array of numbers, got ndarray of dtype bool"),
    ],
)
def test_npz_refused(tmp_path, arrays, message):
    refused(save(tmp_path / "a.npz", **arrays), message)


def test_npz_that_is_none(tmp_path):
    path = save(tmp_path / "a.npz", x=X, y=Y)
    content = (tmp_path / "a.npz").read_bytes()
    for damaged in (content[:-40], b"", b"not a zip", content[:300]):
        (tmp_path / "a.npz").write_bytes(damaged)
        refused(path, "expected an .npz archive of numeric arrays, got ")
    refused(str(tmp_path / "b.npz"), f"data file '{tmp_path}/b.npz': expected a file, got no such file")


def test_npz_with_a_pickle_is_not_loaded(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemError('it ran')",))

    refused(save(tmp_path / "a.npz", x=np.array([Evil()], dtype=object), y=Y), "Object arrays cannot be loaded")


def test_paths_that_are_no_data(tmp_path):
    (tmp_path / "a.csv").write_text("1,2\n")
    refused(
        str(tmp_path / "a.csv"), "expected an .npz or .parquet with x and y, got a file that ends in '.csv'. Save it"
    )
    refused(str(tmp_path / "none"), "expected a directory or a file .npz or .parquet, got no such path")
    refused(str(tmp_path), "expected a directory with dataset.json, as written by `robustode generate`")


# --- objects ----------------------------------------------------------------------------------------------------------


def test_pair_of_tensors_is_taken_without_a_copy():
    x = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    data = load_data((x.requires_grad_(), torch.from_numpy(Y)), bounds=(0, 1))
    assert data.x.data_ptr() == x.data_ptr()
    assert not data.x.requires_grad
    assert data.name == "(x, y)"
    assert data.caption == "all 6 images of (x, y)"


@pytest.mark.parametrize(
    "x",
    [
        X.tolist(),
        X.astype(">f4"),
        X.astype(np.float16),
        np.asfortranarray(X),
        torch.from_numpy(X).bfloat16(),
        np.lib.stride_tricks.as_strided(X, writeable=False),
    ],
    ids=["lists", "big endian", "half", "fortran", "bfloat16", "read-only"],
)
def test_pair_of_anything_numeric(x):
    data = load_data((x, Y.tolist()))
    torch.testing.assert_close(data.x, torch.from_numpy(X).float(), rtol=0, atol=4e-3)
    assert data.x.is_contiguous()


class Squares(Dataset):
    """x = (i², ..., i²), y = i mod 2."""

    def __init__(self, n=5):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return torch.full((2, 3), i**2 / 100), i % 2


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(np.full(2, 0.5), np.int64(1)), (np.full(2, 0.25), torch.tensor(0))])


def test_datasets_and_loaders():
    data = load_data(Squares())
    assert data.x.shape == (5, 2, 3)
    assert data.x[:, 0, 0].tolist() == pytest.approx([0, 0.01, 0.04, 0.09, 0.16])
    assert data.y.tolist() == [0, 1, 0, 1, 0]
    assert (data.name, data.classes) == ("Squares", 2)
    loaded = load_data(DataLoader(Squares(), batch_size=2))
    assert loaded.fingerprint == data.fingerprint
    assert load_data(TensorDataset(data.x, data.y)).fingerprint == data.fingerprint
    stream = load_data(Stream())
    assert stream.x.tolist() == [[0.5, 0.5], [0.25, 0.25]]
    assert stream.y.tolist() == [1, 0]


def test_loader_that_shuffles_is_refused():
    loader = DataLoader(Squares(), shuffle=True)
    refused(loader, "got one that shuffles. Build it with shuffle=False, or pass its dataset.")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([(torch.zeros(2), 0), (torch.zeros(3), 0), (torch.zeros(2), 1)], "item 1: expected shape (2,), got (3,)"),
        ([(torch.zeros(2), 0.5)] * 3, "item 0, label y: expected a whole number, got 0.5"),
        ([torch.zeros(2)] * 3, "item 0: expected a pair (x, y), got Tensor"),
        ([("image.png", 0)] * 3, "item 0, input x: expected a tensor or array, got str. Convert images in the Dataset"),
        ([(np.zeros(2, np.uint8), 0)] * 3, "item 0, inputs x: expected floating point, got uint8. Divide by 255"),
        ([], "expected at least one sample, got an empty set"),
    ],
)
def test_items_refused(items, message):
    class Listed(Dataset):
        def __len__(self):
            return len(items)

        def __getitem__(self, i):
            return items[i]

    refused(Listed(), message)


def test_dataset_that_raises_names_the_item():
    class Broken(Squares):
        def __getitem__(self, i):
            if i == 3:
                raise RuntimeError("disk gone")
            return super().__getitem__(i)

    refused(Broken(), "data 'Broken', item 3: got RuntimeError: disk gone")


@pytest.mark.parametrize("source", [3.5, {"x": X, "y": Y}, None])
def test_objects_that_are_no_data(source):
    refused(source, f"expected a torch Dataset, a DataLoader or a pair (x, y), got {type(source).__name__}")


def test_data_passes_through_and_can_be_cut():
    data = load_data((X, Y), bounds=(0, 1))
    assert load_data(data) is data
    part = load_data(data, limit=3)
    assert part.caption == "3 random samples of (all 6 samples of (x, y)), class-stratified, seed 0"
    assert torch.equal(part.x, data.x[part.index])
    refused(data, "inside the bounds [0, 0.5]", bounds=(0, 0.5))


# --- factories --------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_factory(here):
    (here / "mine.py").write_text(
        "import torch\n"
        "def plain():\n    return torch.eye(3), [0, 1, 2]\n"
        "def by_split(split):\n    n = 4 if split == 'train' else 2\n    return torch.eye(n), list(range(n))\n"
        "def broken():\n    raise KeyError('no such table')\n"
        "def nothing():\n    pass\n"
    )
    data = load_data("python:mine.py:plain")
    assert (data.name, data.split, len(data), data.bounds) == ("python:mine.py:plain", "all", 3, None)
    assert len(load_data("python:mine.py:by_split", split="train")) == 4
    assert load_data("python:mine.py:by_split").split == "test"
    refused("python:mine.py:broken", "got an error when called: KeyError: 'no such table'")
    refused("python:mine.py:nothing", "expected a torch Dataset, a DataLoader or a pair (x, y), got NoneType")
    refused("python:mine.py:absent", "data factory 'python:mine.py:absent': expected one of ")
    refused("python:other.py:plain", f"expected a file other.py in {here}, got no such file")


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for label, name in enumerate(("ant", "bee")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for k in range(3):
            pixels = np.full((4, 5, 3), (label * 100, k * 50, 255), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{k}.png")
    return tmp_path / "set"


def test_folder(folder):
    (folder / "README.txt").write_text("only subfolders are classes")
    (folder / "ant" / ".hidden").write_text("ignored")
    (folder / "ant" / "Thumbs.db").write_text("ignored")
    data = load_data(f"folder:{folder}")
    assert data.x.shape == (6, 3, 4, 5)
    assert data.y.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_allclose(data.x[5, :, 0, 0].numpy(), np.array([100, 100, 255], np.float32) / np.float32(255))
    assert (data.bounds, data.classes, data.name) == ((0.0, 1.0), 2, f"folder:{folder}")
    assert data.caption == f"all 6 images of folder:{folder}"
    part = load_data(f"folder:{folder}", limit=2)
    assert part.y.tolist() == [0, 1]
    assert torch.equal(part.x, data.x[part.index])


def test_folder_reads_only_what_is_chosen(folder):
    (folder / "bee" / "2.png").write_bytes(b"broken")
    assert len(load_data(f"folder:{folder}", limit="first:5")) == 5
    refused(f"folder:{folder}", f"file '{folder}/bee/2.png': expected an image, got something else")


def test_grey_stays_grey_and_other_modes_become_rgb(folder, tmp_path):
    rgb = Image.open(folder / "ant" / "1.png")
    plain = load_data(f"folder:{folder}").x[1]
    for mode, name in (("P", "1.png"), ("RGBA", "1.png"), ("CMYK", "1.tif")):
        (folder / "ant" / "1.png").unlink(missing_ok=True)
        rgb.convert(mode).save(folder / "ant" / name)
        torch.testing.assert_close(load_data(f"folder:{folder}").x[1], plain, rtol=0, atol=0.01)
        (folder / "ant" / name).unlink()
    for name in ("ant", "bee"):
        (tmp_path / "grey" / name).mkdir(parents=True)
    Image.new("L", (3, 2), 51).save(tmp_path / "grey/ant/a.png")
    Image.new("1", (3, 2), 1).save(tmp_path / "grey/bee/a.png")
    data = load_data(f"folder:{tmp_path}/grey")
    assert data.x.shape == (2, 1, 2, 3)
    assert data.x[:, 0, 0, 0].tolist() == pytest.approx([0.2, 1.0])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("RGB", (4, 5)), "9.png': expected 5x4 RGB, as '{folder}/ant/0.png', got 4x5 RGB. Bring all images"),
        (Image.new("L", (5, 4)), "9.png': expected 5x4 RGB, as '{folder}/ant/0.png', got 5x4 L. Bring all images"),
        (Image.new("RGBA", (5, 4), (9, 9, 9, 100)), "9.png': expected an opaque image, got transparency. Flatten it."),
        (Image.fromarray(np.zeros((4, 5), np.uint16)), "9.png': expected 8 bits a channel, got mode I;16. Save it as"),
    ],
)
def test_folder_names_the_image_that_does_not_fit(folder, image, message):
    image.save(folder / "bee" / "9.png")
    refused(f"folder:{folder}", message.format(folder=folder))


def test_truncated_and_moving_images(folder):
    good = (folder / "bee" / "1.png").read_bytes()
    (folder / "bee" / "1.png").write_bytes(good[:45])
    refused(f"folder:{folder}", f"image '{folder}/bee/1.png': expected a readable image, got ")
    (folder / "bee" / "1.png").write_bytes(good)
    frames = [Image.new("RGB", (5, 4), (k, k, k)) for k in (0, 99)]
    frames[0].save(folder / "bee" / "2.gif", save_all=True, append_images=frames[1:])
    refused(f"folder:{folder}", "2.gif': expected one frame, got 2 frames")


def test_folders_that_are_no_data(folder, tmp_path):
    refused(f"folder:{tmp_path}/none", "expected a folder with one subfolder of images per class, got no such folder")
    refused(f"folder:{tmp_path}", "expected at least two subfolders, one per class, got set")
    refused(f"folder:{folder}/ant", "expected at least two subfolders, one per class, got none")
    (folder / "cow").mkdir()
    refused(f"folder:{folder}", f"class folder '{folder}/cow': expected at least one image, got an empty folder")


def test_data_class_is_what_comes_out():
    assert isinstance(load_data((X, Y)), Data)
