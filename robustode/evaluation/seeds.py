"""Seeds that follow from what is drawn, so that neither order nor place of the work matters."""

from __future__ import annotations

import hashlib
from typing import Any


def seed_of(*parts: Any) -> int:
    """Return a 63-bit seed that depends on all of `parts`."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
