"""Fixtures that all tests may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `gpu` where there is no CUDA device."""
    if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture
def data_root() -> Path:
    """The folder of the real image sets; tests marked `data` are skipped where there is none."""
    root = os.environ.get("ROBUSTODE_DATA")
    if not root:
        pytest.skip("needs the real image sets: set ROBUSTODE_DATA to their folder")
    return Path(root)
