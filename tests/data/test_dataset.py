"""`Data`: valid by construction, a fingerprint of its bytes, shards as views."""

from __future__ import annotations

import dataclasses
import hashlib
import re

import pytest
import torch

from robustode.data import Data, check_bounds
from robustode.errors import DataError


def make(**changes):
    fields = {
        "name": "mine",
        "split": "all",
        "x": torch.linspace(0, 1, 12).reshape(6, 2),
        "y": torch.tensor([0, 1, 2, 0, 1, 2]),
        "index": torch.arange(6),
        "bounds": (0.0, 1.0),
        "classes": None,
        "caption": "all 6 points of mine",
    }
    return Data(**{**fields, **changes})


def test_classes_default_to_the_largest_label_plus_one():
    assert make().classes == 3
    assert make(classes=7).classes == 7


def test_fingerprint_covers_every_byte_and_the_shape():
    data = make()
    expected = hashlib.sha256(b"(6, 2)")
    for tensor in (data.x, data.y, data.index):
        expected.update(tensor.numpy().tobytes())
    assert data.fingerprint == expected.hexdigest()
    others = [
        make(x=data.x.flip(0)),
        make(y=data.y.flip(0)),
        make(index=data.index + 1),
        make(x=data.x.reshape(6, 1, 2)),
        data.shard(0, 5),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 6
    assert make(name="other", caption="other").fingerprint == data.fingerprint


def test_shard_is_a_view_with_the_indices_of_the_whole():
    data = make(index=torch.arange(6) * 10)
    part = data.shard(2, 5)
    assert len(part) == 3
    assert part.index.tolist() == [20, 30, 40]
    assert part.x.data_ptr() == data.x[2].data_ptr()
    assert part.classes == data.classes == 3
    assert sum(len(data.shard(k, k + 4)) for k in (0, 4)) == 6


def test_take_finds_samples_by_their_index_in_the_whole():
    data = make(index=torch.arange(6) * 10)
    part = data.take([50, 10, 50])
    assert part.index.tolist() == [50, 10]
    assert torch.equal(part.x, data.x[[5, 1]])
    assert part.y.tolist() == [2, 1]
    assert part.caption == "samples 50, 10 of all 6 points of mine"
    with pytest.raises(DataError, match="expected an index of all 6 points of mine, 0 to 50, got 5, 60"):
        data.take([10, 5, 60])


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().name = "other"


X = torch.linspace(0, 1, 12).reshape(6, 2)
NAN = X.clone()
NAN[2, 1], NAN[4, 0] = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                "x": torch.empty(0, 2),
                "y": torch.empty(0, dtype=torch.int64),
                "index": torch.empty(0, dtype=torch.int64),
            },
            "data 'mine': expected at least one sample, got an empty set, x of shape (0, 2)",
        ),
        (
            {"x": NAN},
            "data 'mine', inputs x: expected finite numbers, got NaN or infinity in 2 samples, first in sample 2 "
            "(counted from 0). Remove or repair them.",
        ),
        ({"x": X.double()}, "inputs x: expected float32 of shape (n, ...) on the CPU, got torch.float64 (6, 2)"),
        ({"x": X[:, 0]}, "inputs x: expected float32 of shape (n, ...) on the CPU, got torch.float32 (6,)"),
        ({"y": torch.arange(5)}, "labels y: expected one for each of the 6 inputs, got 5"),
        ({"index": torch.arange(7)}, "index: expected one for each of the 6 inputs, got 7"),
        ({"y": torch.zeros(6)}, "labels y: expected int64 of shape (n,), got torch.float32 (6,)"),
        ({"y": torch.tensor([0, 1, -1, 0, 1, 2])}, "labels y: expected classes from 0, got -1 to 2"),
        ({"classes": 2}, "labels y: expected classes 0 to 1, got 0 to 2"),
        ({"index": torch.tensor([0, 1, 2, 3, 4, 4])}, "index: expected distinct numbers from 0, got negative or rep"),
        ({"index": torch.arange(6) - 1}, "index: expected distinct numbers from 0, got negative or repeated ones"),
        (
            {"bounds": (0.25, 1.0)},
            "data 'mine': expected inputs inside the bounds [0.25, 1], got inputs from 0 to 1 "
            "(2 of 6 samples outside). Scale the inputs, or give the bounds that the model was trained "
            "with (--bounds LO,HI).",
        ),
        ({"bounds": (1.0, 0.0)}, "bounds: expected two finite numbers LO < HI, got 1, 0"),
        ({"bounds": (0.0, float("inf"))}, "bounds: expected two finite numbers LO < HI, got 0, inf"),
        ({"bounds": "a"}, "bounds: expected two numbers LO,HI, got 'a'"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(DataError, match=re.escape(message)):
        make(**changes)


def test_check_bounds_is_inclusive():
    check_bounds(make(), (0.0, 1.0))
    with pytest.raises(DataError, match=re.escape("[0, 0.999999]")):
        check_bounds(make(bounds=None), (0.0, 0.999999))
