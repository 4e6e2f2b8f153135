"""The published files of the real image sets: where they lie (torchvision's layout) and their checksums."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from robustode.errors import DataError

ENVIRONMENT = "ROBUSTODE_DATA"


@dataclass(frozen=True, kw_only=True)
class PublicSet:
    """The files of one public data set.

    Attributes:
        name: what `robustode data fetch` takes.
        folder: where the files lie, below the root.
        url: the official mirror; a file or the archive follows.
        files: md5 of each file by name.
        archive: (file name, md5) of the tar.gz that holds the files; None if they are downloaded one by one.
    """

    name: str
    folder: str
    url: str
    files: dict[str, str]
    archive: tuple[str, str] | None = None


MNIST = PublicSet(
    name="mnist",
    folder="MNIST/raw",
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    files={
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
)
FASHION_MNIST = PublicSet(
    name="fashion-mnist",
    folder="FashionMNIST/raw",
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    files={
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
)
CIFAR10 = PublicSet(
    name="cifar10",
    folder="cifar-10-batches-py",
    url="https://www.cs.toronto.edu/~kriz/",
    files={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
    archive=("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
)
PUBLIC: dict[str, PublicSet] = {s.name: s for s in (MNIST, FASHION_MNIST, CIFAR10)}


def find_root(public: PublicSet, root: str | Path | None) -> Path:
    """Return the folder of the real data sets: `root`, else $ROBUSTODE_DATA.

    Raises:
        DataError: neither is given.
    """
    chosen = root or os.environ.get(ENVIRONMENT)
    if not chosen:
        raise DataError(
            f"data set '{public.name}'",
            expected=f"the folder that holds {public.folder}, from --data-root or the variable {ENVIRONMENT}",
            got="neither",
            fix=f"Run: robustode data fetch {public.name} --data-root DIR, then set {ENVIRONMENT}=DIR",
        )
    return Path(chosen).expanduser()


def missing(public: PublicSet, root: Path, file: str) -> DataError:
    """Build the error for a file of a public set that is not there."""
    return DataError(
        f"data set '{public.name}'",
        expected=f"a file {root / public.folder / file}",
        got="no such file",
        fix=f"Run: robustode data fetch {public.name} --data-root {root}, "
        f"or set {ENVIRONMENT} to the folder that holds {public.folder}",
    )


def read_checked(public: PublicSet, root: Path, file: str) -> bytes:
    """Return the bytes of a published file after comparing their md5 with the published one.

    Raises:
        DataError: missing, unreadable, or not the published bytes.
    """
    path = root / public.folder / file
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise missing(public, root, file) from None
    except OSError as reason:
        raise DataError(f"data file {path}", got=f"an error on reading: {reason}") from reason
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 != public.files[file]:
        raise DataError(
            f"data file {path}",
            expected=f"the published bytes, md5 {public.files[file]}",
            got=f"md5 {md5}",
            fix=f"Delete it and run: robustode data fetch {public.name} --data-root {root}",
        )
    return content
