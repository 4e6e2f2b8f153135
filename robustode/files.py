"""Files that are either whole or not there: written beside their place and moved into it; and their digests."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustode.errors import RobustODEError

_CANNOT_WRITE = ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EACCES", "EPERM", "ENOTDIR", "EISDIR", "ENAMETOOLONG")


def unwritable(error: BaseException, path: Path | None = None) -> OSError | None:
    """Return an error as one of the file system, with the file's name, if it says that a place cannot be written (a
    full disk, no permission, ...); else None. safetensors has an exception of its own, with the number in its text."""
    found = re.search(r"I/O error: .*\(os error (\d+)\)", str(error))
    if isinstance(error, OSError):
        number = error.errno
    else:
        number = int(found[1]) if found is not None and type(error).__name__ == "SafetensorError" else None
    if number is None or number not in {getattr(errno, name, None) for name in _CANNOT_WRITE}:
        return None
    name = path if path is not None else getattr(error, "filename", None)
    return OSError(number, os.strerror(number), *([str(name)] if name is not None else []))


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; move it there when the block ends, delete it if it raised.

    Missing folders are made. The file gets the permissions of any new file, whatever the writing library gave it.

    Raises:
        OSError: it cannot be written (a full disk, say); names `path`, whatever the writing library raised.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
    except Exception as error:
        if (wrong := unwritable(error, path)) is not None:
            raise wrong from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def half_written(folder: Path) -> Iterator[Path]:
    """Yield the temporary files that `atomic` left below a folder when its process was killed."""
    for file in folder.rglob(".*.tmp"):
        if re.fullmatch(r"\..+\.\d+\.tmp", file.name) and file.is_file():
            yield file


def write_text(text: str, path: Path) -> Path:
    """Write UTF-8 text with line ends as they are, atomically, and return the path."""
    with atomic(path) as temporary:
        temporary.write_bytes(text.encode())
    return path


def write_json(value: Any, path: Path) -> Path:
    """Write a JSON document (two spaces, keys in the order given, no NaN) atomically and return its path."""
    return write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def read_json(path: Path, error: type[RobustODEError]) -> dict[str, Any]:
    """Return the object in a JSON file; raise `error`, naming the file, if it cannot be read or is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        raise error(f"file '{path}'", expected="a JSON object", got=f"an error: {reason}") from reason
    if not isinstance(content, dict):
        raise error(f"file '{path}'", expected="a JSON object", got=type(content).__name__)
    return content


def file_digest(path: Path, kind: str = "sha256") -> str:
    """Return the hexadecimal digest of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
