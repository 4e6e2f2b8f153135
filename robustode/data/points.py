"""The point sets in the unit square: two moons and two spirals, the same for ever, with a gap between the classes.

The noise is uniform in a disc, so that the classes never meet and a perfect robust classifier exists for small budgets.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from robustode.data.catalogue import CATALOGUE
from robustode.data.draws import uniform
from robustode.data.source import Source

_SEEDS = {"train": 11, "test": 12}
_TURNS, _INNER = 1.25, 0.2  # of a spiral arm; the outer radius is 1


def moons(split: str) -> Source:
    """Two half circles of radius 1, centred at (0, 0) and (1, ½), with noise in a disc of radius 0.15."""
    return _points("moons", split, _moon, noise=0.15, low=(-1.0, -0.5), high=(2.0, 1.0))


def spirals(split: str) -> Source:
    """Two arms of an Archimedean spiral, r from 0.2 to 1 in 1.25 turns, with noise in a disc of radius 0.05."""
    return _points("spirals", split, _arm, noise=0.05, low=(-1.0, -1.0), high=(1.0, 1.0))


def _moon(u: np.ndarray, y: np.ndarray) -> np.ndarray:
    angle, sign = np.pi * u, 1 - 2 * y
    return np.stack([y + sign * np.cos(angle), 0.5 * y + sign * np.sin(angle)], axis=1)


def _arm(u: np.ndarray, y: np.ndarray) -> np.ndarray:
    along = (np.sqrt(_INNER**2 + (1 - _INNER**2) * u) - _INNER) / (1 - _INNER)  # uniform along the arm, nearly
    radius, angle = _INNER + (1 - _INNER) * along, 2 * np.pi * _TURNS * along
    return ((1 - 2 * y) * radius)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _points(
    name: str,
    split: str,
    curve: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    noise: float,
    low: tuple[float, float],
    high: tuple[float, float],
) -> Source:
    """Draw points along two curves, classes in turn, and scale each axis from [low − noise, high + noise] to [0, 1]."""
    info = CATALOGUE[name]
    n = info.sizes[0 if split == "train" else 1]
    y = np.arange(n, dtype=np.int64) % 2
    along, radius, angle = uniform(3 * n, _SEEDS[split]).reshape(3, n)
    offset = (noise * np.sqrt(radius))[:, None] * np.stack(
        [np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle)], axis=1
    )
    least, most = np.array(low) - noise, np.array(high) + noise
    x = torch.from_numpy(((curve(along, y) + offset - least) / (most - least)).astype(np.float32))
    return Source(
        name=name,
        title=info.title,
        y=torch.from_numpy(y),
        read=lambda positions: x if positions is None else x[positions],
        split=split,
        noun="points",
        bounds=(0.0, 1.0),
        classes=2,
    )
