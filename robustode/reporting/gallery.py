"""The gallery of a report: clean image, adversarial and their difference, of the samples stored with a run."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from robustode.evaluation.rundir import RunDir
from robustode.evaluation.shards import safe
from robustode.reporting.formatting import norm_name, number

COUNT = 6  # samples of each model and norm
_LARGEST = 96  # pixels of a side; larger images are shown smaller
_CHANNELS = (1, 3)
_RAISED, _LOWERED = (np.array(rgb) / 255 for rgb in ((213, 94, 0), (0, 114, 178)))


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One sample: three images as data URIs, and what is said below them."""

    clean: str
    adversarial: str
    difference: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Strip:
    """The pictures of one model in one norm."""

    model: str
    norm: str
    pictures: tuple[Picture, ...]


def gallery(runs: Sequence[RunDir], models: Sequence[dict[str, Any]]) -> list[Strip]:
    """Return the pictures of every model whose inputs are grey or RGB images and whose adversarials were kept.

    Of the samples that were broken, `COUNT` are taken, evenly spread from the nearest to the farthest.

    Args:
        runs: finished runs, in the order in which they were joined.
        models: their entries of the joined run.json, with the labels of the report.
    """
    owners = [(run, own) for run in runs for own in run.meta["models"]]
    strips = []
    for shown, (run, own) in zip(models, owners, strict=True):
        if not _is_image(own["input_shape"]):
            continue
        for norm in run.meta["protocol"]["budgets"]:
            path = run.path / "adversarials" / f"{safe(own['label'])}-{norm}.safetensors"
            if path.is_file():
                strips += _strip(path, shown["label"], norm, own["bounds"])
    return strips


def _is_image(shape: Sequence[int]) -> bool:
    return len(shape) == 3 and shape[0] in _CHANNELS and min(shape[1:]) > 1


def _strip(path: Path, label: str, norm: str, bounds: Sequence[float]) -> list[Strip]:
    with safe_open(path, framework="np") as archive:
        said = [archive.get_tensor(name) for name in ("sample", "label", "pred", "distance")]
        distance = said[-1]
        rows = np.flatnonzero(distance > 0)
        if not len(rows):
            return []
        rows = rows[np.argsort(distance[rows], kind="stable")]
        rows = [int(row) for row in rows[np.unique(np.linspace(0, len(rows) - 1, COUNT).round().astype(int))]]
        clean, moved = archive.get_slice("x"), archive.get_slice("x_adv")
        pictures = [
            _picture(clean[i : i + 1][0], moved[i : i + 1][0], bounds, _text(norm, *(part[i] for part in said)))
            for i in rows
        ]
    return [Strip(model=label, norm=norm_name(norm), pictures=tuple(pictures))]


def _text(norm: str, sample: int, label: int, pred: int, distance: float) -> str:
    return f"sample {sample}: {label} → {pred}, {norm_name(norm)} {number(float(distance))}"


def _picture(clean: np.ndarray, moved: np.ndarray, bounds: Sequence[float], text: str) -> Picture:
    lo, hi = (float(end) for end in bounds)
    change = moved - clean
    change = change / (float(np.abs(change).max()) or 1.0)
    return Picture(
        clean=_uri((clean - lo) / (hi - lo)),
        adversarial=_uri((moved - lo) / (hi - lo)),
        difference=_uri(_diverging(change[0]) if len(change) == 1 else 0.5 + change / 2),
        text=text,
    )


def _diverging(change: np.ndarray) -> np.ndarray:
    """Colours (3, height, width) of values in [−1, 1]: orange where raised, blue where lowered, white at zero."""
    end = np.where(change[..., None] > 0, _RAISED, _LOWERED)
    return np.moveaxis(1 - np.abs(change)[..., None] * (1 - end), -1, 0)


def _uri(values: np.ndarray) -> str:
    """A PNG of values in [0, 1], (channels, height, width), as a data URI."""
    from PIL import Image

    pixels = np.clip(values * 255, 0, 255).round().astype(np.uint8)
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))
    image.thumbnail((_LARGEST, _LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
