"""Calibration: how far predicted probabilities of a right answer are from measured ones."""

from __future__ import annotations

import numpy as np


def expected_calibration_error(predicted: np.ndarray, measured: np.ndarray, *, bins: int = 10) -> float:
    """Return Σ_b n_b / n |mean predicted − mean measured| over equal bins of the predicted probability.

    Args:
        predicted, measured: (n,) probabilities of a right answer, n ≥ 1.
        bins: number of bins of [0, 1].

    Source: Naeini, Cooper, Hauskrecht 2015, Obtaining well calibrated probabilities using Bayesian binning.
    """
    return sum(
        len(p) / len(predicted) * abs(float(p.mean()) - float(q.mean())) for p, q in binned(predicted, measured, bins)
    )


def binned(predicted: np.ndarray, measured: np.ndarray, bins: int = 10) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (predicted, measured) of the samples in each bin of [0, 1] that has any."""
    place = np.minimum((predicted * bins).astype(int), bins - 1)
    return [(predicted[place == k], measured[place == k]) for k in range(bins) if (place == k).any()]
