"""`Format`: how the shards of a data set are written and read; `Layout`: what all shards of a set have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from robustode.files import file_digest

Arrays = Mapping[str, np.ndarray]
CONSTANT = ("attack", "norm", "eps", "params")  # of the metadata; columns of the tabular formats


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What all shards of a set have in common.

    Attributes:
        input_shape: shape of one input.
        bounds: (lo, hi) of the inputs; None if unknown.
        classes: number of classes; None if unknown.
        split: "train", "test" or "all".
        codes: the words of each column of strings; arrays hold their places in this list.
        constants: what is the same for all samples; tabular formats write it as columns.
        shards: how many there will be; None if unknown.
    """

    input_shape: tuple[int, ...]
    bounds: tuple[float, float] | None
    classes: int | None
    split: str
    codes: Mapping[str, tuple[str, ...]]
    constants: Mapping[str, Any]
    shards: int | None = None

    @classmethod
    def of(cls, header: Mapping[str, Any], shards: int | None = None) -> Self:
        """Return the layout that the header of a data set, or its `dataset.json`, describes."""
        meta, bounds = header["meta"], header["bounds"]
        return cls(
            input_shape=tuple(header["input_shape"]),
            bounds=None if bounds is None else (float(bounds[0]), float(bounds[1])),
            classes=header["classes"],
            split=str(meta.get("split", "all")),
            codes={name: tuple(words) for name, words in header["codes"].items()},
            constants={name: meta[name] for name in CONSTANT if name in meta},
            shards=shards,
        )

    def words(self, name: str, column: np.ndarray) -> list[str]:
        """Return a column of codes as the words that they stand for."""
        return [self.codes[name][code] for code in column.tolist()]

    def places(self, name: str, words: Iterable[str]) -> np.ndarray:
        """Return words as their places among `codes`, int8; raise ValueError for one that is not there."""
        place = {word: code for code, word in enumerate(self.codes[name])}
        found = list(words)
        unknown = sorted(set(found) - set(place))
        if unknown:
            raise ValueError(f"words of {', '.join(place)} in column {name}, not {', '.join(unknown)}")
        return np.array([place[word] for word in found], dtype=np.int8)


class Format(ABC):
    """One way to keep a data set in files; it has no state.

    Attributes:
        name: what `--format` takes.
        patterns: glob patterns of every file that it makes in the directory of a set.
        table: pattern, with {split}, of the shards that a reader of Parquet tables finds; "" if there are none.
        whole: files made of all shards together.
    """

    name: ClassVar[str]
    patterns: ClassVar[tuple[str, ...]]
    table: ClassVar[str] = ""
    whole: ClassVar[tuple[str, ...]] = ()

    def check(self, layout: Layout) -> None:  # noqa: B027 (most formats take everything)
        """Raise `DataError` unless a set of this layout can be written."""

    def file(self, number: int, layout: Layout) -> str:
        """Return where a shard lies, relative to the directory of the set."""
        return f"data-{number:05d}.{self.name}"

    @abstractmethod
    def save(self, path: Path, arrays: Arrays, layout: Layout) -> None:
        """Write one shard to `path`, a temporary file in the folder in which it will lie."""

    @abstractmethod
    def names(self, path: Path) -> list[str]:
        """Return the columns that a shard has."""

    @abstractmethod
    def column(self, path: Path, name: str, layout: Layout) -> np.ndarray:
        """Return one column of a shard as it was given to `save`; what is unreadable is an OSError or ValueError."""

    def rounded(self, x: Tensor, clean: Tensor, layout: Layout) -> list[Tensor]:
        """Return the inputs as they may be read back, in order of preference; none if that is to the bit."""
        return []

    def parts(self, path: Path) -> list[tuple[str, str]]:
        """Return (path relative to the shard's folder, sha256) of further files that a shard consists of."""
        return []

    def finish(self, place: Path, files: Sequence[str]) -> None:  # noqa: B027
        """Write the files of `whole`."""

    def headings(self, names: list[str], layout: Layout) -> list[str]:
        """Return the columns that a user of the files sees, for columns of these names."""
        return names

    @abstractmethod
    def example(self, layout: Layout) -> str:
        """Return Python code that reads the set, from the folder `DIR`, in the library that its users use."""

    def damage(self, path: Path, sha256: str) -> tuple[str, str] | None:
        """Return (what was expected, what was found) of a shard that is not as it was written; None if it is."""
        if (found := _damaged(path, sha256)) is not None:
            return found
        for name, digest in self.parts(path):
            if (found := _damaged(path.parent / name, digest)) is not None:
                return f"{found[0]} in '{name}'", found[1]
        return None


def _damaged(path: Path, sha256: str) -> tuple[str, str] | None:
    if not path.is_file():
        return "a file", "no such file"
    digest = file_digest(path)
    return None if digest == sha256 else (f"the bytes that were written, sha256 {sha256[:16]}", f"sha256 {digest[:16]}")
