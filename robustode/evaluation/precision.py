"""Full float32 arithmetic for what is judged, whatever was allowed for what is searched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

FULL = "ieee"


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply float32 tensors in float32: no TF32 on a GPU (the default of convolutions), no bfloat16 on a CPU.

    What was set before holds again afterwards, so that a search may use faster products
    (`torch.set_float32_matmul_precision("high")`) and its points are judged without them.
    """
    places: list[Any] = _places()
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = FULL
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


def _places() -> list[Any]:
    backends: Any = torch.backends
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    return [backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]
