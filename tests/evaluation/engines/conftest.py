"""Fixtures of the tests of the engines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from robustode.evaluation.plan import Plan
from tests.evaluation.engines.hazards import hazardous
from tests.evaluation.runs import contents, run


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Records are compared to the bit: every process has one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def hazards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """A folder whose files say what befalls workers, and a plan with the attack that reads them."""
    folder = tmp_path_factory.mktemp("hazards")
    return folder, hazardous(folder)


@pytest.fixture
def danger(hazards: tuple[Path, Plan]) -> Iterator[tuple[Path, Plan]]:
    """The same, with nothing left of it afterwards."""
    yield hazards
    for file in hazards[0].iterdir():
        if not file.suffix:
            file.unlink()


@pytest.fixture(scope="package")
def whole(hazards: tuple[Path, Plan], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The bytes of the run in one process, undisturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(hazards[1], out)
    return contents(out)
