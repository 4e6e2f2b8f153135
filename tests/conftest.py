"""Fixtures that all tests may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def data_root() -> Path:
    """The folder of the real image sets; tests marked `data` are skipped where there is none."""
    root = os.environ.get("ROBUSTODE_DATA")
    if not root:
        pytest.skip("needs the real image sets: set ROBUSTODE_DATA to their folder")
    return Path(root)
