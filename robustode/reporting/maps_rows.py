"""Sensitivity maps as rows: what is said of each sample, and the sizes at every depth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from robustode.sensitivity import SensitivityMap


def sample_rows(found: SensitivityMap, samples: Sequence[int]) -> pd.DataFrame:
    """Return one row for each sample.

    Columns: sample, label, predicted, other (the class of the margin), margin, distance (linear), and, of models with
    a depth grid (else missing): growth, ‖ξ(T)‖ / ‖ξ(0)‖; steepest, the depth of the middle of the step in which ln ‖ξ‖
    rises most; critical, the depth at which ‖λ(t)‖ is largest.
    """
    frame = pd.DataFrame(
        {
            "sample": list(samples),
            "label": found.own.cpu().numpy(),
            "predicted": found.logits.argmax(1).cpu().numpy(),
            "other": found.other.cpu().numpy(),
            "margin": found.margin.cpu().double().numpy(),
            "distance": found.distance.cpu().double().numpy(),
        }
    )
    if found.along is not None:
        depth = found.along.depth.numpy()
        tangent, adjoint = (part.cpu().double().numpy() for part in (found.along.tangent, found.along.adjoint))
        with np.errstate(divide="ignore", invalid="ignore"):
            frame["growth"] = tangent[:, -1] / tangent[:, 0]
            rise = np.diff(np.log(tangent), axis=1)
        rise = np.where(np.isfinite(rise), rise, -np.inf)
        middle = ((depth[1:] + depth[:-1]) / 2)[rise.argmax(1)]
        frame["steepest"] = np.where(rise.max(1) > -np.inf, middle, np.nan)
        frame["critical"] = depth[adjoint.argmax(1)]
    return frame


def depth_rows(found: SensitivityMap, samples: Sequence[int]) -> pd.DataFrame:
    """Return one row for each sample and depth: sample, label, other, margin, distance, depth, state, tangent, adjoint,
    pairing, as in `AlongDepth`; for a model without a depth grid one row for each sample, those of depth missing.
    """
    frame = sample_rows(found, samples)[["sample", "label", "other", "margin", "distance"]]
    sizes = ("state", "tangent", "adjoint", "pairing")
    if found.along is None:
        return frame.assign(depth=np.nan, **dict.fromkeys(sizes, np.nan))
    depth = found.along.depth.numpy()
    longer = frame.loc[frame.index.repeat(len(depth))].reset_index(drop=True)
    longer["depth"] = np.tile(depth, len(frame))
    for name in sizes:
        longer[name] = getattr(found.along, name).cpu().double().numpy().ravel()
    return longer
