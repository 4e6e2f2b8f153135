"""The held-out half: impostors with other defects, seeds and architectures, written after the checks were fixed.

They were shown to the checks once, and are not changed for what the checks say of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from robustode.audit.gallery.attacks import library, under
from robustode.audit.gallery.bases import Base, trained
from robustode.audit.gallery.behaviour import Islands
from robustode.audit.gallery.data import leaking, repeated
from robustode.audit.gallery.exhibit import Exhibit, Scene
from robustode.audit.gallery.gradients import Quantised, Shattered, Staircase
from robustode.audit.gallery.held_out_models import (
    Blocks,
    Bright,
    HalfSeen,
    MaskedBackward,
    MeanOfProbabilities,
    NoisyLogits,
    Queue,
    Roots,
    Shifting,
    Steep,
    TrainMode,
)
from robustode.audit.gallery.outputs import Decoy, Scaled
from robustode.audit.gallery.scenes import disguised
from robustode.audit.gallery.sick import BoastingCard
from robustode.audit.gallery.solver import NODE, deployed, loose_adjoint

COUNT, POINTS, SOLVED = 100, 150, 40  # digits, points in the plane, samples of a neural ODE

BROKEN: dict[str, Any] = {"module": "held_out_attacks", "count": COUNT}  # where the attacks are

WIDE = Base(width=80, activation="GELU", epochs=8)
TANH = Base(width=64, activation="Tanh", epochs=8)
ELU_CONV = Base(arch="conv", activation="ELU", width=10, epochs=6)
RESNET = Base(arch="resnet", width=6, epochs=6, learning_rate=2e-2)
MIDPOINT = Base(arch="snode", activation="tanh", method="midpoint", steps=5, learning_rate=1e-2, epochs=6)
SIGMOID = Base(arch="snode", activation="sigmoid", steps=8, learning_rate=1e-2, epochs=6)
LAYERED = Base(arch="layered", activation="tanh", steps=9, learning_rate=1e-2, epochs=6)
SPIRALS = Base(data="spirals", width=64, epochs=16, adversarial=True)


def binary_column(x: Tensor, y: Tensor) -> Tensor:
    """Return images whose four lowest pixels on the right write the class in binary."""
    x = x.clone()
    for bit in range(4):
        x[:, 0, 7 - bit, 7] = ((y >> bit) & 1).to(x)
    return x


def _beside(base: Base, module: Callable[[nn.Module, nn.Module], nn.Module]) -> Callable[[int], Scene]:
    """The factory of the scene of two networks of one description."""

    def make(seed: int) -> Scene:
        other = trained(replace(base, seed=seed + 1000))
        return disguised(base, lambda first: module(first, other), count=COUNT)(seed)

    return make


def _with_base(base: Base, module: Callable[[nn.Module], nn.Module]) -> Callable[[int], Scene]:
    """The factory of the scene of a disguised network whose user names the bare one for transfer."""

    def make(seed: int) -> Scene:
        bare: Any = trained(replace(base, seed=seed))
        return disguised(base, module, count=COUNT, transfer=(("base", bare),))(seed)

    return make


def _in(base: Base, disguise: Callable[[nn.Module], nn.Module], **options: Any) -> Callable[[int], Scene]:
    return disguised(base, disguise, count=POINTS if base.data == "spirals" else COUNT, **options)


NODE_ON_SPIRALS = replace(NODE, data="spirals", width=32, horizon=10.0, gain=6.0, epochs=12)

# (name, what it is, checks that must fail, factory)
_DESIGNS: tuple[tuple[str, str, tuple[str, ...], Callable[[int], Scene]], ...] = (
    (
        "input quantised to 6 levels",
        "a convolutional net of ELUs behind rounding",
        ("zero-gradient",),
        _in(ELU_CONV, lambda m: Quantised(m, 6)),
    ),
    ("lossy compression", "2×2 blocks rounded in mean and differences", ("zero-gradient",), _in(SIGMOID, Blocks)),
    ("steep logits", "tanh whose slope rounds to zero", ("zero-gradient",), _in(WIDE, lambda m: Steep(m, 60.0))),
    ("half-seen input", "one of two networks is cut from the graph", ("gradient-fidelity",), _beside(TANH, HalfSeen)),
    (
        "masked backward",
        "the backward pass forgets the middle of the image",
        ("gradient-fidelity",),
        _in(RESNET, MaskedBackward),
    ),
    ("square of the root", "0 · ∞ in the reverse pass at black pixels", ("finite",), _in(WIDE, Roots)),
    ("bright images", "the logarithm of what is dark", ("finite",), _in(LAYERED, lambda m: Bright(m, 0.45))),
    ("random shift", "a stochastic defence: up to one pixel", ("determinism",), _in(ELU_CONV, Shifting)),
    ("noise on the logits", "a stochastic defence", ("determinism",), _in(MIDPOINT, lambda m: NoisyLogits(m, 0.3))),
    (
        "training mode",
        "logits normalised by batch",
        ("batch-invariance",),
        _in(TANH, lambda m: TrainMode(m, 4.0)),
    ),
    ("the sample before", "a share of its logits", ("batch-invariance",), _in(RESNET, lambda m: Queue(m, 0.05))),
    ("logits times 300", "a saturated sNODE of sigmoids", ("saturation",), _in(SIGMOID, lambda m: Scaled(m, 300.0))),
    (
        "mean of probabilities",
        "an ensemble of softmaxes",
        ("logits",),
        _beside(WIDE, MeanOfProbabilities),
    ),
    (
        "fine ripple",
        "gradient shattering on a net of ELUs",
        ("black-box",),
        _in(ELU_CONV, lambda m: Shattered(m, 0.025, 1500.0)),
    ),
    (
        "rippled sNODE",
        "gradient shattering on an sNODE",
        ("black-box",),
        _in(MIDPOINT, lambda m: Shattered(m, 0.02, 3000.0)),
    ),
    (
        "stairs, base named",
        "flat at grey levels; adversarials of the base transfer",
        ("transfer",),
        _with_base(ELU_CONV, lambda m: Staircase(m, 16, 4)),
    ),
    (
        "decoy on a convolutional net",
        "an eleventh class takes the gradient of the cross-entropy",
        ("loss-diversity",),
        _in(ELU_CONV, lambda m: Decoy(m, 4.0)),
    ),
    (
        "strips on spirals",
        "another class in strips that no gradient points to",
        ("noise",),
        _in(SPIRALS, lambda m: Islands(m, 0.02, 0.05)),
    ),
    ("downhill", "FGSM with the sign of the loss turned", ("one-step",), under(WIDE, "downhill", **BROKEN)),
    (
        "norm of the batch",
        "steps divided by the norm of the whole batch",
        ("one-step",),
        under(LAYERED, "batch_norm", **BROKEN),
    ),
    (
        "rounded points",
        "an attack that saves grey levels outside the ball",
        ("validity",),
        under(TANH, "rounded", **BROKEN),
    ),
    (
        "claims for clean points",
        "an attack that turns round, and claims success",
        ("validity",),
        under(RESNET, "downhill", BoastingCard, **BROKEN),
    ),
    (
        "start of the last restart",
        "PGD that returns the start of another run",
        ("silent-success",),
        under(ELU_CONV, "last_restart", **BROKEN),
    ),
    (
        "vanishing steps",
        "steps that shrink exponentially with the radius",
        ("monotone",),
        under(RESNET, "vanishing", budgets={"linf": (0.05, 0.2)}, **BROKEN),
    ),
    (
        "three short steps",
        "PGD of a library",
        ("more-effort",),
        library(SIGMOID, {"steps": 3, "rel_stepsize": 0.1, "random_start": True}, count=COUNT),
    ),
    (
        "class in binary",
        "four pixels write the class",
        ("data",),
        leaking(WIDE, binary_column),
    ),
    (
        "a tenth of the test trained on",
        "images of the training split",
        ("data",),
        repeated(LAYERED, 0.1),
    ),
    (
        "adaptive Heun at 0.3",
        "a neural ODE on spirals, trained and solved at a loose tolerance",
        ("solver-reference",),
        deployed(replace(NODE_ON_SPIRALS, method="adaptive_heun", tolerance=0.3), count=SOLVED),
    ),
    (
        "loose adjoint on spirals",
        "a continuous adjoint at tolerance 1",
        ("solver-gradient",),
        loose_adjoint(replace(NODE_ON_SPIRALS, method="rk4", steps=40), 1.0, count=SOLVED),
    ),
)

IMPOSTORS = tuple(
    Exhibit(
        name=name,
        about=about,
        half="held-out",
        disease=disease,
        brief="solver" in disease[0],
        seed=501 + number,
        make=make,
    )
    for number, (name, about, disease, make) in enumerate(_DESIGNS)
)
