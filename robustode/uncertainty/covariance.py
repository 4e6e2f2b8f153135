"""The covariance of input noise, isotropic, diagonal, full or of low rank, checked and taken as a factor F of F Fᵀ."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.errors import OptionError


@dataclass(frozen=True, eq=False)
class LowRank:
    """The covariance F Fᵀ of noise with r sources.

    Attributes:
        factor: F, (d, r) with d input coordinates, in raw-input units.

    Raises:
        OptionError: it is no matrix, or not finite.
    """

    factor: Tensor

    def __post_init__(self) -> None:
        if self.factor.dim() != 2:
            raise OptionError("low-rank factor", expected="a matrix (d, r)", got=f"shape {tuple(self.factor.shape)}")
        _check_finite("low-rank factor", self.factor)


@dataclass(frozen=True, eq=False)
class Root:
    """F, so that F ξ with ξ standard normal is the noise: a number, a diagonal (d,) or a matrix (d, r), float64."""

    root: Tensor

    def pull(self, rows: Tensor) -> Tensor:
        """Return rows F, (..., d) → (..., r)."""
        root = self.root.to(rows)
        return rows @ root if root.dim() == 2 else rows * root

    def push(self, xi: Tensor) -> Tensor:
        """Return F ξ, (..., r) → (..., d)."""
        root = self.root.to(xi)
        return xi @ root.t() if root.dim() == 2 else xi * root

    def sources(self, d: int) -> int:
        """Return r, the number of components of ξ, for d input coordinates."""
        return self.root.shape[1] if self.root.dim() == 2 else d


def input_root(value: float | Tensor | LowRank | None, shape: tuple[int, ...]) -> Root:
    """Return the factor of a covariance of inputs of `shape`; None is no noise, with no sources.

    Raises:
        OptionError: a covariance of the wrong shape, not finite, with a negative variance, not symmetric or not
            positive semidefinite.
    """
    d = torch.Size(shape).numel()
    if value is None:
        return Root(torch.zeros(d, 0, dtype=torch.float64))
    if isinstance(value, LowRank):
        if len(value.factor) != d:
            expected = f"{d} rows, one for each input coordinate"
            raise OptionError("low-rank factor", expected=expected, got=f"shape {tuple(value.factor.shape)}")
        return Root(value.factor.detach().double())
    cov = torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else torch.float64).detach()
    precision = cov.dtype if isinstance(value, Tensor) and cov.is_floating_point() else torch.float64
    cov = cov.to("cpu", torch.float64)
    _check_finite("input_cov", cov)
    if tuple(cov.shape) == (d, d) and tuple(cov.shape) != shape:
        return Root(_matrix_root(cov, max(1e-8, d * torch.finfo(precision).eps)))
    if cov.dim() == 0 or tuple(cov.shape) in (shape, (d,)):
        if float(cov.min()) < 0:
            fix = "It is σ², the square of a standard deviation." if cov.dim() == 0 else None
            raise OptionError("input_cov", expected="variances ≥ 0", got=f"{float(cov.min()):g}", fix=fix)
        return Root(cov.sqrt().reshape(-1) if cov.dim() else cov.sqrt())
    expected = f"a number, variances of shape {shape} or ({d},), a ({d}, {d}) matrix, or LowRank(factor)"
    raise OptionError("input_cov", expected=expected, got=f"shape {tuple(cov.shape)}")


def _matrix_root(cov: Tensor, tolerance: float) -> Tensor:
    size = float(cov.abs().max())
    off = float((cov - cov.t()).abs().max())
    if off > tolerance * size:
        fix = "Give (cov + cov.T) / 2 if that is what you mean."
        got = f"one that differs from its transpose by up to {off:.3g}, its largest entry being {size:.3g}"
        raise OptionError("input_cov", expected="a symmetric matrix", got=got, fix=fix)
    values, vectors = torch.linalg.eigh((cov + cov.t()) / 2)
    if float(values[0]) < -tolerance * size:
        got = f"a most negative eigenvalue of {float(values[0]):.3g}, the largest being {float(values[-1]):.3g}"
        raise OptionError("input_cov", expected="a positive semidefinite matrix", got=got)
    return vectors * values.clamp_min(0).sqrt()


def _check_finite(name: str, values: Tensor) -> None:
    bad = int((~values.isfinite()).sum())
    if bad:
        raise OptionError(name, expected="finite values", got=f"{bad} of {values.numel()} that are not finite")
