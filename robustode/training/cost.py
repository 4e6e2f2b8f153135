"""The training cost E: three terms at the final depth and two in the weights, whatever solver and grid are used."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from robustode.errors import TrainingError


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The contributions to the cost, each with its factor μ; means over the batch."""

    mismatch: float = 0.0
    cross_entropy: float = 0.0
    drift: float = 0.0
    weights: float = 0.0
    log_norm: float = 0.0

    @property
    def total(self) -> float:
        """E, their sum."""
        return self.mismatch + self.cross_entropy + self.drift + self.weights + self.log_norm

    def as_dict(self) -> dict[str, float]:
        """Return the terms and their total by name."""
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost E = mean over the batch of [μ₁/2 ‖x(T) − y‖² + μ₂ CE(logits, class) + μ₃/2 ‖x(T) − T σ(0)‖²]
    + μ₄/2 ∫‖θ(t)‖² dt + μ₅/2 ∫ max(0, μ(W(t)))² dt.

    x(T) is the final state, (batch, features); y is one-hot over all its components, the logits are its first
    `classes` components, CE is in nats. T σ(0) is where a network with zero weights takes the origin. Both integrals
    are lumped sums over the knots, (T / knots) Σ_k, of ‖θ_k‖², W and b together, and of max(0, μ_k)². μ(W) is an upper
    bound of the L2 log norm of diag(s) W over all slopes s of σ (`robustode.training.log_norm`): trajectories part by
    at most exp(∫μ dt), and of all weights with the same integral those with the same μ at every depth cost least. A
    module without final state is judged by its logits in place of x(T), with μ₃ = μ₄ = μ₅ = 0.

    Args:
        mu1, mu2, mu3, mu4, mu5: factors of mismatch, cross entropy, drift, weights and log norm, finite and ≥ 0; at
            least one of μ₁, μ₂ positive.

    Raises:
        TrainingError: a factor out of its range.

    Source: Jaroudi et al., arXiv 2205.13933, cost functional; with cross entropy and log norm added.
    """

    mu1: float = 0.0
    mu2: float = 1.0
    mu3: float = 0.0
    mu4: float = 0.0
    mu5: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise TrainingError(f"cost factor {name}", expected="a finite number ≥ 0", got=repr(value))
        if self.mu1 == 0 and self.mu2 == 0:
            got = "mu1 = mu2 = 0, which does not depend on the labels"
            raise TrainingError("cost", expected="a positive mu1 or mu2", got=got)

    def terminal(self, state: Tensor, labels: Tensor, *, classes: int, rest: float = 0.0) -> Tensor:
        """Return the three terms in x(T), each a mean over the batch with its factor: shape (3,), differentiable.

        Args:
            state: x(T), (batch, features), or logits (batch, classes).
            labels: (batch,) int64.
            classes: number of leading components that are logits.
            rest: T σ(0).
        """
        zero = state.new_zeros(())
        mismatch = self.mu1 / 2 * _mean_square(state - _one_hot(labels, state)) if self.mu1 else zero
        entropy = zero
        if self.mu2:
            entropy = self.mu2 * torch.nn.functional.cross_entropy(state[:, :classes], labels)
        drift = self.mu3 / 2 * _mean_square(state - rest) if self.mu3 else zero
        return torch.stack([mismatch, entropy, drift])

    def terminal_gradient(self, state: Tensor, labels: Tensor, *, classes: int, rest: float = 0.0) -> Tensor:
        """Return λ(T) = ∂E/∂x(T), (batch, features):
        [μ₁ (x(T) − y) + μ₂ (softmax(logits) − y) + μ₃ (x(T) − T σ(0))] / batch. Arguments as for `terminal`.
        """
        gradient = self.quadratic_gradient(state, labels, rest=rest)
        if self.mu2:
            logits = state[:, :classes]
            gradient[:, :classes] += self.mu2 / len(state) * (logits.softmax(1) - _one_hot(labels, logits))
        return gradient

    def quadratic_gradient(self, state: Tensor, labels: Tensor, *, rest: float = 0.0) -> Tensor:
        """Return the affine part of `terminal_gradient`: [μ₁ (x(T) − y) + μ₃ (x(T) − T σ(0))] / batch."""
        return (self.mu1 * (state - _one_hot(labels, state)) + self.mu3 * (state - rest)) / len(state)

    def path(self, *parameters: Tensor, horizon: float, log_norms: Tensor | None = None) -> Tensor:
        """Return the two terms in the weights, μ₄/2 (T / knots) Σ_k ‖θ_k‖² and μ₅/2 (T / knots) Σ_k max(0, μ_k)²: shape
        (2,), differentiable.

        Args:
            parameters: each (knots, ...).
            horizon: T.
            log_norms: μ_k, (knots,); None leaves their term out.
        """
        zero, spacing = parameters[0].new_zeros(()), horizon / len(parameters[0])
        total = sum((parameter.square().sum() for parameter in parameters), zero) if self.mu4 else zero
        growth = zero if log_norms is None else log_norms.clamp(min=0).square().sum()
        return torch.stack([self.mu4 / 2 * spacing * total, self.mu5 / 2 * spacing * growth])

    def path_gradient(self, parameter: Tensor, *, horizon: float) -> Tensor:
        """Return the derivative of the term of μ₄ with respect to the knots (Euclidean): μ₄ (T / knots) θ_k."""
        return self.mu4 * horizon / len(parameter) * parameter

    def log_norm_slope(self, log_norms: Tensor, *, horizon: float) -> Tensor:
        """Return the derivative of the term of μ₅ with respect to μ_k: μ₅ (T / knots) max(0, μ_k)."""
        return self.mu5 * horizon / len(log_norms) * log_norms.clamp(min=0)

    @property
    def needs_depth(self) -> bool:
        """Whether the cost speaks of depth and its weights, which only an sNODE or its layered twin has."""
        return self.mu3 > 0 or self.mu4 > 0 or self.mu5 > 0


def terms(terminal: Tensor, path: Tensor) -> Terms:
    """Return the reported values of `Cost.terminal` and `Cost.path`."""
    mismatch, entropy, drift = terminal.detach().double().tolist()
    weights, log_norm = path.detach().double().tolist()
    return Terms(mismatch=mismatch, cross_entropy=entropy, drift=drift, weights=weights, log_norm=log_norm)


def _one_hot(labels: Tensor, state: Tensor) -> Tensor:
    return torch.zeros_like(state).scatter_(1, labels[:, None], 1.0)


def _mean_square(values: Tensor) -> Tensor:
    return values.square().sum(1).mean()
