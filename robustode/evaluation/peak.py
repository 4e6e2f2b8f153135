"""The largest memory that a process has had."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Return the largest resident memory of this process.

    Linux counts it anew for each program in /proc; in getrusage a child starts from the peak of its parent.
    """
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text(encoding="ascii"))
    except OSError:
        found = None
    if found is not None:
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
