"""The log norm of diag(s) W over all slopes s of σ, knot by knot: how fast trajectories can part, for training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.certificates.slopes import slope_range

BLOCK = 8  # vectors that a search starts with
STEPS = 1  # multiplications of them with A that make a space
CYCLES = 30
TOLERANCE = {torch.float64: 1e-13}  # gain of a cycle in μ, relative, at which it ends
COARSE = 1e-3  # of other dtypes
HALVINGS = {torch.float64: 40}  # of the bracket of λ, in its logarithm
COARSE_HALVINGS = 8
SMALLEST = 1e-3  # λ relative to the largest
TINY = 1e-30


@dataclass(frozen=True)
class LogNorms:
    """Log norms at the knots with their derivatives.

    Attributes:
        values: μ, (knots,).
        left, right: ∂μ/∂W is their outer product at every knot, (knots, n); `right` is v.
    """

    values: Tensor
    left: Tensor
    right: Tensor

    @property
    def gradient(self) -> Tensor:
        """∂μ/∂W, (knots, n, n)."""
        return self.left[..., None] * self.right[:, None]

    def along(self, direction: Tensor) -> Tensor:
        """Return the derivative of every μ along (knots, n, n): (knots,)."""
        return (self.left * _times(direction, self.right)).sum(1)


class DepthLogNorm:
    """For every knot an upper bound of the L2 log norm of diag(s) W over all slopes s in [inf σ', sup σ'] = [a, b],

        μ = max over ‖v‖ = 1 of c vᵀW v + r ‖W v‖,   c = (a + b)/2, r = (b − a)/2.

    No vᵀ diag(s) W v is larger, as ‖diag(s) − c‖ ≤ r. μ is convex in W, the same for W and Q W Qᵀ with Q orthogonal,
    and its gradient is (c v + r W v / ‖W v‖) vᵀ where v is unique. It is the least over λ of the largest eigenvalue of
    A = c (W + Wᵀ)/2 + r/2 (λ + WᵀW/λ). v is the best of small Krylov spaces of A, entered with the last v, until a
    space brings no more than 1e-3 of μ (1e-13 in float64): μ comes out a little too small, which training may and a
    certificate may not, and its gradient is a subgradient up to that.

    Args:
        activation: σ.

    Source: Söderlind, BIT 46 (2006), section 2; A is Young's inequality.
    """

    def __init__(self, activation: str) -> None:
        far = torch.tensor(torch.inf, dtype=torch.float64)
        low, high = (float(end) for end in slope_range(activation, -far, far))
        self._centre, self._radius = (low + high) / 2, (high - low) / 2
        self._block: Tensor | None = None
        self._weight: Tensor | None = None  # that they are of

    def state(self) -> dict[str, Tensor | None]:
        """Return what `restore` needs to go on to the bit."""
        return {"block": self._block, "weight": self._weight}

    def restore(self, state: Mapping[str, Tensor | None]) -> None:
        """Go on from a `state`."""
        self._block, self._weight = state["block"], state["weight"]

    def __call__(self, weight: Tensor) -> LogNorms:
        """Return the log norms for W of shape (knots, n, n); their values are differentiable once in W."""
        if self._block is None or self._weight is None or not torch.equal(self._weight, weight):
            self._block, self._weight = self._leading(weight.detach()), weight.detach().clone()
        v = self._block[..., 0]
        image = _times(weight, v)
        size = torch.linalg.vector_norm(image, dim=1)
        values = self._centre * (v * image).sum(1) + self._radius * size
        unit = image.detach() / size.detach().clamp(min=TINY)[:, None]
        return LogNorms(values, self._centre * v + self._radius * unit, v)

    @torch.no_grad()
    def _leading(self, weight: Tensor) -> Tensor:
        """Return v and leading eigenvectors of A beside it, (knots, n, BLOCK)."""
        if self._block is None or not bool(torch.isfinite(self._block).all()):
            grid = torch.arange(1, weight.shape[-1] + 1).to(weight)
            block = torch.outer(grid, grid[:BLOCK].sqrt()).sin().expand(len(weight), -1, -1)
        else:
            block = self._block.to(weight)
        if not bool(torch.isfinite(weight).all()):
            return torch.full_like(block, torch.nan)
        for _ in range(CYCLES):
            basis = self._space(weight, block)
            images, start = weight @ basis, weight @ _unit(block[..., :1])
            cross, square = basis.mT @ images, images.mT @ images
            y, beside = self._best(cross, square)
            before = self._value(_unit(block[..., :1]).mT @ start, start.mT @ start)
            after = self._value(y.mT @ cross @ y, y.mT @ square @ y)
            block = basis @ torch.cat([y, beside], dim=2)
            if not bool((after - before > TOLERANCE.get(weight.dtype, COARSE) * after.abs()).any()):
                break
        return block

    def _space(self, weight: Tensor, block: Tensor) -> Tensor:
        """Return an orthonormal basis of the span of the block V, A V and so on, (knots, n, k)."""
        scale = torch.linalg.vector_norm(weight @ _unit(block[..., :1]), dim=1, keepdim=True).clamp(min=TINY)
        parts = [_unit(block)]
        for _ in range(STEPS):
            image = weight @ parts[-1]
            parts.append(
                _unit(self._centre * image + weight.mT @ (self._centre * parts[-1] + self._radius / scale * image))
            )
        return torch.linalg.qr(torch.cat(parts, dim=2))[0]

    def _value(self, cross: Tensor, square: Tensor) -> Tensor:
        return self._centre * cross + self._radius * square.clamp(min=0).sqrt()

    def _best(self, cross: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
        """Return the unit y, (knots, k, 1), that maximises c yᵀB y + r √(yᵀG y), B = QᵀW Q and G = (W Q)ᵀ(W Q), and the
        leading eigenvectors of A at the best λ, (knots, k, BLOCK − 1).

        λ is bisected: it is too small where the leading y of A has √(yᵀG y) > λ.
        """
        symmetric = self._centre * (cross + cross.mT) / 2
        high = torch.linalg.matrix_norm(square, keepdim=True).clamp(min=TINY).sqrt()
        low, sides, vectors = SMALLEST * high, [], cross
        for _ in range(HALVINGS.get(cross.dtype, COARSE_HALVINGS)):
            scale = (low * high).sqrt()
            vectors = torch.linalg.eigh(symmetric + self._radius / 2 / scale * square)[1]
            y = vectors[..., -1:]
            more = y.mT @ square @ y > scale.square()
            low, high = torch.where(more, scale, low), torch.where(more, high, scale)
            sides = [torch.where(more, y, sides[0]), torch.where(more, sides[1], y)] if sides else [y, y]
        return _between(sides[0], sides[1], square, low), vectors[..., 1 - BLOCK :]


def line_products(found: LogNorms | None, direction: Tensor, horizon: float) -> tuple[float, float]:
    """Return (T/knots) (Σ μ μ', Σ μ'²) over the knots with μ > 0, μ' the derivative along a direction of W.

    With μ linearised these are the slope and the curvature of ½ ∫ max(0, μ)² dt. Nothing found gives zeros.
    """
    if found is None:
        return 0.0, 0.0
    slopes, spacing = found.along(direction) * (found.values > 0), horizon / len(direction)
    return spacing * float((found.values * slopes).sum()), spacing * float(slopes.square().sum())


def _between(below: Tensor, above: Tensor, square: Tensor, scale: Tensor) -> Tensor:
    """Return the unit y on the way from one vector to the other with √(yᵀG y) = λ: where eigenvalues of A cross at the
    best λ, neither of the leading vectors on its two sides is the maximiser, but this is.
    """
    change = torch.where(below.mT @ above < 0, -above, above) - below
    image, turned = (square @ v - scale.square() * v for v in (below, change))
    start, slope, bend = below.mT @ image, below.mT @ turned, change.mT @ turned
    root = (slope.square() - start * bend).clamp(min=0).sqrt()
    return _unit(below + change * (start / (root - slope).clamp(min=TINY)).clamp(0, 1))


def _times(weight: Tensor, vectors: Tensor) -> Tensor:
    return (weight @ vectors[..., None])[..., 0]


def _unit(vectors: Tensor) -> Tensor:
    return vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp(min=TINY)
