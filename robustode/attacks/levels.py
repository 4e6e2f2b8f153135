"""Cheaper levels of a model, where a sample's answers are the same: fewer steps of an sNODE, a shorter precision."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from robustode.attacks.search import Search
from robustode.models.base import Classifier
from robustode.models.layered import Layered
from robustode.models.snode import SNODE

SHARES = (1 / 10, 1 / 5, 1 / 3)  # steps of the levels tried, as shares of the network's own
AGREEMENT = 0.03  # largest change of a margin that counts as agreement, as a share of the clean one


@dataclass(frozen=True)
class Level:
    """A model to search on, and what a pass of it counts beside a pass of the network itself."""

    model: Classifier
    share: float


def cheaper(model: Classifier) -> Iterator[Level]:
    """Yield the levels below a model, cheapest first: those of an sNODE on a fixed grid, and the model in the shorter
    precision of the search, if it has one. A pass in that counts as one: what it saves depends on the machine."""
    network: Any = getattr(model, "bare", model)
    steppable: Any = model
    if isinstance(network, SNODE) and not isinstance(network, Layered) and network.solver is None:
        for steps in sorted({max(2, math.ceil(share * network.steps)) for share in SHARES}):
            if 2 * steps <= network.steps:
                yield Level(steppable.at_steps(steps), steps / network.steps)
    reduced = steppable.shorter_precision() if hasattr(model, "shorter_precision") else None
    if reduced is not None:
        yield Level(reduced, 1.0)


def level_of_each(search: Search, clean: Tensor, temperature: float) -> tuple[list[tuple[Level, Tensor]], Tensor]:
    """Return, for every row, the cheapest level whose soft margin at the clean input is the network's own, nearly.

    Each row is judged by itself: it has the same level in any batch. What holds at the clean input may not hold at the
    boundary, see `agree`.

    Args:
        search: a search at full resolution.
        clean: (rows,), its soft margins at the clean inputs.
        temperature: of the soft margin.

    Returns:
        Pairs of a level and the rows it is taken for; and the rows that no cheaper level suits.
    """
    rows, out = search.every, []
    for level in cheaper(search.model):
        coarse = search.spawn(rows, model=level.model, share=level.share)
        value, _ = coarse.evaluate(coarse.every, coarse.x0, temperature=temperature)
        agrees = (value - clean[rows]).abs() <= AGREEMENT * clean[rows].abs()
        out.append((level, rows[agrees]))
        rows = rows[~agrees]
    return [(level, part) for level, part in out if len(part)], rows


def agree(search: Search, coarse: Search, x: Tensor, clean: Tensor, temperature: float) -> Tensor:
    """Whether two levels have the same soft margin at points, (rows,) bool, up to a share of the clean margin.

    Args:
        search, coarse: the two levels, with the same rows.
        x: (rows, *input_shape), points near the boundary.
        clean: (rows,), the soft margins at the clean inputs.
    """
    fine, _ = search.evaluate(search.every, x, temperature=temperature)
    other, _ = coarse.evaluate(coarse.every, x, temperature=temperature)
    return (fine - other).abs() <= AGREEMENT * clean.abs()
