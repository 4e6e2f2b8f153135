"""Files that are either whole or absent, and their digests."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from robustode.errors import RobustODEError


@contextmanager
def whole_or_absent(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it takes the place of `path`, on an error it is removed."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON, whole or not at all; NaN and infinity are refused, as JSON has none."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    with whole_or_absent(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, error: type[RobustODEError]) -> dict[str, Any]:
    """Return the object in a JSON file; raise `error`, naming the file, if it cannot be read or is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        raise error(f"file '{path}'", expected="a JSON object", got=f"an error: {reason}") from reason
    if not isinstance(content, dict):
        raise error(f"file '{path}'", expected="a JSON object", got=type(content).__name__)
    return content


def digest_of(path: Path, kind: str = "sha256") -> str:
    """Return the hexadecimal digest of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
