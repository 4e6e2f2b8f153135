"""The data sets that have a name: what they are, and the budgets they are evaluated at."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

Budgets = dict[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """A named data set, or a form in which the user's own data can be given.

    Attributes:
        name: what `--data` takes.
        title: its name in captions.
        description: one line.
        shape: shape of one sample; () for a form.
        classes: number of classes; 0 for a form.
        sizes: samples in (train, test); (0, 0) for a form.
        budgets: default radii by norm, in raw-input units; empty for a form.
    """

    name: str
    title: str = ""
    description: str
    shape: tuple[int, ...] = ()
    classes: int = 0
    sizes: tuple[int, int] = (0, 0)
    budgets: Budgets = field(default_factory=dict)


_NAMED = (
    DataInfo(
        name="digits",
        title="digits 8x8",
        description="handwritten digits 8x8 of scikit-learn, embedded, fixed stratified split",
        shape=(1, 8, 8),
        classes=10,
        sizes=(1437, 360),
        budgets={"linf": (0.05, 0.1, 0.2), "l2": (0.25, 0.5, 1.0)},
    ),
    DataInfo(
        name="mnist",
        title="MNIST",
        description="handwritten digits 28x28",
        shape=(1, 28, 28),
        classes=10,
        sizes=(60_000, 10_000),
        budgets={"linf": (0.1, 0.2, 0.3), "l2": (0.5, 1.0, 2.0)},
    ),
    DataInfo(
        name="mnist14",
        title="MNIST 14x14",
        description="MNIST, means of 2x2 pixels",
        shape=(1, 14, 14),
        classes=10,
        sizes=(60_000, 10_000),
        budgets={"linf": (0.02, 0.05, 0.1), "l2": (0.25, 0.5, 1.0)},
    ),
    DataInfo(
        name="fashion-mnist",
        title="Fashion-MNIST",
        description="articles of clothing 28x28, grey",
        shape=(1, 28, 28),
        classes=10,
        sizes=(60_000, 10_000),
        budgets={"linf": (0.02, 0.05, 0.1), "l2": (0.25, 0.5, 1.0)},
    ),
    DataInfo(
        name="fashion-mnist14",
        title="Fashion-MNIST 14x14",
        description="Fashion-MNIST, means of 2x2 pixels",
        shape=(1, 14, 14),
        classes=10,
        sizes=(60_000, 10_000),
        budgets={"linf": (0.01, 0.02, 0.05), "l2": (0.1, 0.25, 0.5)},
    ),
    DataInfo(
        name="cifar10",
        title="CIFAR-10",
        description="colour photographs 32x32 of animals and vehicles",
        shape=(3, 32, 32),
        classes=10,
        sizes=(50_000, 10_000),
        budgets={"linf": (2 / 255, 4 / 255, 8 / 255), "l2": (0.25, 0.5, 1.0)},
    ),
    DataInfo(
        name="moons",
        title="two moons",
        description="points of two interleaved half circles in the unit square",
        shape=(2,),
        classes=2,
        sizes=(2000, 1000),
        budgets={"linf": (0.02, 0.05, 0.1), "l2": (0.02, 0.05, 0.1)},
    ),
    DataInfo(
        name="spirals",
        title="two spirals",
        description="points of two interleaved spiral arms in the unit square",
        shape=(2,),
        classes=2,
        sizes=(2000, 1000),
        budgets={"linf": (0.02, 0.05, 0.1), "l2": (0.02, 0.05, 0.1)},
    ),
)

_FORMS = (
    DataInfo(name="FILE.npz", description="arrays x (n, ...) and y (n,), optionally index and bounds"),
    DataInfo(name="FILE.parquet", description="columns x (lists of numbers, one length) and y, optionally index"),
    DataInfo(name="folder:PATH", description="one subfolder of images per class, all of one size and mode"),
    DataInfo(name="DIR", description="a data set written by `robustode generate`, or one of its splits"),
    DataInfo(
        name="python:FILE.py:factory", description="your function that returns a torch Dataset, a DataLoader or (x, y)"
    ),
)

CATALOGUE: dict[str, DataInfo] = {info.name: info for info in _NAMED}
DEFAULT_BUDGETS: dict[str, Budgets] = {info.name: info.budgets for info in _NAMED}


def list_data() -> tuple[DataInfo, ...]:
    """Return every named data set, then the forms in which the user's own data can be given."""
    return _NAMED + _FORMS


def default_budgets(data_name: str, bounds: tuple[float, float], dimension: int) -> Budgets:
    """Return the radii by norm at which a data source is evaluated when the user gives none.

    A named source has its own; for any other ε_∞ = 0.01, 0.02, 0.05, 0.1 times (hi − lo) and ε_2 = ε_∞ √d / 2.

    Args:
        data_name: `Data.name`.
        bounds: (lo, hi) of the model.
        dimension: number of coordinates d of one sample.
    """
    if data_name in DEFAULT_BUDGETS:
        return dict(DEFAULT_BUDGETS[data_name])
    linf = tuple(fraction * (bounds[1] - bounds[0]) for fraction in (0.01, 0.02, 0.05, 0.1))
    return {"linf": linf, "l2": tuple(eps * math.sqrt(dimension) / 2 for eps in linf)}
