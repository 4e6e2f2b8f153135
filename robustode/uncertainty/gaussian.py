"""A Gaussian in logit space, and the probability that its largest component is a given class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustode.errors import OptionError

POINTS = 2000  # integration points for each dimension of the orthant


@dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """Mean and covariance of the logits of each sample.

    Attributes:
        mean: (batch, classes).
        cov: (batch, classes, classes), symmetric positive semidefinite.
    """

    mean: Tensor
    cov: Tensor

    def p_correct(self, y: Tensor, *, seed: int = 0) -> Tensor:
        """Return P(z_y > z_k for all k ≠ y) under N(mean, cov), (batch,) float64 in [0, 1].

        With d = (z_k − z_y)_k this is the orthant probability P(d < 0) of the Gaussian d: the normal distribution
        function for two classes, scipy's randomised quasi-Monte Carlo otherwise (absolute error about 1e-4). A singular
        covariance is allowed; a sample without any uncertainty has 0 or 1, and one with NaN or infinity, which
        answers no class, has 0.

        Args:
            y: (batch,) labels.
            seed: seed of the quasi-Monte Carlo points.

        Raises:
            OptionError: labels that do not fit.

        Source: Genz 1992, Numerical computation of multivariate normal probabilities.
        """
        batch, classes = self.mean.shape
        if y.shape != (batch,) or (batch and (int(y.min()) < 0 or int(y.max()) >= classes)):
            raise OptionError("labels y", expected=f"({batch},) classes 0 to {classes - 1}", got=tuple(y.shape))
        mean, cov = self.mean.cpu().double(), self.cov.cpu().double()
        return torch.stack([_orthant(mean[i], cov[i], int(y[i]), seed) for i in range(batch)]) if batch else mean[:, 0]


def _orthant(mean: Tensor, cov: Tensor, label: int, seed: int) -> Tensor:
    from scipy.stats import multivariate_normal, norm

    classes = len(mean)
    if not bool(mean.isfinite().all() and cov.isfinite().all()):
        return torch.zeros((), dtype=torch.float64)
    difference = torch.eye(classes, dtype=mean.dtype)
    difference = torch.cat([difference[:label], difference[label + 1 :]])
    difference[:, label] = -1.0
    centre, spread = difference @ mean, difference @ cov @ difference.t()
    scale = spread.diagonal().clamp_min(0).sqrt()
    sure = scale <= 1e-12 * centre.abs().clamp_min(1e-300)  # components that cannot change sign
    if bool((centre[sure] >= 0).any()):
        return torch.zeros((), dtype=torch.float64)
    centre, spread, scale = centre[~sure], spread[~sure][:, ~sure], scale[~sure]
    if len(centre) == 0:
        return torch.ones((), dtype=torch.float64)
    upper = -(centre / scale)
    if len(upper) == 1:
        return torch.tensor(float(norm.cdf(float(upper[0]))), dtype=torch.float64)
    correlation = _semidefinite(spread / scale[:, None] / scale[None]).numpy()
    accuracy = {"maxpts": POINTS * len(upper), "abseps": 1e-4, "releps": 1e-4}
    gaussian: Any = multivariate_normal(cov=correlation, allow_singular=True, seed=seed, **accuracy)  # type: ignore
    value = gaussian.cdf(upper.numpy())
    return torch.tensor(float(value), dtype=torch.float64).clamp(0.0, 1.0)


def _semidefinite(correlation: Tensor) -> Tensor:
    """Return the matrix without the negative eigenvalues that rounding gave it, of unit diagonal again."""
    values, vectors = torch.linalg.eigh((correlation + correlation.t()) / 2)
    clean = vectors * values.clamp_min(0) @ vectors.t()
    scale = clean.diagonal().sqrt()
    return clean / scale[:, None] / scale[None]
