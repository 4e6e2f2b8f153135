"""more-effort: the run's own attacks do not break more with twice their iterations and restarts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from robustode.attacks.adapters.foolbox import import_foolbox
from robustode.attacks.adapters.signature import accepted_parameters
from robustode.attacks.adapters.torchattacks import import_torchattacks
from robustode.attacks.card import Card
from robustode.audit.assault import Trial, assault
from robustode.audit.case import Case
from robustode.audit.check import Check, Found

# What the libraries call the number of iterations.
ITERATIONS = (
    "steps",
    "n_queries",
    "queries",
    "iterations",
    "max_iterations",
    "n_iter",
    "nb_iter",
    "max_iter",
    "repeats",
)
DRAWS = 2  # twice as many restarts


def run(case: Case) -> Found:
    """Count survivors broken by the run's budget attacks with twice the iterations, drawn twice."""

    def trials(norm: str, eps: float) -> Iterator[Trial]:
        for card in case.cards:
            if card.norm == norm and card.kind == "budget":
                yield from _again(card, eps)

    return assault(case, "more-effort", trials, nothing="the run has no iterative attack within a budget")


def _again(card: Card, eps: float) -> Iterator[Trial]:
    """Two draws with twice the iterations, nothing if there are none; one draw of the user's own attack as it is."""
    doubled = doubled_iterations(card)
    if card.provider == "python":
        yield Trial(name=f"{card.name}, another draw", build=partial(card.build, eps))
    elif doubled:
        said = ", ".join(f"{key} {value}" for key, value in doubled.items())
        more = card.model_copy(update={"params": {**card.params, **doubled}})
        for draw in range(1, DRAWS + 1):
            yield Trial(name=f"{card.name}, {said}, draw {draw}", build=partial(more.build, eps))


def doubled_iterations(card: Card) -> dict[str, int]:
    """Return twice the numbers of iterations of a card, by name; the library's defaults where it names none."""
    numbers = {**_defaults(card), **card.params}
    return {
        key: 2 * numbers[key]
        for key in ITERATIONS
        if isinstance(numbers.get(key), int) and not isinstance(numbers[key], bool)
    }


def _defaults(card: Card) -> dict[str, Any]:
    """Default parameters of an adapted attack."""
    name = card.implementation.partition(":")[2]
    if card.provider == "torchattacks":
        cls = getattr(import_torchattacks(), name)
    elif card.provider == "foolbox":
        cls = getattr(import_foolbox().attacks, name)
    else:
        return {}
    return {key: parameter.default for key, parameter in accepted_parameters(cls).items()}


CHECK = Check(
    id="more-effort",
    title="twice the iterations and restarts do not break more",
    cheap=False,
    source="Carlini et al. 2019, arXiv 1902.06705, checklist; Tramer et al. 2020, arXiv 2002.08347",
    advice="The attacks stopped early: give them more iterations and restarts until the number no longer falls.",
    run=run,
)
