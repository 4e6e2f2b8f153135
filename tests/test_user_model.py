"""A user's own model: torch code, normalisation, a state dict and data of one's own, each with one command line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from robustode.data import load_data
from tests.cli.command import Done, refused, robustode, works

README = Path(__file__).parent.parent / "README.md"
MEAN, STD = 0.5, 0.25
CODE = """
import numpy as np
import torch
from torch import nn


def make():
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 10))


class WithFeatures(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = make()

    def forward(self, x):
        return self.network(x), x.flatten(1)


def with_features():
    return WithFeatures()


def data():
    file = np.load("raw.npz")
    return torch.from_numpy(file["x"]), torch.from_numpy(file["y"])
"""


def network() -> nn.Module:
    """The module that `my_model.py` makes."""
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 10))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """What a user has: code, weights trained on normalised digits, a folder of PNG images, and arrays."""
    place = tmp_path_factory.mktemp("user")
    (place / "my_model.py").write_text(CODE)
    train, test = load_data("digits", split="train"), load_data("digits", split="test")
    torch.manual_seed(0)
    module = network()
    optimiser = torch.optim.Adam(module.parameters(), 5e-3)
    for _ in range(12):
        for part in torch.randperm(len(train.x)).split(50):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module((train.x[part] - MEAN) / STD), train.y[part]).backward()
            optimiser.step()
    weights = module.state_dict()
    nested = {f"module.{name}": value for name, value in weights.items()}
    torch.save({"epoch": 12, "state_dict": nested, "optimizer": optimiser.state_dict()}, place / "weights.pt")
    torch.save({f"network.{name}": value for name, value in weights.items()}, place / "features.pt")
    for number, (x, y) in enumerate(zip(test.x, test.y.tolist(), strict=True)):
        folder = place / "images" / f"digit {y}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * x[0]).round().byte().numpy()).save(folder / f"{number:03d}.png")
    x, y = test.x.numpy(), test.y.numpy()
    np.savez(place / "raw.npz", x=x, y=y)
    np.savez(place / "unit.npz", x=x, y=y, bounds=np.array([0.0, 1.0]))
    np.savez(place / "signed.npz", x=2 * x - 1, y=y, bounds=np.array([-1.0, 1.0]))
    return place


@pytest.fixture(autouse=True)
def there(place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small problems are faster on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def accuracy(done: Done) -> float:
    found = re.search(r"clean accuracy ([\d.]+)%", done.out)
    assert found is not None
    return float(found[1])


def medians(run: str) -> list[float]:
    return pd.read_csv(f"{run}/tables/minimal_distance_l2.csv")["estimate"].tolist()


def test_the_command_of_the_readme():
    """Weights nested under 'state_dict' with the prefix 'module.', normalisation in front, a folder of images."""
    (line,) = re.findall(r"^robustode (eval .*my_model\.py.*)$", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    done = works(line)
    assert accuracy(done) > 90
    assert "took the state dict under 'state_dict'; took the prefix 'module.' off 4 names" in done.out
    assert "Data: 50 random images of folder:images, class-stratified, seed 0 (n = 50)." in done.out
    for name in ("fgsm-linf", "pgd-foolbox-l2", "sensitivity-l2", "worst case of all attacks"):
        assert name in done.out
    assert Path("runs/weights-folder_images-standard/report.html").is_file()
    verify = "verify runs/weights-folder_images-standard --model weights.pt --arch python:my_model.py:make"
    assert "stored adversarials hold" in works(f"{verify} --mean {MEAN} --std {STD}").out


ARCH = "--model weights.pt --arch python:my_model.py:make"
NORMALISED = f"{ARCH} --mean {MEAN} --std {STD}"
FAST = "--attacks sensitivity --norm l2 --limit 50"


def test_distances_do_not_depend_on_where_the_data_come_from():
    """The same images as arrays, by a factory and as an .npz; ε and distances are in raw-input units."""
    works(f"eval {NORMALISED} {FAST} --data unit.npz --out npz")
    works(f"eval {NORMALISED} {FAST} --data raw.npz --bounds 0,1 --out raw")
    works(f"eval {NORMALISED} {FAST} --data python:my_model.py:data --bounds 0,1 --out factory")
    assert medians("npz")[0] > 0.1
    assert medians("raw") == medians("factory") == medians("npz")


def test_bounds_come_with_the_data():
    """In [-1, 1] every distance is twice that in [0, 1], if mean and std move along."""
    works(f"eval {NORMALISED} {FAST} --data unit.npz --out zero-one")
    works(f"eval {ARCH} --mean {2 * MEAN - 1} --std {2 * STD} {FAST} --data signed.npz --out signed")
    assert medians("signed") == pytest.approx([2 * median for median in medians("zero-one")], rel=1e-3)


def test_an_output_that_is_a_tuple():
    model = f"--model features.pt --arch python:my_model.py:with_features --mean {MEAN} --std {STD}"
    line = f"eval {model} {FAST} --data unit.npz --out tuple"
    message = refused(line)
    assert "got tuple (0: tensor (1, 10), 1: tensor (1, 64))" in message
    assert "Choose with --output: 0" in message
    works(f"{line} --output 0")
    works(f"eval {NORMALISED} {FAST} --data unit.npz --out alone")
    assert medians("tuple") == medians("alone")


def test_generate_and_uncertainty_take_the_same_options():
    works(f"generate {NORMALISED} --data folder:images --attack sensitivity-l2 --limit 30 --out made")
    line = f"eval {NORMALISED} --data made --attacks none --allow-low-accuracy"
    assert accuracy(works(line)) == 0
    made = works(f"uncertainty {NORMALISED} --data folder:images --limit 30 --draws 50 --sigma 0.01 --json").json
    assert made["tables"]["noise_accuracy"][0]["measured"] > 0.9


@pytest.mark.parametrize(
    ("line", "phrases"),
    [
        ("eval --model weights.pt --data folder:images", ["expected a RobustODE checkpoint", "--arch"]),
        (f"eval {NORMALISED} --limit 50", ["no data given", "--data"]),
        (f"eval {NORMALISED} --data raw.npz", ["bounds", "--bounds LO,HI"]),
        (f"eval {NORMALISED} --data raw.npz --bounds 0,0.5", ["[0, 0.5]", "samples outside"]),
        (f"eval {ARCH} --normalise cifar10 --data folder:images", ["got 3 values"]),
        (f"eval {NORMALISED} --data folder:image", ["no such folder"]),
        (f"eval {NORMALISED} --data folder:images --classes 12", ["expected 12 classes, got 10 logits"]),
        ("eval --model features.pt --arch python:my_model.py:make --data folder:images", ["network.0.weight"]),
    ],
)
def test_refused(line, phrases):
    message = refused(line)
    for phrase in phrases:
        assert phrase in message


def test_a_wrong_normalisation_is_noticed():
    """Mean and standard deviation of pixels in 0..255, for inputs in [0, 1]: the accuracy falls to chance."""
    done = robustode(f"eval {ARCH} --mean {255 * MEAN} --std {255 * STD} --data folder:images --limit 60 --out wrong")
    assert done.code == 2
    assert not Path("wrong").exists()
    assert "no better than chance" in done.err
    assert "a missing or doubled normalisation (--mean/--std, --normalise)" in done.err
