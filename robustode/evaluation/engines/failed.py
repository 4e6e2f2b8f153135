"""The error at the end of a run of which units failed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from robustode.errors import RunError

SHOWN = 3  # units that an error names


class UnitsFailed(RunError):
    """Units could not be computed, whatever their attacks; the others are kept."""


def units_failed(failed: Mapping[str, str], out: Path, total: int) -> UnitsFailed:
    """Return the error that names units, each with what it failed of.

    Args:
        failed: {unit: why}.
        out: directory of the run.
        total: units of the run, or of its part.
    """
    lines = [f"{unit}: {why}" for unit, why in failed.items()]
    more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    fix = "The others are kept: go on with the same command and --resume."
    got = "; ".join(lines[:SHOWN]) + more
    return UnitsFailed(f"{len(lines)} of {total} units of run '{out}' failed", got=got, fix=fix)
