"""Moment closure of a dense sNODE: mean and covariance of the state as if it were Gaussian at every depth."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from robustode.errors import OptionError
from robustode.solvers.activations import Activation
from robustode.solvers.operators import Dense
from robustode.solvers.tape import Stage, Tape
from robustode.uncertainty.gaussian import Uncertainty
from robustode.uncertainty.problem import Problem, double, fused, gram, snode
from robustode.uncertainty.sweep import swept

NODES = 20  # of the Gauss–Hermite rule of each neuron


def gaussian(problem: Problem, x: Tensor) -> Uncertainty:
    """Return mean and covariance by the closure m' = E[σ(a)], Σ' = D W Σ + Σ Wᵀ D with D = diag E[σ'(a)].

    a ~ N(W m + b, W Σ Wᵀ), of which each neuron needs its own mean and variance. On the grid of x, by its own
    Runge–Kutta method: a stage at z = x + h Σ_j a_ij k_j has the mean m_i and the factor L_i (Σ = L Lᵀ), and gives
    k_i = E[σ(a)] with the factor D_i W L_i; so Euler's step is m ← m + h E[σ(a)], L ← (I + h D W) L, and Σ cannot lose
    its semidefiniteness. The weight term is the reverse sweep of the linear method through these averaged slopes and
    means; weight noise widens a at the stage where it acts, but not, through the state, those after it.

    A sample costs `steps` products of the (features, features) weights with all sources of noise: as much as that many
    draws.

    Raises:
        OptionError: the model is no dense sNODE on a fixed grid.

    Source: statistical linearisation, Gelb, Applied Optimal Estimation, 1974, section 6.2.
    """
    model = problem.model
    if not fused(model) or not isinstance(snode(model).operator, Dense):
        expected, got = "a dense sNODE or layered model on a fixed grid", type(model).__name__
        raise OptionError("method 'gaussian'", expected=expected, got=got, fix="Use 'unscented' or 'linear'.")
    return _Closure(problem).run(x)


class _Closure:
    """One pass of the closure."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.model = problem, snode(problem.model)
        self.flow = self.model.flow
        knots = len(self.flow.bias)
        noise = problem.variances or {}
        zero = torch.zeros((), dtype=torch.float64)
        self.variance = [noise.get(name, zero).expand(knots).tolist() for name in ("weight", "bias")]

    @torch.no_grad()
    def run(self, x: Tensor) -> Uncertainty:
        """Return the moments at the depths asked for."""
        problem, model = self.problem, self.model
        model.check_shape(x)
        mean = model.encode(x)
        d = mean.shape[1]
        root = problem.root.push(torch.eye(problem.root.sources(d), dtype=torch.float64)).to(mean)
        factor = (root * model.encoding_scale).expand(len(x), -1, -1)
        tape = Tape((mean,), self.flow.steps, (), True)
        means, covs, stages = [], [], []
        for n in range(self.flow.steps + 1):
            if n:
                mean, factor, recorded = self._step(mean, factor, n - 1)
                stages.append(recorded)
            if problem.along or n == self.flow.steps:
                means.append(mean[:, : model.classes])
                covs.append(gram(double(factor[..., : model.classes]).mT))
        mean, cov = torch.stack(means, 1), torch.stack(covs, 1)
        if problem.variances is not None:
            tape = Tape(tape.starts, tape.segment, tuple(stages), True)
            weights = swept(model, tape, len(x), depths=problem.along, variances=problem.variances).weights
            assert weights is not None  # variances were given
            cov = cov + weights.to(cov)
        return Uncertainty(mean=mean[:, -1], cov=cov[:, -1], along=problem.along_depth(mean, cov))

    def _step(self, mean: Tensor, factor: Tensor, n: int) -> tuple[Tensor, Tensor, tuple[Stage, ...]]:
        """Advance the mean (batch, features) and the factor (batch, sources, features) by one step."""
        flow, h = self.flow, self.flow.step
        values: list[Tensor] = []
        factors: list[Tensor] = []
        stages: list[Stage] = []
        for i in range(flow.tableau.stages):
            z, spread = mean, factor
            for a, value, rows in zip(flow.tableau.a[i], values, factors, strict=True):
                if a:
                    z, spread = torch.add(z, value, alpha=h * a), torch.add(spread, rows, alpha=h * a)
            weight, bias = flow.parameters(n, i)
            pushed = spread @ weight.t()
            variance = pushed.square().sum(1) + self._own(z, spread, n, i)
            value, slope = averaged(flow.activation, torch.addmm(bias, z, weight.t()), variance.sqrt())
            values.append(value)
            factors.append(pushed.mul_(slope[:, None]))
            stages.append(Stage(slope, z))
        for b, value, rows in zip(flow.tableau.b, values, factors, strict=True):
            if b:
                mean, factor = torch.add(mean, value, alpha=h * b), torch.add(factor, rows, alpha=h * b)
        return mean, factor, tuple(stages)

    def _own(self, z: Tensor, spread: Tensor, n: int, i: int) -> Tensor:
        """Return the variance of δW z + δb at a stage, (batch, 1): var_W E‖z‖² + var_b between the knots."""
        k, w = self.flow.positions[n][i]
        weight, bias = (v[k] * (1 - w) ** 2 + (v[k + 1] * w**2 if w else 0.0) for v in self.variance)
        size = z.square().sum(1) + spread.square().sum((1, 2))
        return (size * weight + bias)[:, None]


@cache
def _rule() -> list[tuple[float, float]]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    return list(zip(nodes.tolist(), (weights / weights.sum()).tolist(), strict=True))


def averaged(activation: Activation, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Return E[σ(a)] and E[σ'(a)] for a ~ N(mean, std²), by Gauss–Hermite quadrature.

    Where σ has a kink, E[σ'(a)] is taken as E[σ(a) (a − mean)] / std², which is the same and does not see the jump.
    """
    value, slope = torch.zeros_like(mean), torch.zeros_like(mean)
    moment = None if activation.smooth else torch.zeros_like(mean)
    for node, weight in _rule():
        at = activation.apply(torch.add(mean, std, alpha=node))
        value.add_(at, alpha=weight)
        if moment is not None:
            moment.add_(at, alpha=weight * node)
        slope.add_(activation.slope_(at), alpha=weight)
    if moment is not None:
        wide = std > 1e-4 * (1 + mean.abs())
        slope = torch.where(wide, moment / std.clamp_min(1e-30), activation.slope(activation.apply(mean)))
    return value, slope
