"""The inner product of training: Sobolev in depth, second moment of the states across the inputs of W and b."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from robustode.training.sobolev import Sobolev

KEEP = 0.9  # share of the running covariance that a new mini-batch leaves


class Metric:
    """The inner product ⟨u, v⟩ = ∫ tr(u C vᵀ) + ℓ² tr(u' C v'ᵀ) dt on paths u(t) = [W(t), b(t)], and gradients in it.

    C = ω E[z zᵀ] / mean diag E[z zᵀ] + (1 − ω) I with z = (x(t), 1) the inputs of W and b: the second moment over
    samples and depth, scaled to a mean diagonal of about 1 and shrunk towards the identity. It measures a change of the
    weights by the change δW x + δb of the pre-activations. C and the Sobolev operator act on different axes, so the
    gradient is v = (M + ℓ² K)⁻¹ g C⁻¹. The moment is a running mean over mini-batches and stands still within one, so
    that conjugate gradients see one inner product. ω = 0 is the plain Sobolev inner product of the paper.

    Args:
        sobolev: the part in depth.
        rows: length of b; W is (knots, rows, inputs) flattened, and a path (knots, rows · inputs + rows).
        whitening: ω in [0, 1).

    Source: the factor of the inputs of Martens and Grosse, Optimizing neural networks with Kronecker-factored
    approximate curvature, ICML 2015; for convolutions, whose inputs are patches, Grosse and Martens, ICML 2016;
    shrinkage as in Ledoit and Wolf, J. Multivariate Analysis 88 (2004).
    """

    def __init__(self, sobolev: Sobolev, rows: int, whitening: float) -> None:
        self._sobolev, self._rows, self._whitening = sobolev, rows, whitening
        self.moment: Tensor | None = None
        self._matrix: Tensor | None = None
        self._inverse: Tensor | None = None

    def observe(self, inputs: Iterable[Tensor]) -> None:
        """Take what the rows of W are multiplied with in one mini-batch, each (n, inputs), into C."""
        if not self._whitening:
            return
        moments = [z.t() @ z / len(z) for z in (torch.cat([x, x.new_ones(len(x), 1)], 1) for x in inputs)]
        new = torch.stack(moments).mean(0)
        self.restore(new if self.moment is None else torch.lerp(new, self.moment, KEEP))

    def restore(self, moment: Tensor | None) -> None:
        """Set the running second moment, (inputs + 1, inputs + 1)."""
        self.moment = moment = None if moment is None else moment.to(self._sobolev.matrix)
        if moment is None or not bool(torch.isfinite(moment).all()):
            self._matrix = self._inverse = None
            return
        scaled = moment.double() / moment.diagonal().double().mean()
        identity = torch.eye(len(moment), dtype=torch.float64, device=moment.device)
        matrix = torch.lerp(identity, scaled, self._whitening)
        self._matrix = matrix.to(moment)
        self._inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix)).to(moment)

    def gradient(self, euclidean: Tensor) -> Tensor:
        """Return v with ⟨v, u⟩ = Σ g u for every path u; g is the Euclidean gradient."""
        return self._times(self._sobolev.gradient(euclidean), self._inverse)

    def inner(self, u: Tensor, v: Tensor) -> float:
        """Return ⟨u, v⟩ of two paths."""
        return self._sobolev.inner(u, self._times(v, self._matrix))

    def _times(self, path: Tensor, matrix: Tensor | None) -> Tensor:
        """Return [W, b] times a matrix of the inputs, as a path."""
        if matrix is None:
            return path
        weight, bias = path[:, : -self._rows], path[:, -self._rows :]
        joined = torch.cat([weight.unflatten(1, (self._rows, -1)), bias[..., None]], dim=2) @ matrix
        return torch.cat([joined[..., :-1].flatten(1), joined[..., -1]], dim=1)
