"""A Gaussian in logit space: the probability that its largest component is a given class, and its effective margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from robustode.errors import OptionError
from robustode.uncertainty.orthant import Probability, orthant


@dataclass(frozen=True, kw_only=True, eq=False)
class LogitsAlongDepth:
    """Mean and covariance, at every depth of an sNODE, of the components of the state that are the logits at the end.

    Attributes:
        depth: t_n = n h, (N + 1,) float64.
        mean: (batch, N + 1, classes).
        cov: (batch, N + 1, classes, classes) float64.
    """

    depth: Tensor
    mean: Tensor
    cov: Tensor


class EffectiveMargin(NamedTuple):
    """The margin to the class that it is most uncertain to, of every sample.

    Attributes:
        value: min over k of (mean_y − mean_k) / its standard deviation, (batch,) float64; ± inf without uncertainty.
        other: that k, (batch,) int64.
        margin: mean_y − mean_k, (batch,) float64.
        std: its standard deviation, (batch,) float64.
    """

    value: Tensor
    other: Tensor
    margin: Tensor
    std: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Uncertainty:
    """Mean and covariance of the logits of each sample.

    Attributes:
        mean: (batch, classes).
        cov: (batch, classes, classes), symmetric positive semidefinite.
        along: the same at every depth, if that was asked for.
    """

    mean: Tensor
    cov: Tensor
    along: LogitsAlongDepth | None = None

    def probability(self, y: Tensor, *, seed: int = 0) -> Probability:
        """Return P(z_y > z_k for all k ≠ y) under N(mean, cov), and the error of that number, each (batch,) float64.

        With d = (z_k − z_y)_k it is the orthant probability P(d < 0) of the Gaussian d: the normal distribution
        function for two classes, whose error is 0, randomised quasi-Monte Carlo otherwise (three standard errors, 3e-4
        or less wherever 8 × 1,024 points bring it there). A singular covariance is allowed; a sample without any
        uncertainty has 0 or 1, and one with NaN or infinity, which answers no class, has 0.

        Args:
            y: (batch,) labels.
            seed: seed of the quasi-Monte Carlo points.

        Raises:
            OptionError: labels that do not fit.

        Source: Genz 1992, Numerical computation of multivariate normal probabilities.
        """
        self._check_labels(y)
        mean, cov = self.mean.cpu().double(), self.cov.cpu().double()
        finite = mean.isfinite().all(1) & cov.isfinite().flatten(1).all(1)
        value, error = torch.zeros(2, len(mean), dtype=torch.float64)
        if bool(finite.any()):
            others = _difference(y.cpu()[finite], mean.shape[1])
            centre = (others @ mean[finite, :, None])[..., 0]
            value[finite], error[finite] = orthant(centre, others @ cov[finite] @ others.mT, seed=seed)
        return Probability(value, error)

    def p_correct(self, y: Tensor, *, seed: int = 0) -> Tensor:
        """Return the value of `probability` alone, (batch,) float64 in [0, 1]; same arguments and errors."""
        return self.probability(y, seed=seed).value

    def effective_margin(self, y: Tensor | None = None) -> EffectiveMargin:
        """Return margins over their standard deviations; below 2 or so an answer is at risk.

        Args:
            y: (batch,) labels; default the class of the largest mean.

        Raises:
            OptionError: labels that do not fit.
        """
        if y is not None:
            self._check_labels(y)
        mean, cov = self.mean.cpu().double(), self.cov.cpu().double()
        own = mean.argmax(1) if y is None else y.cpu()
        at, variance = torch.arange(len(mean)), cov.diagonal(dim1=1, dim2=2)
        margin = mean[at, own, None] - mean
        std = (variance[at, own, None] + variance - 2 * cov[at, own]).clamp_min(0).sqrt()
        value = torch.where(std > 0, margin / std.clamp_min(1e-300), torch.where(margin > 0, torch.inf, -torch.inf))
        value = value.masked_fill(value.isnan(), -torch.inf)
        value[at, own] = torch.inf
        other = value.argmin(1)
        other = torch.where(other == own, (own + 1) % mean.shape[1], other)  # no class is nearer than infinity
        return EffectiveMargin(value[at, other], other, margin[at, other], std[at, other])

    def ranking(self, y: Tensor | None = None) -> Tensor:
        """Return the samples' indices, those most at risk (smallest effective margin) first, (batch,) int64."""
        return self.effective_margin(y).value.argsort(stable=True)

    def _check_labels(self, y: Tensor) -> None:
        batch, classes = self.mean.shape
        if y.shape != (batch,) or (batch and (int(y.min()) < 0 or int(y.max()) >= classes)):
            got = tuple(y.shape) if y.shape != (batch,) else f"{int(y.min())} to {int(y.max())}"
            raise OptionError("labels y", expected=f"({batch},) classes 0 to {classes - 1}", got=got)


Kind = TypeVar("Kind", bound="Uncertainty | LogitsAlongDepth")


def joined(parts: Sequence[Kind]) -> Kind:
    """Put the chunks of a batch together."""
    first = parts[0]
    if len(parts) == 1:
        return first
    values: dict[str, Any] = {}
    for name in (field.name for field in fields(first)):
        each = [getattr(part, name) for part in parts]
        if isinstance(each[0], LogitsAlongDepth):
            values[name] = joined(each)
        else:
            values[name] = torch.cat(each) if isinstance(each[0], Tensor) and name != "depth" else each[0]
    return type(first)(**values)


def _others(own: Tensor, classes: int) -> Tensor:
    """Return which classes are not the own one, (batch, classes) bool."""
    return torch.arange(classes) != own[:, None]


def _difference(own: Tensor, classes: int) -> Tensor:
    """Return the matrices that take z to (z_k − z_own)_{k ≠ own}, (batch, classes − 1, classes) float64."""
    rows = torch.eye(classes, dtype=torch.float64).expand(len(own), -1, -1)
    rows = rows[_others(own, classes)].unflatten(0, (len(own), classes - 1))
    return rows - torch.nn.functional.one_hot(own, classes).double()[:, None]
