"""Sweeps replayed as CUDA graphs: one launch for all the kernels of a sweep.

A step on a few hundred rows computes for a microsecond and takes several to be launched, so that a sweep of tens of
steps waits for the processor that launches it. A graph is captured once for each sweep and number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from robustode.solvers.flow import Flow
from robustode.solvers.tape import ROWS, Stage, Tape, filled

MOST = 1024  # rows; with more the kernels outlast their launches
WARM = 3  # runs before a capture, in which libraries choose their kernels and take their work space

Function = Callable[[Tensor], Any]
Capture = Callable[[Function, Tensor], tuple[Any, Callable[[], None]]]


def cuda_graph(function: Function, x: Tensor) -> tuple[Any, Callable[[], None]]:
    """Capture a function of one tensor and return where its result will be and what computes it there, from what `x`
    then holds. Capturing computes nothing.

    The function may not ask for a value on the host, and does the same whatever `x` holds.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM):
            function(x)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function(x)
    return result, graph.replay


class Replay:
    """One captured function.

    Attributes:
        result: its result, in memory that the next call overwrites.
        last: the tensor that it was called with last; None before.
    """

    def __init__(self, capture: Capture, function: Function, x: Tensor) -> None:
        self._x = x.clone()
        self.last: Tensor | None = None
        self.result, self._again = capture(function, self._x)

    def __call__(self, x: Tensor) -> None:
        """Compute the result for the rows of `x`, of which there may be fewer than were captured.

        The other rows hold what they held: no row depends on another.
        """
        self._x[: len(x)].copy_(x)
        self._again()
        self.last = x


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
        return len(self._known)

    def of(self, key: tuple[object, ...], function: Function, x: Tensor) -> Replay:
        """Return what was captured under a key, else capture the function at `x`."""
        if key not in self._known:
            self._known[key] = Replay(self._capture, function, x)
        return self._known[key]


def size_of(rows: int) -> int | None:
    """Return the number of rows that a sweep of so many is captured for, a power of two; None where it is not."""
    if not 0 < rows <= MOST:
        return None
    return max(ROWS, 1 << (rows - 1).bit_length())


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

    def _key(self, sweep: str, x: Tensor, size: int) -> tuple[object, ...]:
        return sweep, self.operator, self.steps, self.tableau, size, tuple(x.shape[1:]), x.dtype, x.device

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return x(T); see `Flow`."""
        size = size_of(len(x))
        if size is None:
            return super().forward(x)
        replay = self.graphs.of(self._key("forward", x, size), super().forward, filled(x, size))
        replay(x)
        return replay.result[: len(x)].clone()

    @torch.no_grad()
    def record(self, x: Tensor, *, inputs: bool = False) -> tuple[Tensor, Tape]:
        """Return x(T) and the tape; see `Flow`."""
        size = size_of(len(x))
        if inputs or size is None:
            return super().record(x, inputs=inputs)
        x = x.clone()
        replay = self.graphs.of(self._key("record", x, size), super().record, filled(x, size))
        replay(x)
        final, tape = replay.result
        kept = ReplayedTape(tape.starts, tape.segment, tape.stages, tape.inputs, replay, x)
        return final[: len(x)].clone(), kept

    @torch.no_grad()
    def adjoint(self, tape: Tape, adjoint: Tensor, gradient: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return λ(0); see `Flow`."""
        if not isinstance(tape, ReplayedTape) or gradient is not None:
            return super().adjoint(tape, adjoint, gradient)
        sweep, plain = super().adjoint, Tape(tape.starts, tape.segment, tape.stages, tape.inputs)
        key = self._key("adjoint", adjoint, tape.rows)
        replay = self.graphs.of(key, lambda final: sweep(plain, final), filled(adjoint, tape.rows))
        tape.refresh()
        replay(adjoint)
        return replay.result[: len(adjoint)].clone()

    def _recorded(self, tape: Tape, reverse: bool = False) -> Iterator[tuple[int, tuple[Stage, ...]]]:
        if not isinstance(tape, ReplayedTape):
            yield from super()._recorded(tape, reverse)
            return
        tape.refresh()
        for step in super()._recorded(tape, reverse):
            yield step
            tape.refresh()  # whoever reads the steps may have asked for another pass meanwhile
