"""The idx format of MNIST: a magic number (type and number of axes), the sizes of the axes, the bytes."""

from __future__ import annotations

import gzip
import struct
import zlib

import numpy as np

from robustode.errors import DataError


def read_idx(content: bytes, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Return the unsigned bytes of an idx file, gzipped or not, as a read-only array of `shape`.

    Raises:
        DataError: damaged gzip, another magic number, other axes, or fewer or more bytes than they ask for.

    Source: the format notes of LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
    """
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as reason:
            raise DataError(what, expected="a gzip file", got=f"a damaged one: {reason}") from reason
    start = 4 * (1 + len(shape))
    header = struct.unpack(f">{1 + len(shape)}I", content[:start]) if len(content) >= start else ()
    expected = (0x0800 + len(shape), *shape)
    if header != expected or len(content) - start != int(np.prod(shape)):
        raise DataError(
            what,
            expected=f"an idx file with header {expected} and {int(np.prod(shape)):,} bytes",
            got=f"header {header} and {max(len(content) - start, 0):,} bytes",
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
