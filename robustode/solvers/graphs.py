"""Sweeps replayed as CUDA graphs: one launch for all the kernels of a sweep.

A step on a few hundred rows computes for a microsecond and takes several to be launched, so that a sweep of tens of
steps waits for the processor that launches it. A graph is captured once for each sweep and number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from robustode.solvers.flow import Flow
from robustode.solvers.tape import ROWS, Stage, Tape, filled

MOST = 1024  # rows; with more the kernels outlast their launches
MOST_BYTES = 64 * 2**20  # that a sweep keeps; with more it is no matter of launches, either
WARM = 3  # runs before a capture, in which libraries choose their kernels and take their work space

Function = Callable[[Tensor], Any]
Capture = Callable[[Function, Tensor], tuple[Any, Callable[[], None]]]


def cuda_graph(function: Function, x: Tensor) -> tuple[Any, Callable[[], None]]:
    """Capture a function of one tensor and return where its result will be and what computes it there, from what `x`
    then holds. Capturing computes nothing.

    The function may not ask for a value on the host, and does the same whatever `x` holds.
    """
    with torch.cuda.device(x.device):
        aside = _stream(x.device)
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM):
                function(x)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=aside):
            result = function(x)

    def replay() -> None:
        with torch.cuda.device(x.device):
            graph.replay()

    return result, replay


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all captures on a card: libraries keep their work space for every stream that they have seen."""
    return torch.cuda.Stream(device)


class Replay:
    """One captured function.

    Attributes:
        result: its result, in memory that the next call overwrites.
        last: the tensor that it was called with last; None before.
        adjoints: of a recorded pass: its reverse sweeps, which read its memory, by shape.
    """

    def __init__(self, capture: Capture, function: Function, x: Tensor) -> None:
        self._capture, self._x = capture, x
        self.result, self._again = capture(function, x)
        self.last: Tensor | None = None
        self.adjoints: dict[tuple[int, ...], Replay] = {}

    def __call__(self, x: Tensor) -> None:
        """Compute the result for the rows of `x`, of which there may be fewer than were captured.

        The other rows hold what they held: no row depends on another.
        """
        self._x[: len(x)].copy_(x)
        self._again()
        self.last = x

    def adjoint(self, function: Function, x: Tensor, size: int) -> Replay:
        """Return the reverse sweep for cotangents of the shape of `x`, captured if it was not."""
        shape = tuple(x.shape[1:])
        if shape not in self.adjoints:
            self.adjoints[shape] = Replay(self._capture, function, filled(x, size))
        return self.adjoints[shape]


class Graphs:
    """What was captured of the sweeps of one network: by sweep, grid and number of rows.

    Args:
        capture: `cuda_graph`.
    """

    def __init__(self, capture: Capture = cuda_graph) -> None:
        self._capture = capture
        self._known: dict[tuple[object, ...], Replay] = {}

    def __len__(self) -> int:
        """How many there are."""
        return sum(1 + len(replay.adjoints) for replay in self._known.values())

    def clear(self) -> None:
        """Forget all, and free their memory once no pass stands on them."""
        self._known.clear()

    def of(self, key: tuple[object, ...], function: Function, x: Tensor, size: int) -> Replay:
        """Return what was captured under a key, else capture the function for `size` rows like those of `x`."""
        key = (*key, size, tuple(x.shape[1:]), x.dtype, x.device)
        if key not in self._known:
            self._known[key] = Replay(self._capture, function, filled(x, size))
        return self._known[key]


def size_of(rows: int, bytes_each: int = 0) -> int | None:
    """Return the number of rows that a sweep of so many is captured for, a power of two; None where it is not.

    Args:
        rows: of the batch.
        bytes_each: that the sweep keeps of each.
    """
    if not 0 < rows <= MOST:
        return None
    size = max(ROWS, 1 << (rows - 1).bit_length())
    return size if size * bytes_each <= MOST_BYTES else None


@dataclass(frozen=True)
class ReplayedTape(Tape):
    """The tape of a captured pass: it is written anew where another pass of the same number of rows has overwritten it.

    Attributes:
        replay: what wrote it.
        x: x(0), a tensor of its own.
    """

    replay: Replay
    x: Tensor

    def refresh(self) -> None:
        """See to it that the stages are those of x."""
        if self.replay.last is not self.x:
            self.replay(self.x)


@dataclass(frozen=True)
class GraphedFlow(Flow):
    """A flow whose `forward`, `record` and `adjoint` are captured and replayed; all else is as it was.

    Attributes:
        graphs: where the captured sweeps of the network are kept. Its weights stay in the same memory.
    """

    graphs: Graphs = field(default_factory=Graphs)

    def _size(self, x: Tensor, stages: int) -> int | None:
        return size_of(len(x), stages * x[:1].numel() * x.element_size())

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return x(T); see `Flow`."""
        size = self._size(x, 1)
        if size is None:
            return super().forward(x)
        replay = self.graphs.of(("forward", *self._grid), super().forward, x, size)
        replay(x)
        return replay.result[: len(x)].clone()

    @torch.no_grad()
    def record(self, x: Tensor, *, inputs: bool = False) -> tuple[Tensor, Tape]:
        """Return x(T) and the tape; see `Flow`."""
        size = self._size(x, self.steps * self.tableau.stages)
        if inputs or size is None:
            return super().record(x, inputs=inputs)
        x = x.clone()
        replay = self.graphs.of(("record", *self._grid), super().record, x, size)
        replay(x)
        final, tape = replay.result
        kept = ReplayedTape(tape.starts, tape.segment, tape.stages, tape.inputs, replay, x)
        return final[: len(x)].clone(), kept

    @torch.no_grad()
    def adjoint(self, tape: Tape, adjoint: Tensor, gradient: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return λ(0); see `Flow`."""
        if not isinstance(tape, ReplayedTape) or gradient is not None or self._size(adjoint, 1) is None:
            return super().adjoint(tape, adjoint, gradient)
        sweep, plain = super().adjoint, Tape(tape.starts, tape.segment, tape.stages, tape.inputs)
        replay = tape.replay.adjoint(lambda final: sweep(plain, final), adjoint, tape.rows)
        tape.refresh()
        replay(adjoint)
        return replay.result[: len(adjoint)].clone()

    @property
    def _grid(self) -> tuple[object, ...]:
        return self.operator, self.steps, self.tableau

    def _recorded(self, tape: Tape, reverse: bool = False) -> Iterator[tuple[int, tuple[Stage, ...]]]:
        if not isinstance(tape, ReplayedTape):
            yield from super()._recorded(tape, reverse)
            return
        tape.refresh()
        for step in super()._recorded(tape, reverse):
            yield step
            tape.refresh()  # whoever reads the steps may have asked for another pass meanwhile
