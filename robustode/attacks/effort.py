"""How much work the minimal-norm search does: its settings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Round:
    """One exploration of the nearest classes.

    Attributes:
        at: where the classes are linearised, on the line from the clean input (0) to the best point known (1).
        reach: radius within which their rows stay, as a share of the best distance known.
        classes: nearest classes, each of which a row sets out for.
    """

    at: float
    reach: float
    classes: int


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much work a setting does.

    Attributes:
        lead: linearisations of the lead before its walk.
        walk: steps of its walk before the classes are explored.
        temperature: of the soft margin that the lead follows, as a share of the spread of the logits.
        pool: classes of largest logits that are linearised together.
        steps: linearisations on the way to each, after the common one.
        rounds: explorations.
        sure: rounds that all samples have; the others only those that the round before brought nearer.
        race: (steps, rows kept for each sample) of the walks, one stage after another.
        polish: the same for the rows left of a race on a coarser level, at full resolution.
        probes: forward passes at most for the last search along a ray.
    """

    lead: int = 6
    walk: int = 8
    temperature: float = 0.05
    pool: int = 9
    steps: int = 2
    rounds: tuple[Round, ...]
    sure: int = 1
    race: tuple[tuple[int, int], ...]
    polish: tuple[tuple[int, int], ...] = ((2, 2), (6, 1))
    probes: int = 3


SETTINGS = {
    "quick": Effort(lead=4, walk=0, rounds=(Round(at=0.0, reach=1.0, classes=0),), race=((10, 1),)),
    "fast": Effort(
        rounds=(Round(at=0.5, reach=1.1, classes=3), Round(at=0.0, reach=1.0, classes=5)),
        race=((2, 4), (2, 3), (6, 2)),
    ),
    "thorough": Effort(
        rounds=(
            Round(at=0.5, reach=1.2, classes=7),
            Round(at=0.0, reach=1.0, classes=7),
            Round(at=1.0, reach=1.2, classes=7),
            Round(at=0.75, reach=1.1, classes=9),
            Round(at=0.25, reach=1.1, classes=9),
        ),
        steps=3,
        sure=3,
        race=((3, 6), (4, 4), (4, 3), (8, 2)),
        polish=((3, 3), (8, 2)),
    ),
}
