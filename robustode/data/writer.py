"""`DatasetWriter`: a data set on disk, shard by shard, and the `dataset.json` that makes them one set."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from robustode.data.convert import array_of, inputs, labels
from robustode.data.dataset import Data, check_pair
from robustode.data.formats import Layout, format_of
from robustode.data.index import SCHEMA, index_of
from robustode.data.place import BROKEN, HEADER, INDEX, is_empty, own_files, remove, unfinished_files
from robustode.data.publish import publish
from robustode.errors import DataError, RunError
from robustode.files import atomic, file_digest, read_json, write_json

STATUS = ("misclassified", "success", "failed", "skipped", "error")


class DatasetWriter:
    """Writes a data set shard by shard, so that memory does not grow with it and an interrupted one can go on.

    `write` makes one shard (`data-00000.npz`, say), whole or not at all, then `data-00000.json` with its sha256;
    `close` joins these into `dataset.json` and writes README.md and SHA256SUMS. Until then the directory holds
    `dataset.partial.json`.

    Args:
        directory: made if absent; must be empty, or a data set to replace (`force`) or to go on with (`resume`).
        format: a name of `FORMATS`: npz, safetensors, parquet, huggingface, png.
        bounds: (lo, hi) of the inputs; None if unknown.
        classes: number of classes; None if unknown.
        input_shape: shape of one input.
        meta: what made the set (source, split, model, attack, ...); kept as JSON. The same on resuming.
        codes: the words of each column of strings, stored as int8 places in this list where a format has no strings.
        shards: how many there will be; only the format huggingface, whose file names have it, must know.
        card: whether `close` writes README.md and SHA256SUMS; not where several sets share them.

    Raises:
        RunError: the directory is not empty, or holds another data set than the one resumed.
        DataError: unknown format, one that cannot hold such inputs, bounds that are none.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        format: str = "npz",
        bounds: tuple[float, float] | None,
        classes: int | None,
        input_shape: Sequence[int],
        meta: Mapping[str, Any] | None = None,
        codes: Mapping[str, Sequence[str]] | None = None,
        shards: int | None = None,
        card: bool = True,
        force: bool = False,
        resume: bool = False,
    ) -> None:
        self.format = format_of(format)
        self.directory = Path(directory)
        self.bounds = None if bounds is None else check_pair(bounds)
        self.classes = classes
        self.input_shape = tuple(int(size) for size in input_shape)
        self.codes = {name: tuple(words) for name, words in (codes or {"status": STATUS}).items()}
        self._header = {
            "schema": SCHEMA,
            "format": format,
            "meta": json.loads(json.dumps(dict(meta or {}), allow_nan=False)),
            "bounds": None if self.bounds is None else list(self.bounds),
            "classes": classes,
            "input_shape": list(self.input_shape),
            "codes": {name: list(words) for name, words in self.codes.items()},
        }
        self.layout = Layout.of(self._header, shards)
        self.format.check(self.layout)
        self.format.file(0, self.layout)
        self._card = card
        self._shards: dict[int, dict[str, Any]] = {}
        self._prepare(force=force, resume=resume)

    def done(self, shard: int, count: int) -> bool:
        """Whether this shard is on disk, with this number of samples and the bytes that were written."""
        entry = self._shards.get(shard)
        if entry is None or entry["count"] != count:
            return False
        return self.format.damage(self.directory / entry["file"], entry["sha256"]) is None

    def write(self, shard: int, *, x: Any, y: Any, **columns: Any) -> None:
        """Write one shard; an unfinished or earlier one of the same number is replaced.

        Args:
            shard: its number, from 0.
            x: (n, *input_shape), finite and inside the bounds; stored as float32.
            y: (n,) labels.
            columns: one value per sample each: numbers, or strings of `codes`. The same columns in every shard;
                `index` is the place in the full split.

        Raises:
            DataError: a length, shape, value or word that does not fit.
        """
        arrays = self._encode(f"shard {shard} of '{self.directory}'", x, y, columns)
        described = {name: str(array.dtype) for name, array in arrays.items()}
        for other in self._shards.values():
            if other["columns"] != described:
                raise DataError(f"columns of shard {shard}", expected=other["columns"], got=described)
        file = self.format.file(shard, self.layout)
        with atomic(self.directory / file) as temporary:
            self.format.save(temporary, arrays, self.layout)
            digest = file_digest(temporary)
        entry = {"number": shard, "file": file, "sha256": digest, "count": len(arrays["y"]), "columns": described}
        if "status" in arrays and "status" in self.codes:
            counts = Counter(self.layout.words("status", arrays["status"]))
            entry["status"] = {word: counts[word] for word in self.codes["status"] if counts[word]}
        if "survives" in arrays:  # a rounding format: what the attack found, and what of it is left
            found, left = int((arrays["survives"] >= 0).sum()), int((arrays["survives"] > 0).sum())
            entry["survivors"] = {"found": found, "survive": left}
        write_json(entry, self._note(shard))
        self._shards[shard] = entry

    def close(self) -> Path:
        """Write `dataset.json`, then the card and the checksums, and return its path; the small files of the shards go.

        Raises:
            RunError: no shard, or one missing among 0 to the last.
        """
        missing = sorted(set(range(max(self._shards, default=0) + 1)) - set(self._shards))
        if missing:
            raise RunError(
                f"data set '{self.directory}'",
                expected="every shard from 0 to the last",
                got=f"none of number {', '.join(map(str, missing))}",
                fix="Write them before closing.",
            )
        entries = [self._shards[k] for k in sorted(self._shards)]
        self.format.finish(self.directory, [entry["file"] for entry in entries])
        if self._dropped:  # by `repair`; they are whole again
            shutil.rmtree(self.directory / BROKEN, ignore_errors=True)
        write_json(index_of(self._header, entries), self.directory / INDEX)
        for path in (self.directory / HEADER, *map(self._note, self._shards)):
            path.unlink(missing_ok=True)
        if self._card:
            publish(self.directory)
        return self.directory / INDEX

    def _note(self, shard: int) -> Path:
        """The small file that says that a shard is finished."""
        return self.directory / f"data-{shard:05d}.json"

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()

    def _prepare(self, *, force: bool, resume: bool) -> None:
        """Make the directory ready: new, emptied of its own files, or with the finished shards of before."""
        place = self.directory
        if place.exists() and not place.is_dir():
            raise RunError(f"output '{place}'", expected="a directory", got="a file")
        known = (place / INDEX).is_file() or (place / HEADER).is_file()
        self._dropped = False
        if resume and known:
            self._take_up()
        elif not is_empty(place) and not (force and known):
            fix = "Use --resume or --force." if known else "Choose another; --resume and --force take data sets only."
            raise RunError(f"output directory '{place}'", expected="an empty or new one", got="files in it", fix=fix)
        else:
            remove(place, own_files(place))
        remove(place, unfinished_files(place))
        write_json(self._header, place / HEADER)

    def _take_up(self) -> None:
        """Take the shards of an earlier, interrupted or finished, run of the same data set."""
        place = self.directory
        finished = place / INDEX
        known = read_json(finished if finished.exists() else place / HEADER, RunError)
        before = {key: known.get(key) for key in self._header}
        if before != self._header:
            changed = [key for key in self._header if before[key] != self._header[key]]
            raise RunError(
                f"data set '{place}'",
                expected="the same settings as when it was begun",
                got=f"other {', '.join(changed)}",
                fix="Use --force to begin again, or another directory.",
            )
        if finished.exists():
            entries = [{**entry, "columns": known["columns"]} for entry in known["shards"]]
            self._dropped = bool(known.get("dropped"))
        else:
            entries = [read_json(path, RunError) for path in sorted(place.glob("data-?????.json"))]
        # The number is younger than the first sets, of which a name ends with it.
        self._shards = {entry.get("number", int(Path(entry["file"]).stem[-5:])): entry for entry in entries}

    def _encode(self, what: str, x: Any, y: Any, columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return every column as a numpy array, checked by the rules of `Data`."""
        targets = labels(array_of(y, f"{what}, y"), f"{what}, y")
        points = inputs(array_of(x, f"{what}, x"))
        if tuple(points.shape[1:]) != self.input_shape:
            raise DataError(f"{what}, x", expected=f"inputs of shape {self.input_shape}", got=tuple(points.shape[1:]))
        index = columns.get("index", torch.arange(len(targets)))
        place = labels(array_of(index, f"{what}, index"), f"{what}, index")
        Data(
            name=what,
            split="all",
            x=points,
            y=targets,
            index=place,
            bounds=self.bounds,
            classes=self.classes,
            caption="",
        )
        out = {"x": points.numpy(), "y": targets.numpy()}
        for name, values in columns.items():
            column = self._coded(what, name, values) if name in self.codes else array_of(values, f"{what}, {name}")
            if column.shape[:1] != (len(targets),):
                raise DataError(
                    f"{what}, {name}", expected=f"one for each of the {len(targets)} samples", got=f"{column.shape}"
                )
            out[name] = column
        return out

    def _coded(self, what: str, name: str, values: Any) -> np.ndarray:
        words = {word: code for code, word in enumerate(self.codes[name])}
        unknown = sorted({str(value) for value in values} - set(words))
        if unknown:
            raise DataError(f"{what}, {name}", expected=f"words of {', '.join(words)}", got=", ".join(unknown))
        return np.array([words[str(value)] for value in values], dtype=np.int8)
