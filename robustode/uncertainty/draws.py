"""Monte Carlo: mean, covariance and answers from draws of the noise, with the standard error of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustode.uncertainty.gaussian import Uncertainty
from robustode.uncertainty.orthant import Probability
from robustode.uncertainty.problem import Problem, double, gram

ROWS = 4096  # points in flight


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnUncertainty(Uncertainty):
    """Sample moments of drawn logits; `probability` counts answers instead of assuming a Gaussian.

    Attributes:
        draws: n, for each sample.
        mean_error: standard error of `mean`, (batch, classes) float64.
        cov_error: standard error of `cov`, (batch, classes, classes) float64.
        shares: of the draws that answer each class, (batch, classes) float64; an answer with NaN is of no class.
    """

    draws: int
    mean_error: Tensor
    cov_error: Tensor
    shares: Tensor

    def probability(self, y: Tensor, *, seed: int = 0) -> Probability:
        """Return the share p of correct draws and its standard error √(p(1 − p)/(n − 1)); `seed` is not used.

        That of the Gaussian with these moments is `Uncertainty(mean=d.mean, cov=d.cov).probability(y)`.

        Raises:
            OptionError: labels that do not fit.
        """
        self._check_labels(y)
        p = self.shares[torch.arange(len(y)), y.cpu()]
        return Probability(p, (p * (1 - p) / (self.draws - 1)).sqrt())


@torch.no_grad()
def monte_carlo(problem: Problem, x: Tensor) -> DrawnUncertainty:
    """Draw the noise, not clipped to the bounds, and return the moments of the logits; see `propagate`.

    The covariance is the unbiased one, and its standard error √(Var[d_i d_j] / n) with d the deviations from the mean.
    A draw of the weights is one network that all samples of a chunk go through.
    """
    z = _logits(problem, x)  # (draws, batch, depths, classes)
    last = z[:, :, -1]
    answers = last.argmax(-1).masked_fill(last.isnan().any(-1), -1)
    shares = torch.stack([(answers == k).double().mean(0) for k in range(last.shape[-1])], dim=1).cpu()
    n = len(z)
    mean = z.mean(0)
    deviation = z - mean
    cov = gram(deviation.movedim(0, -1)) / (n - 1)
    final = deviation[:, :, -1]
    error = torch.stack([(final * final[..., k, None]).std(0) for k in range(z.shape[-1])], dim=1)
    return DrawnUncertainty(
        mean=mean[:, -1],
        cov=cov[:, -1],
        along=problem.along_depth(mean, cov),
        draws=n,
        mean_error=cov[:, -1].diagonal(dim1=1, dim2=2).clamp_min(0).sqrt() / n**0.5,
        cov_error=error / n**0.5,
        shares=shares,
    )


def _logits(problem: Problem, x: Tensor) -> Tensor:
    """Return the logits of all draws in float64, (draws, batch, depths, classes)."""
    generator, model = problem.generator, problem.model
    assert generator is not None  # checked where the problem is made
    sources = problem.root.sources(x[0].numel())
    each = 1 if problem.weights is not None else max(1, ROWS // len(x))
    parts = []
    for start in range(0, problem.draws, each):
        count = min(each, problem.draws - start)
        xi = torch.randn(count, len(x), sources, generator=generator, dtype=x.dtype).to(x.device)
        points = x + problem.root.push(xi).reshape(count, *x.shape)
        parameters = None
        if problem.weights is not None:
            assert isinstance(model, nn.Module)  # it has named parameters
            parameters = problem.weights.draw(model, generator)
        z = problem.logits(points.flatten(0, 1), parameters)
        parts.append(double(z).unflatten(0, (count, len(x))))
    return torch.cat(parts)
