"""The log norm of diag(s) W over all slopes s of σ, knot by knot: how fast trajectories can part, for training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.certificates.slopes import slope_range

DIRECTIONS = 4  # of the Krylov space of a cycle
ROUNDS = 15  # of the power iteration inside it
CYCLES = 100
TOLERANCE = {torch.float64: 1e-9}  # residual ‖A v − (vᵀA v) v‖, relative to r ‖W v‖ + |c vᵀW v|
COARSE = 1e-3  # of other dtypes
TINY = 1e-30


@dataclass(frozen=True)
class LogNorms:
    """Upper bounds μ of the log norms at the knots, (knots,), and the v that attain them, (knots, n)."""

    values: Tensor
    vectors: Tensor


class DepthLogNorm:
    """For every knot an upper bound of the L2 log norm of diag(s) W over all slopes s in [inf σ', sup σ'] = [a, b],

        μ = max over ‖v‖ = 1 of c vᵀW v + r ‖W v‖,   c = (a + b)/2, r = (b − a)/2.

    No vᵀ diag(s) W v is larger, as ‖diag(s) − c‖ ≤ r. μ is convex in W, the same for W and Q W Qᵀ with Q orthogonal,
    and its gradient is (c v + r W v / ‖W v‖) vᵀ where v is unique. It is the least over λ of the largest eigenvalue of
    A = c (W + Wᵀ)/2 + r/2 (λ + WᵀW/λ), at λ = ‖W v‖. v is found by power iterations with that A inside small Krylov
    spaces, from the last v on, to a residual of 1e-3 (1e-9 in float64): μ comes out too small by about the square of
    that, which training may and a certificate may not.

    Args:
        activation: σ.

    Source: Söderlind, BIT 46 (2006), section 2; A is Young's inequality.
    """

    def __init__(self, activation: str) -> None:
        far = torch.tensor(torch.inf, dtype=torch.float64)
        low, high = (float(end) for end in slope_range(activation, -far, far))
        self._centre, self._radius = (low + high) / 2, (high - low) / 2
        self.last: Tensor | None = None

    def __call__(self, weight: Tensor) -> LogNorms:
        """Return μ and v for W of shape (knots, n, n); μ is differentiable once in W."""
        vectors = self._leading(weight.detach())
        self.last = vectors
        image = (weight @ vectors[..., None])[..., 0]
        size = torch.linalg.vector_norm(image, dim=1)
        return LogNorms(self._centre * (vectors * image).sum(1) + self._radius * size, vectors)

    @torch.no_grad()
    def gradient(self, weight: Tensor, vectors: Tensor) -> Tensor:
        """Return ∂μ/∂W at every knot, (knots, n, n)."""
        image = (weight @ vectors[..., None])[..., 0]
        left = self._centre * vectors + self._radius * torch.nn.functional.normalize(image, dim=1)
        return left[..., None] * vectors[:, None]

    @torch.no_grad()
    def _leading(self, weight: Tensor) -> Tensor:
        start = weight.new_tensor(range(1, weight.shape[-1] + 1)).sin().expand(weight.shape[:2])
        v = _unit((start if self.last is None else self.last)[..., None])
        tolerance = TOLERANCE.get(weight.dtype, COARSE)
        for _ in range(CYCLES):
            basis, images, residual = self._space(weight, v)
            if not bool((residual > tolerance).any()):  # met, or not a number
                break
            v = _unit(basis @ self._best(basis.mT @ images, images.mT @ images))
        return v[..., 0]

    def _space(self, weight: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return an orthonormal basis of the Krylov space of A at v, (knots, n, k), its images under W, and v's residual."""
        basis, images, residual = v, v[..., :0], v.new_zeros(len(v))
        scale = torch.linalg.vector_norm(weight @ v, dim=1, keepdim=True).clamp(min=TINY)
        for k in range(min(DIRECTIONS, weight.shape[-1])):
            q = basis[..., -1:]
            u = weight @ q
            images = torch.cat([images, u], dim=2)
            w = (self._centre * u + weight.mT @ (self._centre * q + self._radius / scale * u)) / 2
            for _ in range(2):
                w = w - basis @ (basis.mT @ w)
            if k == 0:
                size = self._radius * scale + (self._centre * (q * u).sum(1, keepdim=True)).abs()
                residual = (torch.linalg.vector_norm(w, dim=1) / size[:, 0].clamp(min=TINY))[:, 0]
            basis = torch.cat([basis, _unit(w)], dim=2)
        return basis[..., :-1], images, residual

    def _best(self, cross: Tensor, square: Tensor) -> Tensor:
        """Return y, (knots, k, 1), that maximises c yᵀB y + r √(yᵀG y) ‖y‖ for B = QᵀW Q and G = (W Q)ᵀ(W Q)."""
        symmetric = self._centre * (cross + cross.mT) / 2
        y = torch.zeros_like(cross[..., :1])
        y[:, 0] = 1
        for _ in range(ROUNDS):
            z = square @ y
            scale = (y * z).sum(1, keepdim=True).clamp(min=TINY).sqrt()
            y = _unit(symmetric @ y + self._radius / 2 * (z / scale + scale * y))
        return y


def _unit(vectors: Tensor) -> Tensor:
    return vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp(min=TINY)
