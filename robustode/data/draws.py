"""Random numbers that stay the same for ever: only raw PCG64 output, whose stream is fixed, never a distribution of
a library, whose algorithm may change between versions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def uniform(n: int, seed: int | Sequence[int]) -> np.ndarray:
    """Return (n,) float64, uniform in [0, 1), multiples of 2⁻⁵³."""
    return (np.random.PCG64(seed).random_raw(n) >> np.uint64(11)) * 2.0**-53


def ranks(n: int, seed: int | Sequence[int]) -> np.ndarray:
    """Return a random permutation of 0 to n − 1 (int64): the rank of each of n draws."""
    out = np.empty(n, dtype=np.int64)
    out[np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable")] = np.arange(n)
    return out
