"""First-order propagation: mean z(x), Cov[z] ≈ J Σ Jᵀ + Σ_θ G_θ var_θ G_θᵀ, right for small noise."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustode.sensitivity.linearise import linearise
from robustode.uncertainty.gaussian import Uncertainty
from robustode.uncertainty.problem import Problem, double, fused, gram, snode
from robustode.uncertainty.sweep import swept
from robustode.uncertainty.weights import beside


class FirstOrder(NamedTuple):
    """One forward pass and `classes` cotangents of it, at the depths asked for.

    Attributes:
        logits: (batch, depths, classes).
        rows: their derivatives with respect to the input, (batch, depths, classes, *input_shape).
        weights: the part of their covariance that is due to the weights, (batch, depths, classes, classes) float64, or
            None.
    """

    logits: Tensor
    rows: Tensor
    weights: Tensor | None

    def covariance(self, problem: Problem) -> Tensor:
        """Return the covariance of the logits, (batch, depths, classes, classes) float64."""
        out = gram(problem.root.pull(double(self.rows.flatten(3))))
        return out if self.weights is None else out + self.weights.to(out)


def first_order(problem: Problem, x: Tensor) -> FirstOrder:
    """Linearise at every sample: one reverse sweep of an sNODE, autograd for any other module."""
    model = problem.model
    if fused(model):
        return _sweep(problem, x)
    linear = linearise(model, x)
    eye = torch.eye(linear.logits.shape[1], dtype=linear.logits.dtype, device=linear.logits.device)
    rows = linear.vjp(eye.expand(len(x), -1, -1))
    weights = None
    if problem.variances is not None:
        assert isinstance(model, nn.Module)  # it has named parameters
        weights = weight_covariance(model, x, problem.variances)[:, None]
    return FirstOrder(linear.logits[:, None], rows[:, None], weights)


@torch.no_grad()
def _sweep(problem: Problem, x: Tensor) -> FirstOrder:
    model, noisy = snode(problem.model), problem.variances is not None
    model.check_shape(x)
    if problem.along:
        logits = problem.logits(x)
        _, tape = model.flow.record(model.encode(x), inputs=noisy)
    else:
        final, tape = model.flow.record(model.encode(x), inputs=noisy)
        logits = model.read(final)[:, None, : model.classes]
    rows, weights = swept(model, tape, len(x), depths=problem.along, variances=problem.variances)
    return FirstOrder(logits, rows, weights)


def weight_covariance(model: nn.Module, x: Tensor, variances: dict[str, Tensor]) -> Tensor:
    """Return Σ_θ G_θ diag(var_θ) G_θᵀ, (batch, classes, classes) float64, by one reverse pass a sample and class."""
    parameters = {
        name: p.detach().clone().requires_grad_() for name, p in model.named_parameters() if name in variances
    }
    leaves, total = list(parameters.values()), []
    for sample in x.split(1):
        with torch.enable_grad():
            logits = torch.func.functional_call(model, parameters, (sample,))[0]
        rows: list[list[Tensor]] = [[] for _ in leaves]
        for logit in logits:
            found = [None] * len(leaves)
            if logit.requires_grad:
                found = torch.autograd.grad(logit, leaves, retain_graph=True, allow_unused=True)
            for kept, leaf, gradient in zip(rows, leaves, found, strict=True):
                kept.append(torch.zeros_like(leaf) if gradient is None else gradient)
        cov = 0
        for name, kept in zip(parameters, rows, strict=True):
            scale = beside(variances[name].sqrt(), kept[0])
            gradients = double(torch.stack(kept))
            cov = cov + gram((gradients * scale.to(gradients)).flatten(1))
        total.append(torch.as_tensor(cov))
    return torch.stack(total)


def linear(problem: Problem, x: Tensor) -> Uncertainty:
    """Return the first-order mean and covariance; see `propagate`."""
    found = first_order(problem, x)
    cov = found.covariance(problem)
    return Uncertainty(mean=found.logits[:, -1], cov=cov[:, -1], along=problem.along_depth(found.logits, cov))
