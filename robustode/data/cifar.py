"""The batches of CIFAR-10: Python 2 pickles, read without letting them run anything."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from robustode.errors import DataError

_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]


def _dtype(kind: Any, align: object = False, copy: object = False) -> np.dtype:
    """`numpy.dtype` for old pickles, which give 0 and 1 where numpy now wants booleans."""
    return np.dtype(kind, align=bool(align), copy=bool(copy))


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
}


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that knows numpy arrays and the built-in containers, and imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"'{module}.{name}' is not allowed") from None


def read_batch(content: bytes, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (n, 3, 32, 32) uint8 and labels (n,) int64 of one batch.

    Raises:
        DataError: not such a batch, or a pickle that names anything but arrays.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, and its data page.
    """
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        images, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"], dtype=np.int64)
    except Exception as reason:  # a damaged pickle may raise anything
        raise DataError(what, expected="a CIFAR-10 batch", got=f"{type(reason).__name__}: {reason}") from reason
    if images.dtype != np.uint8 or images.shape != (len(labels), 3072):
        raise DataError(what, expected="uint8 of shape (n, 3072)", got=f"{images.dtype} {images.shape}")
    return images.reshape(-1, 3, 32, 32), labels
