"""`fetch`: download a public image set into torchvision's layout, each file checked before it appears."""

from __future__ import annotations

import http.client
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from robustode.data.catalogue import CATALOGUE
from robustode.data.public import ENVIRONMENT, PUBLIC, PublicSet
from robustode.errors import DataError, unknown
from robustode.files import atomic, file_digest

Progress = Callable[[str, int, int | None], None]
_PIECE = 1 << 18


def fetch(
    name: str, root: str | Path, *, progress: Progress | None = None, url: str | None = None, timeout: float = 60.0
) -> tuple[Path, ...]:
    """Download what is missing or damaged of a public image set and return the paths of all its files.

    Args:
        name: "mnist", "fashion-mnist" (either also with 14) or "cifar10".
        root: the folder to put it in, made if absent; then give it as `root` or set $ROBUSTODE_DATA to it.
        progress: called with (file, bytes so far, bytes in all or None).
        url: base address of a mirror; the official one if None.
        timeout: seconds without an answer after which it gives up.

    Raises:
        DataError: a set that is not downloaded, no connection, no space, or bytes whose md5 is not the published one;
            nothing is kept of a file that failed.
    """
    public = PUBLIC.get(name.removesuffix("14"))
    if public is None:
        if name in CATALOGUE:
            raise DataError(f"data set '{name}'", got="nothing to fetch: it is part of the package")
        raise unknown("data set to fetch", name, PUBLIC, DataError)
    folder = Path(root).expanduser() / public.folder
    base = public.url if url is None else url.rstrip("/") + "/"
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        absent = [file for file, md5 in public.files.items() if not _is_right(folder / file, md5)]
        if absent and public.archive:
            _fetch_archive(public, folder, absent, base, progress, timeout)
        else:
            for file in absent:
                with atomic(folder / file) as temporary:
                    _download(base + file, temporary, public.files[file], progress, timeout)
    except OSError as reason:
        raise DataError(f"folder '{folder}'", got=f"an error on writing: {reason}") from reason
    finally:
        _drop_empty(made)
    return tuple(folder / file for file in public.files)


def _drop_empty(folders: Sequence[Path]) -> None:
    """Remove folders, innermost first, as far as they are empty: a failed download leaves nothing."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _is_right(path: Path, md5: str) -> bool:
    return path.is_file() and file_digest(path, "md5") == md5


def _fetch_archive(
    public: PublicSet, folder: Path, absent: list[str], base: str, progress: Progress | None, timeout: float
) -> None:
    """Download the archive, take the absent files out of it, and delete it."""
    file, md5 = public.archive or ("", "")
    archive = folder / file
    try:
        with atomic(archive) as temporary:
            _download(base + file, temporary, md5, progress, timeout)
        with tarfile.open(archive, "r:gz") as bundle:
            for name in absent:
                member = bundle.extractfile(f"{public.folder}/{name}")
                if member is None:
                    raise KeyError(name)
                with member, atomic(folder / name) as temporary:
                    temporary.write_bytes(member.read())
                    _compare(temporary, public.files[name], f"{file}, member {name}")
    except (KeyError, tarfile.TarError, EOFError, zlib.error) as reason:
        raise DataError(f"archive {base}{file}", expected=f"the files of {public.name}", got=str(reason)) from reason
    finally:
        archive.unlink(missing_ok=True)


def _download(url: str, path: Path, md5: str, progress: Progress | None, timeout: float) -> None:
    """Write what the address gives to `path`, in pieces, and compare its md5."""
    name = url.rpartition("/")[2]
    with path.open("wb") as out:
        for piece, total in _pieces(url, timeout):
            out.write(piece)
            if progress:
                progress(name, out.tell(), total)
    _compare(path, md5, url)


def _pieces(url: str, timeout: float) -> Iterator[tuple[bytes, int | None]]:
    """Give what the address answers in pieces, each with the length of the whole; every failure is one `DataError`."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            length = answer.headers.get("Content-Length")
            total = int(length) if length and length.isdigit() else None
            while True:
                piece = answer.read(_PIECE)
                if not piece:
                    return
                yield piece, total
    except urllib.error.HTTPError as reason:
        reason.close()
        raise _no_answer(url, reason) from reason
    except ValueError as reason:
        raise DataError("address to fetch from", expected="http:// or https://", got=f"'{url}'") from reason
    except (OSError, http.client.HTTPException) as reason:
        raise _no_answer(url, reason) from reason


def _no_answer(url: str, reason: BaseException) -> DataError:
    return DataError(
        f"download of {url}",
        got=f"no file: {reason}",
        fix=f"Try again, or copy the files there by other means and set {ENVIRONMENT} to the folder.",
    )


def _compare(path: Path, md5: str, what: str) -> None:
    got = file_digest(path, "md5")
    if got != md5:
        raise DataError(
            f"download of {what}", expected=f"the published bytes, md5 {md5}", got=f"md5 {got}", fix="Try again."
        )
