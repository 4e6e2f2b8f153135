"""Any module made of known operations as a graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robustode.certificates.propagate import operations
from robustode.certificates.propagate.graph import Builder, Graph
from robustode.certificates.propagate.linear import scaling
from robustode.certificates.propagate.symbol import BATCH, Symbol, Untraceable, symbol
from robustode.models.base import parameters_like
from robustode.models.output import select
from robustode.models.resnet import ResNet
from robustode.models.wrap import WrappedModel

AGREEMENT = 1e-7  # of the graph's logits with the module's at random points: it tells another map, not rounding
POINTS = 4

__all__ = ["Untraceable", "trace"]
assert operations.RULES  # importing the module registers the rules


def trace(model: nn.Module) -> Graph:
    """Return the graph of a classifier in float64, found by running it once on a tensor that records operations.

    Control flow that depends on shapes is followed; what depends on values is refused, and so is every operation
    without a rule. The graph's logits are compared with the module's at random points of the box before it is used.

    Raises:
        Untraceable: an operation without a rule, named with the module that it was met in.
    """
    shape: tuple[int, ...] = tuple(model.input_shape)  # type: ignore[arg-type]
    device, dtype = parameters_like(model)
    build = Builder(shape)
    entry = symbol(build, 0, torch.empty(0, device=device, dtype=dtype))
    met: list[str] = []
    try:
        with torch.no_grad(), _named(model, met):
            out = _run(model, entry)
    except Untraceable as reason:
        raise Untraceable(f"{reason} in {met[-1]}" if met else str(reason)) from reason
    except Exception as reason:
        where = met[-1] if met else type(model).__name__
        raise Untraceable(f"{where} cannot be traced ({type(reason).__name__}: {reason})") from reason
    if not isinstance(out, Symbol) or tuple(out.shape) != (BATCH, model.classes):
        raise Untraceable(f"the output of {type(model).__name__} is not logits made of known operations")
    graph = build.graph(out.node)
    _compare(graph, model)
    return graph


def _run(model: nn.Module, x: Symbol) -> object:
    """Return what a model makes of a symbol; our own ResNet fills the batch up first, which is left out."""
    if isinstance(model, ResNet):
        return model._logits(x)
    if isinstance(model, WrappedModel):
        return select(model.module(_normalised(model, x)), model.output)
    return model(x)


def _normalised(model: WrappedModel, x: Symbol) -> Symbol:
    if model.mean is None or model.std is None:
        return x
    scale, mean = 1 / model.std.double(), model.mean.double()
    return x.made(x.build.affine(x.node, scaling(scale, x.inner), -mean * scale, (mean * scale).abs()))


@contextmanager
def _named(model: nn.Module, met: list[str]) -> Iterator[None]:
    """Note the types of the modules that are entered, innermost last; an error leaves the last one there."""
    handles = []
    for module in model.modules():
        name = type(module).__name__
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: met.append(name)))
        handles.append(module.register_forward_hook(lambda *_: met.pop() and None))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _compare(graph: Graph, model: nn.Module) -> None:
    """Raise unless graph and module agree at random points of the box."""
    lo, hi = map(float, model.bounds)  # type: ignore[arg-type]
    shape = (POINTS, *graph.nodes[0].shape)
    draw = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    device, dtype = parameters_like(model)
    x = (lo + (hi - lo) * draw).to(device, dtype)
    found, wanted = graph.logits(x.double()), model(x)
    wanted = wanted if isinstance(wanted, Tensor) else torch.full_like(found, torch.nan)
    if not bool(((found - wanted).abs() <= AGREEMENT * (1 + wanted.abs().max())).all()):
        raise Untraceable(f"{type(model).__name__} does something that is not seen from outside its operations")
