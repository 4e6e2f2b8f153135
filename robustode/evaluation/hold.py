"""One process at a time in a run directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robustode.errors import RunError

try:
    import fcntl
except ImportError:  # Windows has no such lock
    fcntl = None


@contextmanager
def hold(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Keep other processes out of a run directory while the block runs.

    The directory itself is locked, so nothing is left in it, and a process that is killed holds nothing. Where a file
    system or Windows cannot lock a directory, nothing is kept out.

    Args:
        shared: keep out only those who do not share, as the parts of a run do with each other.

    Raises:
        RunError: another process holds it.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            fix = "Wait until it has ended, or choose another --out."
            got = "another process that is at work in it"
            raise RunError(f"output directory '{folder}'", expected="it to be free", got=got, fix=fix) from None
        except OSError:
            pass
        yield
    finally:
        os.close(handle)
