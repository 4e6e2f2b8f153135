"""The image sets that have a name: digits, MNIST, Fashion-MNIST (whole or pooled to 14x14), CIFAR-10."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robustode.data.catalogue import CATALOGUE
from robustode.data.cifar import read_batch
from robustode.data.idx import read_idx
from robustode.data.public import CIFAR10, PUBLIC, PublicSet, find_root, read_checked
from robustode.data.source import Read, Source
from robustode.data.subset import stratified
from robustode.errors import DataError

_SPLIT_SEED = 20240  # of the digits; changing it changes every published number on them


def digits(split: str) -> Source:
    """scikit-learn's digits (1, 8, 8), pixels / 16, in a fixed stratified split of 1,437 for training and 360 for test.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """
    from sklearn.datasets import load_digits

    images, targets = load_digits(return_X_y=True)
    labels = torch.from_numpy(np.asarray(targets, dtype=np.int64))
    test = stratified(labels, CATALOGUE["digits"].sizes[1], _SPLIT_SEED).numpy()
    rows = test if split == "test" else np.setdiff1d(np.arange(len(labels)), test)
    pixels = np.asarray(images)[rows].reshape(-1, 1, 8, 8).astype(np.uint8)
    return _source("digits", split, labels[torch.from_numpy(rows)], _scaled(pixels, 16))


def mnist_like(name: str, split: str, root: str | Path | None) -> Source:
    """MNIST or Fashion-MNIST, (1, 28, 28) with pixels / 255, or (1, 14, 14) with the means of 2x2 of them.

    Source: LeCun, Bottou, Bengio, Haffner (1998); Xiao, Rasul, Vollgraf, arXiv:1708.07747.
    """
    public = PUBLIC[name.removesuffix("14")]
    folder = find_root(public, root)
    n = CATALOGUE[name].sizes[0 if split == "train" else 1]
    stem = "train" if split == "train" else "t10k"
    labels = _read_idx_file(public, folder, f"{stem}-labels-idx1-ubyte", (n,)).astype(np.int64)
    pixels = _read_idx_file(public, folder, f"{stem}-images-idx3-ubyte", (n, 28, 28)).reshape(n, 1, 28, 28)
    read = _pooled(pixels) if name.endswith("14") else _scaled(pixels, 255)
    return _source(name, split, torch.from_numpy(labels), read)


def cifar10(split: str, root: str | Path | None) -> Source:
    """CIFAR-10, (3, 32, 32), pixels / 255, from the Python version's batches.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    folder = find_root(CIFAR10, root)
    files = ["test_batch"] if split == "test" else [f"data_batch_{k}" for k in range(1, 6)]
    parts = [read_batch(read_checked(CIFAR10, folder, f), f"data file {folder / CIFAR10.folder / f}") for f in files]
    pixels = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    return _source("cifar10", split, torch.from_numpy(labels), _scaled(pixels, 255))


def _read_idx_file(public: PublicSet, root: Path, file: str, shape: tuple[int, ...]) -> np.ndarray:
    """Read FILE.gz, checked against its md5, or else FILE as unpacked, checked by its header and size."""
    plain = root / public.folder / file
    if plain.with_name(f"{file}.gz").exists() or not plain.exists():
        return read_idx(read_checked(public, root, f"{file}.gz"), shape, f"data file {plain}.gz")
    try:
        return read_idx(plain.read_bytes(), shape, f"data file {plain}")
    except OSError as reason:
        raise DataError(f"data file {plain}", got=f"an error on reading: {reason}") from reason


def _scaled(pixels: np.ndarray, whole: int) -> Read:
    """Read pixels / whole as float32; only the chosen images are ever converted."""

    def read(positions: Tensor | None) -> Tensor:
        chosen = pixels if positions is None else pixels[positions.numpy()]
        return torch.from_numpy(chosen.astype(np.float32)).div_(whole)

    return read


def _pooled(pixels: np.ndarray) -> Read:
    """Read the means of 2x2 pixels / 255: the exact sum of four bytes, over 1020."""

    def read(positions: Tensor | None) -> Tensor:
        chosen = pixels if positions is None else pixels[positions.numpy()]
        n, channels, height, width = chosen.shape
        blocks = chosen.reshape(n, channels, height // 2, 2, width // 2, 2)
        total = blocks.sum(axis=(3, 5), dtype=np.uint16)
        return torch.from_numpy(total.astype(np.float32)).div_(4 * 255)

    return read


def _source(name: str, split: str, y: Tensor, read: Read) -> Source:
    info = CATALOGUE[name]
    return Source(
        name=name,
        title=info.title,
        y=y,
        read=read,
        split=split,
        noun="images",
        bounds=(0.0, 1.0),
        classes=info.classes,
    )
