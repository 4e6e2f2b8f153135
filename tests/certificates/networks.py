"""Small networks of every kind, in float64, with points and the bounds of their margins."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from robustode.certificates.problem import make_problem
from robustode.certificates.propagate import bounds
from robustode.certificates.propagate.ball import Ball
from robustode.certificates.propagate.curves import CURVES
from robustode.certificates.propagate.enclose import Encloser
from robustode.models.layered import Layered
from robustode.models.resnet import ResNet
from robustode.models.wrap import wrap
from tests.problems import random_conv_snode, random_points, random_snode

NORMS = ["l1", "l2", "linf"]
SMALL = {"input_shape": (1, 2, 3), "classes": 3, "steps": 4, "knots": 2, "horizon": 1.5}
CONV = {"input_shape": (2, 4, 4), "classes": 3, "channels": 9, "patch": 2, "steps": 2, "knots": 2, "horizon": 1.0}


def resnet() -> ResNet:
    """With statistics of its own in every batch norm, so that folding them in matters."""
    model = ResNet(input_shape=(1, 4, 4), classes=3, width=2, blocks=(1, 1), seed=3).double()
    return with_statistics(model)


def with_statistics(model):
    g = torch.Generator().manual_seed(4)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                tensor.data.copy_(0.5 + torch.rand(tensor.shape, generator=g))
    return model.eval()


def sequential(activation: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    layers = [nn.Conv2d(1, 3, 3, stride=2, padding=1), activation, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3, 5)]
    module = nn.Sequential(*layers, activation, nn.Linear(5, 3)).double()
    return wrap(module, bounds=(0.0, 1.0), input_shape=(1, 4, 4), mean=0.4, std=0.3)


def pooled() -> nn.Module:
    torch.manual_seed(6)
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 3)).double()
    return wrap(module, bounds=(0.0, 1.0), input_shape=(1, 4, 4))


def layered() -> Layered:
    model = Layered(input_shape=(1, 2, 3), classes=3, steps=4, horizon=1.5, activation="relu", seed=8).double()
    with torch.no_grad():
        model.weight.mul_(8)
    return model.eval()


MODELS = {f"snode {name}": lambda name=name: random_snode(activation=name, **SMALL) for name in CURVES} | {
    "snode midpoint": lambda: random_snode(method="midpoint", **SMALL),
    "snode rk4": lambda: random_snode(method="rk4", scale=1.5, **SMALL | {"steps": 2}),
    "layered": layered,
    "conv-snode": lambda: random_conv_snode(**CONV),
    "conv-snode rk4": lambda: random_conv_snode(method="rk4", activation="softplus", **CONV),
    "resnet": resnet,
    "relu": lambda: sequential(nn.ReLU()),
    "gelu": lambda: sequential(nn.GELU()),
    "silu": lambda: sequential(nn.SiLU()),
    "elu": lambda: sequential(nn.ELU(0.5)),
    "softplus": lambda: sequential(nn.Softplus(beta=3.0)),
    "leaky": lambda: sequential(nn.LeakyReLU(0.2)),
    "max pooling": pooled,
}


@cache
def case(name: str, samples: int = 3):
    """A model, points and the classes that it gives them."""
    model = MODELS[name]()
    x = random_points(tuple(model.input_shape), samples, seed=7)
    return model, x, model(x).argmax(1)


def margins_at(model, x, y, eps, norm, *, lines: bool, unit: float | None = None):
    problem = make_problem(model, x, y, norm)
    graph = bounds.graph_of(problem)
    assert not isinstance(graph, str), graph
    roundoff = graph.roundoff(problem.unit if unit is None else unit)
    with torch.no_grad():
        ball = Ball(x=problem.x, eps=torch.full((len(x),), eps, dtype=torch.float64), norm=norm, roundoff=roundoff)
        return Encloser(graph=graph, lines=lines).margins(ball, y)
