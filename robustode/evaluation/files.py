"""Files that are either whole or not there: written beside their place and moved into it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; move it there when the block ends, delete it if it raised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomic(text: str, path: Path) -> Path:
    """Write UTF-8 text with line ends as they are, atomically, and return the path."""
    with atomic(path) as temporary:
        temporary.write_bytes(text.encode())
    return path


def write_json_atomic(value: Any, path: Path) -> Path:
    """Write a JSON document (two spaces, keys in the order given, no NaN) atomically and return its path."""
    return write_text_atomic(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
