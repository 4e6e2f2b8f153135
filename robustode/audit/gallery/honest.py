"""Honest models, trained plainly and adversarially: under strong attacks no check may fail them.

The usual attacks on them are a part of the strong suites, beyond which a check finds more easily what there is; the
whole suites take minutes a model, because a check runs them with twice the effort.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from robustode.audit.gallery.bases import Base
from robustode.audit.gallery.exhibit import Exhibit, Scene
from robustode.audit.gallery.scenes import scene
from robustode.data import load_data

DIGITS_SNODE = {"arch": "snode", "activation": "tanh", "learning_rate": 1e-2, "epochs": 6}
POINTS_SNODE = {"arch": "snode", "activation": "tanh", "learning_rate": 5e-2, "epochs": 6}
RESNET = {"arch": "resnet", "width": 4, "epochs": 6, "learning_rate": 2e-2}
CONV_SNODE = {"arch": "conv-snode", "activation": "tanh", "width": 12, "learning_rate": 2e-2, "epochs": 6}
NORMS = ("linf", "l2")
USUAL = {norm: (f"sensitivity-thorough-{norm}", f"pgd-{norm}") for norm in NORMS}
STRONG = {norm: (f"strong-{norm}",) for norm in NORMS}

_DEVELOPMENT = {
    "MLP": Base(),
    "MLP, adversarial": Base(adversarial=True),
    "MLP of tanh": Base(activation="Tanh"),
    "conv": Base(arch="conv", width=8, epochs=6),
    "conv, adversarial": Base(arch="conv", width=8, epochs=6, adversarial=True),
    "ResNet": Base(**RESNET),
    "sNODE": Base(**DIGITS_SNODE),
    "sNODE, adversarial": Base(**DIGITS_SNODE, adversarial=True),
    "sNODE, midpoint": Base(**DIGITS_SNODE, method="midpoint", steps=4),
    "layered": Base(**{**DIGITS_SNODE, "arch": "layered"}),
    "layered, adversarial": Base(**{**DIGITS_SNODE, "arch": "layered"}, adversarial=True),
    "convolutional sNODE": Base(**CONV_SNODE),
    "moons, MLP": Base(data="moons", epochs=6),
    "moons, MLP, adversarial": Base(data="moons", epochs=6, adversarial=True),
    "moons, sNODE": Base(data="moons", **POINTS_SNODE),
    "moons, layered": Base(data="moons", **{**POINTS_SNODE, "arch": "layered"}),
    "spirals, MLP": Base(data="spirals", epochs=20),
}
_HELD_OUT = {
    "wide MLP": Base(width=96, epochs=6),
    "narrow MLP": Base(width=24, epochs=10),
    "MLP of GELU, adversarial": Base(activation="GELU", width=64, adversarial=True),
    "MLP of sigmoids": Base(activation="Sigmoid", width=64, learning_rate=1e-2),
    "conv of SiLU": Base(arch="conv", activation="SiLU", width=8, epochs=6),
    "conv of ELU, adversarial": Base(arch="conv", activation="ELU", width=6, epochs=6, adversarial=True),
    "ResNet, adversarial": Base(**{**RESNET, "width": 6}, adversarial=True),
    "wider ResNet": Base(**{**RESNET, "width": 8, "epochs": 5}),
    "sNODE of 10 steps": Base(**DIGITS_SNODE, steps=10),
    "sNODE of rk4, adversarial": Base(**DIGITS_SNODE, method="rk4", steps=2, adversarial=True),
    "sNODE of sigmoids": Base(**{**DIGITS_SNODE, "activation": "sigmoid"}),
    "layered of 10": Base(**{**DIGITS_SNODE, "arch": "layered"}, steps=10),
    "wider convolutional sNODE": Base(**{**CONV_SNODE, "width": 16}),
    "moons, MLP of tanh": Base(data="moons", activation="Tanh", width=32, epochs=8),
    "moons, layered, adversarial": Base(data="moons", **{**POINTS_SNODE, "arch": "layered"}, adversarial=True),
    "moons, sNODE of midpoint": Base(data="moons", **POINTS_SNODE, method="midpoint"),
    "spirals, MLP of SiLU": Base(data="spirals", activation="SiLU", width=64, epochs=20),
    "spirals, MLP, adversarial": Base(data="spirals", width=64, epochs=16, adversarial=True),
}


def honest(attacks: Mapping[str, Sequence[str]]) -> tuple[Exhibit, ...]:
    """Return the honest models under attacks, {norm: cards or suites}, every other one in L2."""
    development = _exhibits(_DEVELOPMENT, "development", 201, attacks)
    return (*development, *_exhibits(_HELD_OUT, "held-out", 301, attacks))


def _exhibits(bases: dict[str, Base], half: str, seed: int, attacks: Mapping[str, Sequence[str]]) -> list[Exhibit]:
    found = []
    for number, (name, base) in enumerate(bases.items()):
        norm = NORMS[number % 2]
        about = f"{base.data}, {base.activation}, {'adversarially' if base.adversarial else 'plainly'} trained, {norm}"
        make = _judged(base, norm, attacks[norm])
        found.append(Exhibit(name=name, about=about, kind="honest", half=half, seed=seed + number, make=make))
    return found


def _judged(base: Base, norm: str, attacks: Sequence[str]) -> Callable[[int], Scene]:
    """The training split is known; where samples are cheap there are enough to look for labels that leak."""
    count = {"mlp": 100, "resnet": 30, "conv-snode": 30}.get(base.arch) if base.data == "digits" else None

    def make(seed: int) -> Scene:
        training = load_data(base.data, split="train")
        return scene(replace(base, seed=seed), attacks=attacks, norm=norm, count=count, training=training)

    return make


HONEST = honest(USUAL)
