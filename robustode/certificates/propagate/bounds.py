"""The bounds `ibp` and `crown`: interval and linear bound propagation through the unrolled network."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from robustode.certificates.bound import Bound, ClassRadii
from robustode.certificates.problem import Problem
from robustode.certificates.propagate.ball import Ball
from robustode.certificates.propagate.enclose import Encloser
from robustode.certificates.propagate.graph import Graph
from robustode.certificates.propagate.search import Search
from robustode.certificates.propagate.trace import Untraceable, trace
from robustode.certificates.propagate.unroll import unroll
from robustode.models.snode import SNODE

MEMORY = 2 * 2**30  # bytes that the coefficients of the samples in flight may take
COPIES = 6  # of the coefficients at one node that are alive at the same time
SAMPLES = 64  # in flight at most
INTERVALS = Search(tolerance=1e-4, evaluations=400)
LINES = Search(tolerance=1e-3, evaluations=16, nearest=True)

_graphs: WeakKeyDictionary[nn.Module, Graph | str] = WeakKeyDictionary()


def graph_of(problem: Problem) -> Graph | str:
    """Return the graph of the exact map, made once for a problem, or why there is none."""
    model = problem.exact
    if not isinstance(model, nn.Module):
        return f"a {type(model).__name__} is not a torch.nn.Module, so that its layers are not known"
    if model not in _graphs:
        _graphs[model] = _graph(model)
    return _graphs[model]


def _graph(model: nn.Module) -> Graph | str:
    try:
        if not isinstance(model, SNODE):
            return trace(model)
        if model.solver is not None:
            return f"the steps of the adaptive method of a {model.arch} depend on the input: no fixed network"
        return unroll(model)
    except Untraceable as reason:
        return str(reason)


def unit_of(problem: Problem) -> float:
    """Return the unit roundoff of the deployed model's products, coarser where torch may use TF32 or bfloat16."""
    unit = problem.unit
    if unit == 2.0**-24 and torch.get_float32_matmul_precision() != "highest":
        return 2.0**-8
    if unit == 2.0**-24 and problem.x.device.type == "cuda" and torch.backends.cudnn.allow_tf32:
        return 2.0**-11
    return unit


def needed(graph: Graph) -> int:
    """Return the bytes that linear bounds of one sample take."""
    rows, width = graph.widest
    return 8 * COPIES * rows * width


def _refuses_intervals(problem: Problem) -> str | None:
    graph = graph_of(problem)
    return graph if isinstance(graph, str) else None


def _refuses_lines(problem: Problem) -> str | None:
    graph = graph_of(problem)
    if isinstance(graph, str):
        return graph
    if (bytes_ := needed(graph)) > MEMORY:
        rows, width = graph.widest
        return (
            f"one sample needs {bytes_ / 2**30:.1f} GiB ({rows} rows of {width} coefficients), "
            f"more than the {MEMORY / 2**30:g} GiB allowed"
        )
    return None


def _intervals(problem: Problem) -> ClassRadii:
    """Return the radii of interval bound propagation."""
    graph = _known(problem)
    return _radii(problem, Encloser(graph=graph, lines=False), INTERVALS, SAMPLES, 2.0)


def _lines(problem: Problem) -> ClassRadii:
    """Return the radii of CROWN; one evaluation costs as many passes as rows are carried back, half the way each."""
    graph = _known(problem)
    chunk = max(1, min(SAMPLES, MEMORY // needed(graph)))
    carried = graph.inspected - graph.prefix.keys() - {0}
    rows = sum(2 * graph.nodes[i].size * i / len(graph.nodes) for i in carried) + graph.nodes[-1].size
    return _radii(problem, Encloser(graph=graph, lines=True), LINES, chunk, rows)


def _known(problem: Problem) -> Graph:
    graph = graph_of(problem)
    assert isinstance(graph, Graph)  # otherwise the bound is refused
    return graph


@torch.no_grad()
def _radii(problem: Problem, bounds: Encloser, search: Search, chunk: int, cost: float) -> ClassRadii:
    lo, hi = problem.exact.bounds
    roundoff = bounds.graph.roundoff(unit_of(problem))
    radii, passes = [], []
    for x, y in zip(problem.x.split(chunk), problem.y.split(chunk), strict=True):

        def below(at: Tensor, eps: Tensor, x: Tensor = x, y: Tensor = y) -> Tensor:
            return bounds.margins(Ball(x=x[at], eps=eps, norm=problem.norm, roundoff=roundoff), y[at])

        clean = below(torch.arange(len(x), device=x.device), x.new_zeros(len(x)))
        found, tried = search.radii(below, clean, hi - lo)
        radii.append(found)
        passes.append((tried + 1) * cost)
    return ClassRadii(radius=torch.cat(radii), passes=torch.cat(passes).double())


def _bound(name: str, title: str, source: str, refuses: Callable, radii: Callable, fallback: bool) -> Bound:
    return Bound(
        name=name,
        title=title,
        certifies="discrete",
        norms=("l1", "l2", "linf"),
        source=source,
        refuses=refuses,
        radii=radii,
        extra=True,
        fallback=fallback,
    )


IBP = _bound(
    "ibp",
    "interval bound propagation",
    "Gowal et al., arXiv 1810.12715",
    _refuses_intervals,
    _intervals,
    True,
)
CROWN = _bound(
    "crown",
    "linear bounds carried back through the network",
    "Zhang et al., arXiv 1811.00866 (CROWN)",
    _refuses_lines,
    _lines,
    False,
)
