"""`fetch`: download a public image set into torchvision's layout, each file checked before it appears."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from robustode.data.catalogue import CATALOGUE
from robustode.data.download import Progress, compare, download
from robustode.data.public import PUBLIC, PublicSet
from robustode.errors import DataError, unknown
from robustode.files import atomic, file_digest


def fetch(
    name: str, root: str | Path, *, progress: Progress | None = None, url: str | None = None, timeout: float = 60.0
) -> tuple[Path, ...]:
    """Download what is missing or damaged of a public image set and return the paths of all its files.

    A download that was cut off leaves FILE.part, and goes on from there the next time.

    Args:
        name: "mnist", "fashion-mnist" (either also with 14) or "cifar10".
        root: the folder to put it in, made if absent; then give it as `root` or set $ROBUSTODE_DATA to it.
        progress: called with (file, bytes so far, bytes in all or None).
        url: base address of a mirror; the official one if None.
        timeout: seconds without an answer after which it gives up.

    Raises:
        DataError: a set that is not downloaded, no connection, no space, or bytes whose md5 is not the published one,
            of which nothing is kept.
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
                download(base + file, folder / file, public.files[file], progress, timeout)
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
        download(base + file, archive, md5, progress, timeout)
        with tarfile.open(archive, "r:gz") as bundle:
            for name in absent:
                member = bundle.extractfile(f"{public.folder}/{name}")
                if member is None:
                    raise KeyError(name)
                with member, atomic(folder / name) as temporary:
                    temporary.write_bytes(member.read())
                    compare(temporary, public.files[name], f"{file}, member {name}")
    except (KeyError, tarfile.TarError, EOFError, zlib.error) as reason:
        raise DataError(f"archive {base}{file}", expected=f"the files of {public.name}", got=str(reason)) from reason
    finally:
        archive.unlink(missing_ok=True)
