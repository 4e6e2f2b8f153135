"""black-box: an attack that sees logits only does not break what attacks with gradients could not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

from robustode.attacks.adapters.torchattacks import build_torchattacks
from robustode.attacks.card import Card
from robustode.audit.assault import Trial, assault
from robustode.audit.case import Case
from robustode.audit.check import Check, Found

QUERIES = 2000
SURVIVORS = 200  # tried at most
FIRST = 0.8  # share of the image that the first squares cover


def run(case: Case) -> Found:
    """Count survivors broken by Square in L∞, by random search in other norms and for inputs that are no images, with
    2,000 queries each. (torchattacks' Square raises in L2 on some sizes of image, and finds less there.)
    """
    shape = tuple(case.model.input_shape)

    def trials(norm: str, eps: float) -> Iterator[Trial]:
        squares = norm == "linf" and takes_squares(shape)
        if squares:
            params = {"n_queries": QUERIES, "p_init": FIRST}
            yield Trial(name="Square", build=partial(build_torchattacks, "Square", norm=norm, eps=eps, params=params))
        if not squares or find_spec("torchattacks") is None:
            yield Trial(name="random search", build=partial(_random_search(norm).build, eps))

    return assault(case, "black-box", trials, limit=SURVIVORS)


def _random_search(norm: Any) -> Card:
    return Card(
        name=f"random-search-{norm}",
        title="random search",
        implementation="robustode:random-search",
        norm=norm,
        kind="budget",
        params={"queries": QUERIES},
    )


def takes_squares(shape: tuple[int, ...]) -> bool:
    """Whether Square runs on inputs of this shape: images of at least 5 × 5 that its first squares fit into."""
    if len(shape) != 3:
        return False
    height, width = shape[1:]
    return min(height, width) >= 5 and round(math.sqrt(FIRST * height * width)) <= min(height, width)


CHECK = Check(
    id="black-box",
    title="attacks without gradients do not break what attacks with gradients could not",
    cheap=False,
    source="Andriushchenko et al. 2020, arXiv 1912.00049; Athalye et al. 2018, arXiv 1802.00420, section 3.1",
    advice="Gradients are hidden: find the layer that shatters or detaches them, and quote the number after audit.",
    run=run,
)
