"""Full float32 arithmetic for what is judged, whatever is allowed for what is searched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply float32 tensors in float32: no TF32 on a GPU (the default of convolutions), no bfloat16 on a CPU.

    What was set before holds again afterwards, so that a search may use faster products
    (`torch.set_float32_matmul_precision("high")`) and its points are judged without them. The two older settings are
    used as far as they go: torch refuses to read them where they disagree with the newer ones, which a model may do.
    """
    with _older(), _newer():
        yield


@contextmanager
def tf32() -> Iterator[None]:
    """Let a GPU round the factors of float32 products and convolutions to TF32 (10 bits of mantissa); sums stay
    float32.

    Nothing changes on a CPU, and what was set before holds again afterwards. Where a model has set the newer settings
    apart from the older, they stay as they are.
    """
    cudnn: Any = torch.backends.cudnn
    products, convolutions = _read(torch.get_float32_matmul_precision), _read(lambda: cudnn.allow_tf32)
    try:
        if products is not None:
            torch.set_float32_matmul_precision("high")
        if convolutions is not None:
            cudnn.allow_tf32 = True
        yield
    finally:
        if products is not None:
            torch.set_float32_matmul_precision(products)
        if convolutions is not None:
            cudnn.allow_tf32 = convolutions


def _read(setting: Callable[[], Any]) -> Any:
    """Return one of the older settings; None where the newer ones were set apart, which torch refuses to answer for."""
    try:
        return setting()
    except RuntimeError:
        return None


@contextmanager
def _older() -> Iterator[None]:
    """float32_matmul_precision and cudnn.allow_tf32."""
    cudnn: Any = torch.backends.cudnn
    products, convolutions = _read(torch.get_float32_matmul_precision), _read(lambda: cudnn.allow_tf32)
    lower = products not in (None, "highest")
    try:
        if lower:
            torch.set_float32_matmul_precision("highest")
        if convolutions:
            cudnn.allow_tf32 = False
        yield
    finally:
        if lower:
            torch.set_float32_matmul_precision(products)
        if convolutions:
            cudnn.allow_tf32 = True


@contextmanager
def _newer() -> Iterator[None]:
    """The fp32_precision of each backend and operator (torch 2.9), where it still allows less."""
    backends: Any = torch.backends
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    names = ("matmul", "conv", "rnn")
    places = [backends.cuda.matmul, *(getattr(one, name, None) for one in (cudnn, mkldnn) for name in names)]
    values = [(place, getattr(place, "fp32_precision", "none")) for place in places]
    lower = [(place, value) for place, value in values if value not in ("none", "ieee")]
    try:
        for place, _ in lower:
            place.fp32_precision = "ieee"
        yield
    finally:
        for place, value in lower:
            place.fp32_precision = value
