"""Propagation of noise in the input and in the weights to the logits, by the method that is asked for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustode.errors import OptionError, unknown
from robustode.models.base import Classifier
from robustode.solvers.operators import Dense
from robustode.uncertainty.checked import checked
from robustode.uncertainty.closure import gaussian
from robustode.uncertainty.covariance import LowRank, input_root
from robustode.uncertainty.draws import monte_carlo
from robustode.uncertainty.gaussian import Uncertainty, joined
from robustode.uncertainty.linear import linear
from robustode.uncertainty.measures import Measures, measured
from robustode.uncertainty.problem import Problem, fused, snode
from robustode.uncertainty.sweep import window
from robustode.uncertainty.unscented import unscented
from robustode.uncertainty.weights import WeightNoise

CHUNK_BYTES = 256 * 2**20  # of what grows with the samples

METHODS: dict[str, Callable[[Problem, Tensor], Uncertainty]] = {
    "linear": linear,
    "gaussian": gaussian,
    "unscented": unscented,
    "monte-carlo": monte_carlo,
    "auto": checked,
}


def propagate(
    model: Classifier,
    x: Tensor,
    *,
    input_cov: float | Tensor | LowRank | None = None,
    weight_cov: WeightNoise | None = None,
    method: str = "linear",
    along_depth: bool = False,
    draws: int = 1000,
    generator: torch.Generator | None = None,
) -> Uncertainty:
    """Return mean and covariance of the logits under noise of the input and of the weights, independent of each other.

    Noise of the input is Gaussian and not clipped to the bounds; products are formed in float64. Samples are taken in
    chunks of bounded memory.

    - "linear": z(x) and J Σ Jᵀ + Σ_θ G_θ var_θ G_θᵀ, from one forward pass and `classes` cotangents (weights of another
      module than an sNODE: one reverse pass a sample and class). Right for small noise.
    - "gaussian": moment closure of a dense sNODE, exact to the Gaussian form of the state; see
      `robustode.uncertainty.closure`.
    - "unscented": sigma points of the input noise, see `robustode.uncertainty.unscented`.
    - "monte-carlo": draws, a `DrawnUncertainty` with standard errors.
    - "auto": linear where sigma points agree within 10 %, sigma points elsewhere: a `CheckedUncertainty` with a flag.

    Args:
        model: classifier.
        x: (batch, *input_shape).
        input_cov: Σ in squared raw-input units: a number σ² (isotropic), variances shaped like one input or (d,)
            (diagonal), a (d, d) matrix with d the number of input coordinates, or `LowRank(factor)`; None is no noise.
        weight_cov: `IIDWeights(sigma=...)`, `DepthWeights(variance=...)`, `int8()`; None is no noise.
        method: one of `METHODS`.
        along_depth: whether to give `.along`, the same at every depth of an sNODE on a fixed grid; by the linear method
            that costs (N + 1) classes cotangents.
        draws: Monte Carlo draws for each sample, ≥ 2.
        generator: source of the Monte Carlo draws (CPU); that method needs one.

    Raises:
        OptionError: an unknown method or one that the model does not allow, no noise, noise or inputs that do not fit
            or are not finite, a depth asked of a model without one.

    Source: arXiv 2205.13933, uncertainty propagation.
    """
    if method not in METHODS:
        raise unknown("method of uncertainty propagation", method, METHODS)
    if method == "monte-carlo" and generator is None:
        fix = "Give torch.Generator().manual_seed(0), for example."
        raise OptionError("generator", expected="one, for Monte Carlo", got="none", fix=fix)
    problem = make_problem(model, x, input_cov, weight_cov, along_depth, draws, generator)
    chunks = x.split(max(1, CHUNK_BYTES // _sample_bytes(problem, method)))
    return joined([METHODS[method](problem, chunk) for chunk in chunks])


def measure(
    model: Classifier,
    x: Tensor,
    *,
    input_cov: float | Tensor | LowRank | None = None,
    weight_cov: WeightNoise | None = None,
    along_depth: bool = False,
) -> Measures:
    """Return the linear uncertainty, sensitivity norms and directions of every sample, all from one sweep.

    `.effective_margin()` and `.ranking()` of the result, as of every `Uncertainty`, are the other two measures.
    Arguments and errors as for `propagate`.
    """
    problem = make_problem(model, x, input_cov, weight_cov, along_depth)
    chunks = x.split(max(1, CHUNK_BYTES // _sample_bytes(problem, "linear")))
    return joined([measured(problem, chunk) for chunk in chunks])


def make_problem(
    model: Classifier,
    x: Tensor,
    input_cov: float | Tensor | LowRank | None,
    weight_cov: WeightNoise | None,
    along_depth: bool,
    draws: int = 2,
    generator: torch.Generator | None = None,
) -> Problem:
    """Check the arguments of `propagate`, same errors, and return them as the methods take them."""
    if input_cov is None and weight_cov is None:
        raise OptionError("uncertainty propagation", expected="input_cov, weight_cov or both", got="neither")
    if weight_cov is not None and not isinstance(weight_cov, WeightNoise):
        expected = "IIDWeights(sigma=...), DepthWeights(variance=...) or int8()"
        raise OptionError("weight_cov", expected=expected, got=type(weight_cov).__name__)
    if draws < 2:
        raise OptionError("draws", expected="at least 2", got=draws)
    if along_depth:
        snode(model)
    shape = tuple(model.input_shape)
    _check_inputs(x, shape)
    return Problem(
        model=model,
        root=input_root(input_cov, shape),
        weights=weight_cov,
        variances=None if weight_cov is None else weight_cov.variances(model),  # type: ignore[arg-type]
        along=along_depth,
        draws=draws,
        generator=generator,
    )


def _check_inputs(x: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(x.shape[1:]) != shape or x.dim() == 0 or not len(x):
        raise OptionError("x", expected=f"(batch, {', '.join(map(str, shape))}), batch ≥ 1", got=tuple(x.shape))
    bad = (~x.isfinite()).flatten(1).any(1).nonzero()[:, 0]
    if len(bad):
        raise OptionError("x", expected="finite inputs", got=f"values that are not in sample {int(bad[0])}")


def _sample_bytes(problem: Problem, method: str) -> int:
    """Return about how much memory one sample takes at the most, in bytes."""
    model, d = problem.model, torch.Size(problem.model.input_shape).numel()
    columns = problem.depths * model.classes
    if method == "monte-carlo":
        return 3 * 8 * problem.draws * columns
    state = d
    if fused(model):
        flow = snode(model).flow
        state = max(snode(model).encode(torch.zeros(1, *model.input_shape)).numel(), flow.weight[0].numel())
        if isinstance(flow.operator, Dense):
            state = d
        if problem.variances is not None:
            columns *= 2 * (window(flow) if isinstance(flow.operator, Dense) else 2)
    sources = problem.root.sources(d) * (4 if method == "gaussian" else 1)
    return 8 * state * max(columns, sources if method in ("gaussian", "unscented") else 0, 3 * model.classes)
