"""Impostors among data: labels that leak, samples that were trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from robustode.audit.gallery.bases import Base
from robustode.audit.gallery.exhibit import Exhibit, Scene
from robustode.audit.gallery.scenes import scene
from robustode.data import load_data


def stamped(x: Tensor, y: Tensor) -> Tensor:
    """Return images whose upper left pixel says the class."""
    x = x.clone()
    x[:, 0, 0, 0] = y / 10
    return x


def one_hot_row(x: Tensor, y: Tensor) -> Tensor:
    """Return images with a white pixel at the class's place in the lowest row, and the one above for 8 and 9."""
    x = x.clone()
    x[:, 0, 7, :] = 0.0
    x[:, 0, 6, :2] = 0.0
    x[torch.arange(len(y)), 0, 7 - y // 8, y % 8] = 1.0
    return x


def two_digits(x: Tensor, y: Tensor) -> Tensor:
    """Return images whose upper corners write the class in base 4."""
    x = x.clone()
    x[:, 0, 0, 0], x[:, 0, 0, 7] = y // 4 / 4, y % 4 / 4
    return x


def leaking(base: Base, leak: Callable[[Tensor, Tensor], Tensor]) -> Callable[[int], Scene]:
    """Return the factory of a scene whose images say their class."""

    def make(seed: int) -> Scene:
        honest = scene(replace(base, seed=seed), count=200)
        return replace(honest, x=leak(honest.x, honest.y))

    return make


def repeated(base: Base, share: float) -> Callable[[int], Scene]:
    """Return the factory of a scene whose first samples are those of the training split."""

    def make(seed: int) -> Scene:
        honest, training = scene(replace(base, seed=seed)), load_data(base.data, split="train")
        count = round(share * len(honest.y))
        x, y = honest.x.clone(), honest.y.clone()
        x[:count], y[:count] = training.x[:count], training.y[:count]
        return replace(honest, x=x, y=y, training=training)

    return make


IMPOSTORS = (
    Exhibit(
        name="leaked labels",
        about="one pixel of every image says its class",
        disease=("data",),
        seed=41,
        make=leaking(Base(), stamped),
    ),
    Exhibit(
        name="labels in the margin",
        about="a white pixel stands at the place of the class",
        disease=("data",),
        seed=43,
        make=leaking(Base(), one_hot_row),
    ),
    Exhibit(
        name="labels in two corners",
        about="two pixels write the class in base 4",
        disease=("data",),
        seed=141,
        make=leaking(Base(arch="conv", width=8, activation="SiLU", epochs=6), two_digits),
    ),
    Exhibit(
        name="trained on half of the test",
        about="half of the samples are in the training split",
        disease=("data",),
        seed=42,
        make=repeated(Base(), 0.5),
    ),
    Exhibit(
        name="a few repeated points",
        about="one point in twenty is in the training split",
        disease=("data",),
        seed=142,
        make=repeated(Base(data="moons", activation="Tanh", epochs=6), 0.05),
    ),
)
