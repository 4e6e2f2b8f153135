"""How sensitivity travels through the depth of a run's sNODEs: `depth.parquet`, which the report draws."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from robustode.files import atomic
from robustode.models.base import Classifier
from robustode.models.snode import SNODE
from robustode.sensitivity.maps import maps

FILE = "depth.parquet"
COLUMNS = ("model", "quantity", "depth", "median", "lo", "hi", "n")
GROWTH, REACH = "growth", "reach"
_SAMPLES = 64
_QUARTILES = (0.5, 0.25, 0.75)


def along_depth_of(label: str, model: Classifier, x: Tensor, y: Tensor) -> pd.DataFrame:
    """Return median and quartiles over samples of how far sensitivity has come at every depth t of an sNODE.

    Two quantities, both without unit: `growth` = ‖ξ(t)‖ / ‖ξ(0)‖, where ξ solves the sensitivity problem from the
    direction that lowers the margin fastest; `reach` = ‖λ(t)‖ / ‖λ(T)‖, where λ solves the adjoint problem of the
    margin.

    Args:
        label: the model's, for the column `model`.
        model: no rows for anything but an sNODE on a fixed grid.
        x, y: (n, *input_shape), (n,): correctly classified samples, of which the first 64 are followed.

    Returns:
        Columns `COLUMNS`, a row for each quantity and depth.

    Source: arXiv 2205.13933, sensitivity and adjoint problem.
    """
    if not isinstance(model, SNODE) or model.solver is not None or not len(y):
        return pd.DataFrame(columns=list(COLUMNS))
    along = maps(model, x[:_SAMPLES], y[:_SAMPLES]).along
    if along is None:
        return pd.DataFrame(columns=list(COLUMNS))
    ratios = {
        GROWTH: along.tangent / along.tangent[:, :1],
        REACH: along.adjoint / along.adjoint[:, -1:],
    }
    parts = []
    for quantity, ratio in ratios.items():
        finite = ratio.double().cpu()
        finite = finite[torch.isfinite(finite).all(1)]  # a saturated sample has no gradient to follow
        if len(finite):
            median, lo, hi = torch.quantile(finite, torch.tensor(_QUARTILES, dtype=torch.float64), dim=0).numpy()
            columns = {"depth": along.depth.numpy(), "median": median, "lo": lo, "hi": hi}
            parts.append(pd.DataFrame({"model": label, "quantity": quantity, **columns, "n": len(finite)}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))


def write_depth(parts: Iterable[pd.DataFrame], out: Path) -> None:
    """Write `depth.parquet` into a run directory, atomically; nothing if no model has a depth to follow."""
    kept = [part for part in parts if len(part)]
    if kept:
        with atomic(out / FILE) as temporary:
            pd.concat(kept, ignore_index=True).to_parquet(temporary, index=False)


def read_depth(path: Path) -> pd.DataFrame | None:
    """Return `depth.parquet` of a run directory; None if there is none."""
    return pd.read_parquet(path / FILE) if (path / FILE).is_file() else None
