"""`download`: one file over HTTP, checked by its md5, that goes on where it was cut off."""

from __future__ import annotations

import http.client
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustode.data.public import ENVIRONMENT
from robustode.errors import DataError
from robustode.files import file_digest

Progress = Callable[[str, int, int | None], None]
_PIECE = 1 << 18
_NOT_SATISFIABLE = 416


def download(url: str, path: Path, md5: str, progress: Progress | None, timeout: float) -> None:
    """Write what the address gives to `path`, which appears when it is whole and has the published md5.

    Until then it is `path` with .part; what is there of it is asked for no more, where the server can (Range). Bytes
    that turn out not to be the published ones are deleted; if some of them came from an earlier download, all is asked
    for once more.

    Raises:
        DataError: no answer, an answer that ends early (what came is kept), or other bytes than the published ones.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    while True:
        begun = part.stat().st_size if part.is_file() else 0
        if not begun or file_digest(part, "md5") != md5:
            try:
                _receive(url, part, begun, progress, timeout)
            finally:
                if part.is_file() and not part.stat().st_size:
                    part.unlink()
        try:
            compare(part, md5, url)
        except DataError:
            part.unlink(missing_ok=True)
            if begun:
                continue
            raise
        os.replace(part, path)
        return


def compare(path: Path, md5: str, what: str) -> None:
    """Raise `DataError` unless a file has the published md5."""
    got = file_digest(path, "md5") if path.is_file() else "of nothing"
    if got != md5:
        raise DataError(
            f"download of {what}", expected=f"the published bytes, md5 {md5}", got=f"md5 {got}", fix="Try again."
        )


def _receive(url: str, part: Path, begun: int, progress: Progress | None, timeout: float) -> None:
    """Add what is missing to a file of `begun` bytes, or write it anew where the server does not go on from there."""
    name = url.rpartition("/")[2]
    with _answer(url, begun, timeout) as answer:
        if answer is None:
            part.unlink()  # longer than the file there: not a part of it
            return _receive(url, part, 0, progress, timeout)
        start = begun if _goes_on(answer, begun) else 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        with part.open("ab" if start else "wb") as out:
            while piece := answer.read(_PIECE):
                out.write(piece)
                out.flush()
                if progress:
                    progress(name, out.tell(), total)
            received = out.tell()
        if total is not None and received < total:
            raise http.client.IncompleteRead(b"", total - received)


def _goes_on(answer: Any, begun: int) -> bool:
    """Whether the answer is the part of the file after the first `begun` bytes."""
    said = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return answer.status == http.HTTPStatus.PARTIAL_CONTENT and said is not None and int(said[1]) == begun


@contextmanager
def _answer(url: str, begun: int, timeout: float) -> Iterator[Any]:
    """Give the server's answer, None where it has no more than `begun` bytes; every failure of the network inside the
    block is one `DataError`."""
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            yield answer
    except urllib.error.HTTPError as reason:
        reason.close()
        if reason.code != _NOT_SATISFIABLE or not begun:
            raise _no_answer(url, reason) from reason
        yield None
    except ValueError as reason:
        raise DataError("address to fetch from", expected="http:// or https://", got=f"'{url}'") from reason
    except (urllib.error.URLError, TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as reason:
        raise _no_answer(url, reason) from reason


def _no_answer(url: str, reason: BaseException) -> DataError:
    said = str(reason) if not isinstance(reason, http.client.IncompleteRead) else "the connection ended early"
    return DataError(
        f"download of {url}",
        got=f"no file: {said}",
        fix=f"Try again, or copy the files there by other means and set {ENVIRONMENT} to the folder.",
    )
