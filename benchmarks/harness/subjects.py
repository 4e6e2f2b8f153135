"""A model under test with the images that it classifies correctly: those reported on, and others to choose on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import robustode as ro
from robustode.data import Data
from robustode.evaluation.counting import Counted
from robustode.evaluation.judge import Judge
from robustode.evaluation.rows import Shard, Subject
from robustode.models import model_hash, peek

_CHUNK = 250


class OverLimit(RuntimeError):
    """An attack used more CPU time than it was given."""


class Limited(Counted):
    """A counted model that ends an attack once the process has used its CPU time.

    Attributes:
        until: value of `time.process_time()` after which a pass raises `OverLimit`.
    """

    until = float("inf")

    def forward(self, x: Tensor) -> Tensor:
        if time.process_time() > self.until:
            raise OverLimit("stopped at the limit of CPU time")
        return super().forward(x)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model and its images.

    Attributes:
        subject: the model as the evaluation engine takes it.
        data: name of the data.
        correct: images that the model classifies correctly, in a random order that depends on the seed only.
        seen: how many images were asked to find them.
    """

    subject: Subject
    data: str
    correct: Shard
    seen: int

    def part(self, start: int, stop: int, number: int) -> Shard:
        """Return correctly classified images start to stop − 1 as shard `number`."""
        rows = slice(start, stop)
        whole = self.correct
        fields = {key: getattr(whole, key)[rows] for key in ("x", "y", "index", "clean_pred", "clean_margin")}
        return Shard(number=number, **fields)


def label_of(spec: str) -> tuple[str, str]:
    """Return (label, model) of LABEL=MODEL or MODEL; a file named model.safetensors is called by its folder."""
    label, equals, path = spec.partition("=")
    if equals:
        return label, path
    named = Path(spec)
    return (named.parent.name if named.stem == "model" else str(peek(spec)["label"])), spec


def load_case(spec: str, data: str | None, *, correct: int | None, seen: int | None = None, seed: int = 0) -> Case:
    """Load a model and its test images, in a random order fixed by the seed.

    Args:
        spec: LABEL=MODEL or MODEL, as `load_model` takes it.
        data: data source; None takes the one that the checkpoint records.
        correct: find so many correctly classified images (fewer if the data end).
        seen: or ask exactly so many images.
        seed: of the order.
    """
    label, path = label_of(spec)
    samples: Data = ro.load_data(data or peek(path)["data"])
    model = ro.load_model(path)
    subject = Subject(label=label, hash=model_hash(model), counted=Limited(model), judge=Judge(model))
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))[:seen]
    parts, found, asked = [], 0, 0
    for rows in order.split(_CHUNK):
        x, y = samples.x[rows], samples.y[rows]
        pred, margin = subject.judge.answer(x, y)
        parts.append((x, y, samples.index[rows], pred, margin))
        found, asked = found + int((pred == y).sum()), asked + len(rows)
        if correct is not None and found >= correct:
            break
    x, y, index, pred, margin = (torch.cat(column) for column in zip(*parts, strict=True))
    keep = (pred == y).nonzero().squeeze(1)[:correct]
    kept = Shard(number=0, x=x[keep], y=y[keep], index=index[keep], clean_pred=pred[keep], clean_margin=margin[keep])
    return Case(subject=subject, data=samples.name, correct=kept, seen=asked)
