"""Ranges of all nodes and lower bounds of the margins over a ball, by intervals or by linear bounds carried back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustode.certificates.propagate.ball import Ball
from robustode.certificates.propagate.graph import Graph
from robustode.certificates.propagate.nodes import Activate, Range, by_interval
from robustode.sensitivity.norms import dual

ROWS = 2**24  # numbers in one block of rows, where rows are carried back to the input once for all samples


@dataclass(frozen=True, kw_only=True, eq=False)
class Encloser:
    """Bounds of one graph.

    Attributes:
        graph: the network.
        lines: carry linear bounds back through the whole network (CROWN) and not intervals forward alone (IBP).
    """

    graph: Graph
    lines: bool
    _steepness: dict[tuple[int, str], Tensor] = field(default_factory=dict)

    def margins(self, ball: Ball, y: Tensor) -> Tensor:
        """Return lower bounds of z_y − z_k over the ball, (batch, classes); inf in column y, NaN where unknown."""
        ranges = self.ranges(ball)
        last, (classes,) = len(self.graph.nodes) - 1, self.graph.nodes[-1].shape
        eye = torch.eye(classes, dtype=ball.x.dtype, device=ball.x.device)
        rows = eye[y].unsqueeze(1) - eye
        found = self._below(last, rows, ranges, ball, lines=False)
        if self.lines:
            found = torch.maximum(found, self._below(last, rows, ranges, ball, lines=True))
        return found.scatter(1, y[:, None], torch.inf)

    def ranges(self, ball: Ball) -> list[Range]:
        """Return the ranges of all nodes over the ball.

        Interval arithmetic throughout; nodes that are affine in the input have their exact range, and with `lines`
        every source of an activation the intersection with its linear bounds.
        """
        graph = self.graph
        ranges, centre, error = [ball.range], {0: ball.x}, {0: ball.range.error}
        for i, node in graph.made.items():
            sources = [ranges[s] for s in node.sources]
            own = node.enclose(sources, ball.roundoff)
            if self.lines and isinstance(node, Activate):
                own = node.surround(own, sources[0], ball.roundoff)
            if i in graph.prefix:
                centre[i] = node.value([centre[s] for s in node.sources])
                error[i] = own.error + graph.prefix[i].spread([error[s] for s in node.sources])
                reach = ball.eps[:, None] * self._steep(i, ball) * (1 + ball.roundoff.of_own)
                reach = reach.reshape(-1, *node.shape) + error[i]
                own = own.intersected(centre[i] - reach, centre[i] + reach)
            ranges.append(own)
            if self.lines and i in graph.inspected and i not in graph.prefix:
                ranges[i] = own.intersected(*self._both(i, ranges, ball))
        return ranges

    def _both(self, at: int, ranges: list[Range], ball: Ball) -> tuple[Tensor, Tensor]:
        """Return linear bounds below and above of a node."""
        shape = self.graph.nodes[at].shape
        size = math.prod(shape)
        eye = torch.eye(size, dtype=ball.x.dtype, device=ball.x.device)
        rows = torch.cat([eye, -eye]).reshape(1, 2 * size, *shape)
        found = self._below(at, rows, ranges, ball, lines=True)
        return found[:, :size].reshape(-1, *shape), -found[:, size:].reshape(-1, *shape)

    def _below(self, at: int, rows: Tensor, ranges: list[Range], ball: Ball, *, lines: bool) -> Tensor:
        """Return the least of ⟨A, node⟩ over the ball, (batch, rows), for A (batch or 1, rows, *shape)."""
        total, entry = self._carried(at, rows, ranges, lines=lines)
        if entry is not None:
            total = total + ball.least(entry)
        return total.expand(len(ball.x), -1)

    def _carried(self, at: int, rows: Tensor, ranges: list[Range], *, lines: bool) -> tuple[Tensor, Tensor | None]:
        """Return (c, A₀) with ⟨A, node⟩ ≥ c + ⟨A₀, input⟩; without `lines`, activations count by their intervals."""
        pending = {at: rows}
        total = rows.new_zeros(1, rows.shape[1])
        for i in range(at, 0, -1):
            if (carried := pending.pop(i, None)) is None:
                continue
            node = self.graph.made[i]
            if isinstance(node, Activate) and not lines:
                total = total + by_interval(carried, ranges[i])
                continue
            constant, parts = node.pull(carried, ranges[i])
            total = total + constant
            for source, part in zip(node.sources, parts, strict=bool(parts)):
                pending[source] = pending[source] + part if source in pending else part
        return total, pending.get(0)

    def _steep(self, at: int, ball: Ball) -> Tensor:
        """Return the dual norms of the rows of a node that is affine in the input, (size,); found once."""
        key = (at, ball.norm)
        if key not in self._steepness:
            shape = self.graph.nodes[at].shape
            size, width = math.prod(shape), self.graph.widest[1]
            nothing = ball.x.new_zeros(())
            exact = [Range(low=nothing, high=nothing, error=nothing.expand(1, *n.shape)) for n in self.graph.nodes]
            parts = []
            for block in torch.arange(size, device=ball.x.device).split(max(1, ROWS // width)):
                rows = ball.x.new_zeros(len(block), size)
                rows[torch.arange(len(block), device=rows.device), block] = 1.0
                _, entry = self._carried(at, rows.reshape(1, -1, *shape), exact, lines=True)
                assert entry is not None  # a node of the prefix is made of the input
                parts.append(dual(entry[0].flatten(1), ball.norm))
            self._steepness[key] = torch.cat(parts)
        return self._steepness[key]
