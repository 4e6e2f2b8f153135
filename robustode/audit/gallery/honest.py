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
_HELD_OUT = {
    "MLP of ELU": Base(width=72, activation="ELU"),
    "MLP of SiLU, adversarial": Base(width=56, activation="SiLU", adversarial=True),
    "MLP of leaky ReLU": Base(width=40, activation="LeakyReLU", epochs=10),
    "MLP of softplus": Base(width=64, activation="Softplus"),
    "conv of GELU": Base(arch="conv", activation="GELU", width=10, epochs=5),
    "conv of tanh, adversarial": Base(arch="conv", activation="Tanh", width=8, epochs=6, adversarial=True),
    "narrow conv": Base(arch="conv", width=5, epochs=8),
    "ResNet of width 5": Base(**{**RESNET, "width": 5}),
    "ResNet of width 8, adversarial": Base(**{**RESNET, "width": 8, "epochs": 5}, adversarial=True),
    "sNODE of 14 steps": Base(**DIGITS_SNODE, steps=14),
    "sNODE of 8 steps, adversarial": Base(**DIGITS_SNODE, steps=8, adversarial=True),
    "sNODE of rk4": Base(**DIGITS_SNODE, method="rk4", steps=3),
    "sNODE of sigmoids, midpoint": Base(**{**DIGITS_SNODE, "activation": "sigmoid"}, method="midpoint", steps=4),
    "layered of 4": Base(**{**DIGITS_SNODE, "arch": "layered"}, steps=4),
    "layered of sigmoids, adversarial": Base(
        **{**DIGITS_SNODE, "arch": "layered", "activation": "sigmoid"}, adversarial=True
    ),
    "convolutional sNODE of 10 channels": Base(**{**CONV_SNODE, "width": 10}, steps=5),
    "neural ODE of rk4": Base(arch="node", activation="Tanh", width=32, method="rk4", steps=6, epochs=6),
    "neural ODE of midpoint, adversarial": Base(
        arch="node", activation="SiLU", width=32, method="midpoint", steps=6, epochs=6, adversarial=True
    ),
    "moons, MLP of GELU": Base(data="moons", activation="GELU", width=24, epochs=10),
    "moons, MLP of ELU, adversarial": Base(data="moons", activation="ELU", epochs=8, adversarial=True),
    "moons, sNODE of rk4": Base(data="moons", **POINTS_SNODE, method="rk4", steps=4),
    "spirals, MLP of tanh": Base(data="spirals", activation="Tanh", width=64, epochs=24),
    "spirals, MLP of GELU, adversarial": Base(data="spirals", activation="GELU", width=64, epochs=20, adversarial=True),
    "spirals, layered": Base(data="spirals", **{**POINTS_SNODE, "arch": "layered", "epochs": 16}, steps=8),
}


def honest(attacks: Mapping[str, Sequence[str]]) -> tuple[Exhibit, ...]:
    """Return the honest models under attacks, {norm: cards or suites}, every other one in L2."""
    development = _exhibits(_DEVELOPMENT, "development", 201, attacks)
    return (*development, *_exhibits(_HELD_OUT, "held-out", 601, attacks))


def _exhibits(bases: dict[str, Base], half: str, seed: int, attacks: Mapping[str, Sequence[str]]) -> list[Exhibit]:
    found = []
    for number, (name, base) in enumerate(bases.items()):
        norm = NORMS[number % 2]
        about = f"{base.data}, {base.activation}, {'adversarially' if base.adversarial else 'plainly'} trained, {norm}"
        make = _judged(base, norm, attacks[norm], half)
        found.append(Exhibit(name=name, about=about, kind="honest", half=half, seed=seed + number, make=make))
    return found


def _judged(base: Base, norm: str, attacks: Sequence[str], half: str) -> Callable[[int], Scene]:
    """The training split is known; where samples are cheap there are enough to look for labels that leak."""
    count = {"mlp": 100, "resnet": 30, "conv-snode": 30}.get(base.arch) if base.data == "digits" else None
    if half == "held-out":
        count = 100 if base.data == "digits" else 150

    def make(seed: int) -> Scene:
        training = load_data(base.data, split="train")
        return scene(replace(base, seed=seed), attacks=attacks, norm=norm, count=count, training=training)

    return make


HONEST = honest(USUAL)
