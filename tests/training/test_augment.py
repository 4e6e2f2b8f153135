"""Flips and shifts of images: exactly those that there are, with equal shares, and the same ones on a resume."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.nn import functional

from robustode.errors import TrainingError
from robustode.models.resnet import ResNet
from robustode.training import SGDConfig, fit
from robustode.training.augment import flipped_and_shifted
from tests.training.problems import data

SHIFT = 1


def moved(x, flip, down, right):
    """One image (channels, height, width), flipped and then cut out of a frame of the fill value −1."""
    image = x.flip(-1) if flip else x
    height, width = x.shape[1:]
    framed = functional.pad(image, (SHIFT,) * 4, value=-1.0)
    return framed[:, down : down + height, right : right + width]


def test_every_image_is_one_of_its_eighteen_and_all_are_as_likely():
    x = torch.rand(1, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    n = 9000
    out = flipped_and_shifted(x.expand(n, -1, -1, -1), SHIFT, -1.0, torch.Generator().manual_seed(1))
    assert out.shape == (n, 2, 4, 5)
    # a flipped image is looked up in the frame from the right, so that it moves the other way
    all_ = {(f, d, r): moved(x[0], f, d, r) for f in (False, True) for d in range(3) for r in range(3)}
    counts = Counter()
    for key, image in all_.items():
        counts[key] = int((out == image).flatten(1).all(1).sum())
    assert sum(counts.values()) == n
    expected, sd = n / 18, (n / 18 * (1 - 1 / 18)) ** 0.5
    assert all(abs(count - expected) < 5 * sd for count in counts.values()), counts


def test_a_shift_of_none_only_flips():
    x = torch.rand(40, 1, 3, 3)
    out = flipped_and_shifted(x, 0, 0.0, torch.Generator().manual_seed(0))
    flipped = (out == x.flip(-1)).flatten(1).all(1)
    assert (flipped | (out == x).flatten(1).all(1)).all()
    assert 5 < int(flipped.sum()) < 35


def test_training_sees_other_images_and_the_same_ones_again():
    source, config = data(shape=(1, 6, 6)), SGDConfig(epochs=2, batch=20, learning_rate=0.05)

    def weights(**changes):
        model = ResNet(input_shape=(1, 6, 6), classes=source.classes, width=2, bounds=source.bounds)
        fit(model, source, recipe=config.replace(**changes), seed=3)
        return torch.cat([value.flatten().double() for value in model.state_dict().values()])

    assert torch.equal(weights(augment=1), weights(augment=1))
    assert not torch.equal(weights(augment=1), weights())


def test_only_images_can_be_moved():
    with pytest.raises(TrainingError, match="augment: expected a whole number ≥ 0, got -1"):
        SGDConfig(augment=-1)
    source = data(shape=(12,))
    model = torch.nn.Linear(12, source.classes)
    model.input_shape, model.bounds, model.classes = (12,), source.bounds, source.classes
    with pytest.raises(TrainingError, match=r"augment: expected images .* got inputs of shape \(12,\). Leave augment"):
        SGDConfig(augment=2).trainer(model, 10)
