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
from robustode.uncertainty import propagate

FILE = "depth.parquet"
COLUMNS = ("model", "quantity", "depth", "median", "lo", "hi", "n")
GROWTH, REACH, SPREAD = "growth", "reach", "spread"
_SAMPLES = 64
_SPREAD_SAMPLES = 16  # it takes (N + 1) classes cotangents a sample
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
    parts = [_quartiles(label, quantity, along.depth, ratio) for quantity, ratio in ratios.items()]
    kept = [part for part in parts if len(part)]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=list(COLUMNS))


def spread_along_depth_of(label: str, model: Classifier, x: Tensor, sigma: float) -> pd.DataFrame:
    """Return median and quartiles over samples of √tr Cov[z(t)], in logits, at every depth t under input noise σ.

    z(t) are the components of the state that are the logits at the end; the covariance is the linear method's. No rows
    for anything but an sNODE on a fixed grid.

    Args:
        label: the model's, for the column `model`.
        model, x: classifier and samples, (n, *input_shape), of which the first 16 are followed.
        sigma: standard deviation of the noise of the input, in raw-input units.

    Source: arXiv 2205.13933, uncertainty propagation.
    """
    if not isinstance(model, SNODE) or model.solver is not None or not len(x):
        return pd.DataFrame(columns=list(COLUMNS))
    along = propagate(model, x[:_SPREAD_SAMPLES], input_cov=sigma**2, along_depth=True).along
    if along is None:
        return pd.DataFrame(columns=list(COLUMNS))
    size = along.cov.diagonal(dim1=-2, dim2=-1).sum(-1).clamp_min(0).sqrt()
    return _quartiles(label, SPREAD, along.depth, size)


def _quartiles(label: str, quantity: str, depth: Tensor, values: Tensor) -> pd.DataFrame:
    """The rows of one quantity, values (samples, depths), without samples whose values are not finite."""
    finite = values.double().cpu()
    finite = finite[torch.isfinite(finite).all(1)]  # a saturated sample has no gradient to follow
    if not len(finite):
        return pd.DataFrame(columns=list(COLUMNS))
    median, lo, hi = torch.quantile(finite, torch.tensor(_QUARTILES, dtype=torch.float64), dim=0).numpy()
    columns = {"depth": depth.cpu().numpy(), "median": median, "lo": lo, "hi": hi}
    return pd.DataFrame({"model": label, "quantity": quantity, **columns, "n": len(finite)})


def write_depth(parts: Iterable[pd.DataFrame], out: Path) -> None:
    """Write `depth.parquet` into a run directory, atomically; nothing if no model has a depth to follow."""
    kept = [part for part in parts if len(part)]
    if kept:
        with atomic(out / FILE) as temporary:
            pd.concat(kept, ignore_index=True).to_parquet(temporary, index=False)


def read_depth(path: Path) -> pd.DataFrame | None:
    """Return `depth.parquet` of a run directory; None if there is none."""
    return pd.read_parquet(path / FILE) if (path / FILE).is_file() else None
