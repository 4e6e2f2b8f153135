"""Honest models, trained plainly and adversarially: under the strong suites no check may fail them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from robustode.audit.gallery.bases import Base, trained
from robustode.audit.gallery.exhibit import Exhibit, Scene
from robustode.audit.gallery.scenes import scene
from robustode.data import load_data

DIGITS_SNODE = {"arch": "snode", "activation": "tanh", "learning_rate": 1e-2, "epochs": 6}
POINTS_SNODE = {"arch": "snode", "activation": "tanh", "learning_rate": 5e-2, "epochs": 6}
RESNET = {"arch": "resnet", "width": 4, "epochs": 6, "learning_rate": 2e-2}
CONV_SNODE = {"arch": "conv-snode", "activation": "tanh", "width": 12, "learning_rate": 2e-2, "epochs": 6}
STRONG = {norm: (f"sensitivity-thorough-{norm}", f"pgd-{norm}") for norm in ("linf", "l2")}

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


def _judged(base: Base, norm: str) -> Callable[[int], Scene]:
    """Every other model is judged in L2; the training split is known."""

    count = 120 if base.arch == "mlp" and base.data == "digits" else None  # enough for the labels to leak

    def make(seed: int) -> Scene:
        own = replace(base, seed=seed)
        return scene(
            own,
            model=trained(own),
            attacks=STRONG[norm],
            norm=norm,
            count=count,
            training=load_data(own.data, split="train"),
        )

    return make


def _exhibits(bases: dict[str, Base], half: str, seed: int) -> list[Exhibit]:
    found = []
    for number, (name, base) in enumerate(bases.items()):
        norm = ("linf", "l2")[number % 2]
        about = f"{base.data}, {base.activation}, {'adversarially' if base.adversarial else 'plainly'} trained, {norm}"
        make = _judged(base, norm)
        found.append(Exhibit(name=name, about=about, kind="honest", half=half, seed=seed + number, make=make))
    return found


HONEST = (*_exhibits(_DEVELOPMENT, "development", 201), *_exhibits(_HELD_OUT, "held-out", 301))
