"""A cascade: each attack is started only on the samples that the attacks before it left standing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robustode.attacks.base import Status
from robustode.attacks.card import Card
from robustode.evaluation import shards
from robustode.evaluation.rows import Shard
from robustode.evaluation.stored import Stored


def found_before(out: Path, model: str, cards: Sequence[Card], attack: Card | Stored, shard: Shard) -> Tensor | None:
    """Return what the attacks before one in its cascade found, from their units on disk; None outside a cascade.

    Args:
        out: directory of the run.
        model: label.
        cards: attacks of the run, in order; those of the same norm that are in a cascade, too, come before.
        attack, shard: about to be run.

    Returns:
        (samples of the shard,) float64, smallest distance; +inf where nothing was found.
    """
    if isinstance(attack, Stored) or not attack.cascade:
        return None
    before = [card.name for card in cards[: cards.index(attack)] if card.cascade and card.norm == attack.norm]
    places = [shards.place(out, model, name, shard.number) for name in before]
    return smallest((shards.read_records(place) for place in places), shard.index.tolist())


def smallest(units: Iterable[pd.DataFrame], samples: Sequence[int]) -> Tensor:
    """Return the smallest distance of a success among the rows of some units, for each of the samples."""
    out, every = np.full(len(samples), np.inf), list(samples)
    for frame in units:
        own = frame[frame["status"] == Status.SUCCESS.value]
        least = pd.Series(own.groupby("sample")["distance"].min()).reindex(every)
        out = np.minimum(out, least.to_numpy(dtype=float, na_value=np.inf))
    return torch.from_numpy(out)
