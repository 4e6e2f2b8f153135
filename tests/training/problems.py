"""Small data sets and models to train."""

from __future__ import annotations

import torch

from robustode.data.dataset import Data
from robustode.models.snode import SNODE


def data(n=60, shape=(6,), classes=3, seed=0, **changes) -> Data:
    """Clusters around distinct centres inside [0, 1]."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    centres = 0.2 + 0.6 * torch.rand(classes, *shape, generator=torch.Generator().manual_seed(99))
    x = (centres[y] + 0.06 * torch.randn(n, *shape, generator=g)).clamp(0, 1)
    values = {"name": "clusters", "split": "train", "x": x, "y": y, "index": torch.arange(n)}
    return Data(**{**values, "bounds": (0.0, 1.0), "classes": classes, "caption": "clusters"} | changes)


def batch(n=8, features=6, classes=3, seed=0) -> tuple[torch.Tensor, torch.Tensor]:
    """Final states and labels."""
    g = torch.Generator().manual_seed(seed)
    state = torch.randn(n, features, generator=g, dtype=torch.float64)
    return state, torch.randint(classes, (n,), generator=g)


def snode(**config) -> SNODE:
    """A small sNODE in float64."""
    values = {"input_shape": (6,), "classes": 3, "horizon": 2.0, "steps": 8, "knots": 4} | config
    return SNODE(**values).double()
