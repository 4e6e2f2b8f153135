"""A network as a graph of nodes, and what makes one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from robustode.certificates.propagate.curves import Curve
from robustode.certificates.propagate.linear import Linear
from robustode.certificates.propagate.nodes import Activate, Affine, Combine, Flat, Largest, Made, Node
from robustode.certificates.propagate.roundoff import Roundoff


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in an order in which sources come first; the first is the input, the last the logits."""

    nodes: tuple[Node, ...]

    @cached_property
    def made(self) -> dict[int, Made]:
        """All nodes but the input, by number."""
        return {i: node for i, node in enumerate(self.nodes) if isinstance(node, Made)}

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of inputs (batch, *input_shape)."""
        values = [x]
        for node in self.made.values():
            values.append(node.value([values[s] for s in node.sources]))
        return values[-1]

    @cached_property
    def inspected(self) -> frozenset[int]:
        """Numbers of the nodes whose ranges decide the lines: the sources of activations and poolings."""
        bent = (node for node in self.nodes if isinstance(node, Activate | Largest))
        return frozenset(source for node in bent for source in node.sources)

    @cached_property
    def prefix(self) -> dict[int, Flat]:
        """The nodes that are affine in the input, by number."""
        found: dict[int, Flat] = {}
        for i, node in self.made.items():
            if isinstance(node, Flat) and all(s == 0 or s in found for s in node.sources):
                found[i] = node
        return found

    @cached_property
    def widest(self) -> tuple[int, int]:
        """(rows, features): the most rows that are carried back at once, and the size of the widest node."""
        sizes = [math.prod(node.shape) for node in self.nodes]
        return max([2 * sizes[i] for i in self.inspected - self.prefix.keys() - {0}] + [sizes[-1]]), max(sizes)

    def roundoff(self, unit: float) -> Roundoff:
        """Return the allowances for a deployed model of unit roundoff `unit`."""
        return Roundoff(unit=unit, own=self.widest[1] + len(self.nodes) + 64)


class Builder:
    """Makes a graph, node by node; every method returns the number of the new node."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.nodes: list[Node] = [Node(sources=(), shape=tuple(shape))]

    def add(self, node: Node) -> int:
        """Append a node."""
        self.nodes.append(node)
        return len(self.nodes) - 1

    def affine(self, source: int, linear: Linear, bias: Tensor | None = None, bias_size: Tensor | None = None) -> int:
        """Append K x + b."""
        bias = None if bias is None else bias.detach().double()
        return self.add(Affine(sources=(source,), shape=linear.outer, linear=linear, bias=bias, bias_size=bias_size))

    def activate(self, source: int, curve: Curve) -> int:
        """Append σ."""
        return self.add(Activate(sources=(source,), shape=self.nodes[source].shape, curve=curve))

    def combine(self, sources: Sequence[int], coefficients: Sequence[float]) -> int:
        """Append Σ c x."""
        shape = self.nodes[sources[0]].shape
        return self.add(Combine(sources=tuple(sources), shape=shape, coefficients=tuple(coefficients)))

    def graph(self, output: int) -> Graph:
        """Return the graph of one node, without what it is not made of."""
        needed = {0, output}
        for i in range(output, 0, -1):
            if i in needed:
                needed.update(self.nodes[i].sources)
        number = {old: new for new, old in enumerate(sorted(needed))}
        nodes = (replace(self.nodes[old], sources=tuple(number[s] for s in self.nodes[old].sources)) for old in number)
        return Graph(tuple(nodes))
