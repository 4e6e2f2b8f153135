"""Units of a run beside its attacks, on disk until the run ends: their rows and their seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from robustode.files import atomic

Unit = tuple[pd.DataFrame, pd.DataFrame]  # rows, seconds


def keep(path: Path, make: Callable[[], Unit]) -> None:
    """Write rows to `path` and seconds to `seconds_of(path)`, unless they are there."""
    if path.is_file():
        return
    rows, seconds = make()
    with atomic(seconds_of(path)) as temporary:
        seconds.to_parquet(temporary, index=False)
    with atomic(path) as temporary:  # last, so that a unit with rows is whole
        rows.to_parquet(temporary, index=False)


def seconds_of(path: Path) -> Path:
    """Return where the seconds of a unit are."""
    return path.with_suffix(".timings.parquet")


def together(places: Iterable[Path]) -> pd.DataFrame:
    """Return the rows of several units, one after the other."""
    return pd.concat([pd.read_parquet(place) for place in places], ignore_index=True)


def join(places: Iterable[Path], path: Path) -> None:
    """Write the rows of several units into one file, atomically."""
    with atomic(path) as temporary:
        together(places).to_parquet(temporary, index=False)


def read_dtypes(path: Path, dtypes: dict[str, str]) -> pd.DataFrame | None:
    """Return a table of a run directory in its dtypes; None if there is none."""
    return pd.read_parquet(path).astype(dtypes) if path.is_file() else None
