"""Impostors among attacks: honest models under attacks that are broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from robustode.attacks.card import Card
from robustode.audit.gallery.bases import Base
from robustode.audit.gallery.exhibit import Exhibit, Scene
from robustode.audit.gallery.scenes import scene
from robustode.audit.gallery.sick import BoastingCard

GALLERY = "python:robustode.audit.gallery."


def under(
    base: Base, function: str, kind: type[Card] = Card, *, module: str = "sick", **options: Any
) -> Callable[[int], Scene]:
    """Return the factory of the scene of a base under a function of a module of the gallery."""
    card = kind(
        name=function, title=function, implementation=f"{GALLERY}{module}:{function}", norm="linf", kind="budget"
    )
    return lambda seed: scene(replace(base, seed=seed), cards=(card,), **options)


def library(base: Base, params: dict[str, Any], **options: Any) -> Callable[[int], Scene]:
    """Return the factory of the scene of a base under foolbox's PGD."""
    card = Card(name="pgd", title="PGD", implementation="foolbox:LinfPGD", norm="linf", kind="budget", params=params)
    return lambda seed: scene(replace(base, seed=seed), cards=(card,), **options)


MLP = Base()
CONV = Base(arch="conv", width=8, activation="SiLU", epochs=6)
SNODE = Base(arch="snode", activation="tanh", learning_rate=1e-2, epochs=6)
LAYERED = Base(arch="layered", activation="tanh", learning_rate=1e-2, epochs=6)

IMPOSTORS = (
    Exhibit(
        name="a step of zero",
        about="PGD that stands still",
        disease=("one-step",),
        seed=31,
        make=under(MLP, "zero_step"),
    ),
    Exhibit(
        name="wrong labels",
        about="PGD on the loss of another label",
        disease=("one-step", "black-box"),
        seed=131,
        make=under(SNODE, "wrong_labels"),
    ),
    Exhibit(
        name="outside the ball",
        about="PGD in a ball a quarter too large",
        disease=("validity",),
        seed=32,
        make=under(MLP, "leaves_ball"),
    ),
    Exhibit(
        name="outside the box",
        about="FGSM that does not clip",
        disease=("validity",),
        seed=132,
        make=under(CONV, "leaves_box"),
    ),
    Exhibit(
        name="points that are not finite",
        about="an attack that divides zero by zero at black pixels",
        disease=("validity",),
        seed=33,
        make=under(MLP, "not_finite"),
    ),
    Exhibit(
        name="misreported success",
        about="an attack that claims to have broken everything",
        disease=("validity",),
        seed=133,
        make=under(LAYERED, "zero_step", BoastingCard),
    ),
    Exhibit(
        name="the last point",
        about="PGD that walks back from its best point and returns where it ends",
        disease=("silent-success",),
        seed=34,
        make=under(MLP, "last_point"),
    ),
    Exhibit(
        name="inverted step size",
        about="PGD whose step is divided by the radius",
        disease=("monotone",),
        seed=144,
        make=under(CONV, "inverted_step", budgets={"linf": (0.1, 0.2)}),
    ),
    Exhibit(
        name="stops early",
        about="PGD of a library with too few, too short steps",
        disease=("more-effort",),
        seed=35,
        make=library(MLP, {"steps": 5, "rel_stepsize": 0.05, "random_start": False}),
    ),
    Exhibit(
        name="the first success ends all",
        about="a batch that stops when one sample is broken",
        disease=("one-step",),
        seed=135,
        make=under(SNODE, "first_success_ends_all"),
    ),
)
