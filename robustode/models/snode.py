"""The standalone neural ODE: a whole classifier as one ODE with depth-varying weights."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robustode.errors import ModelError
from robustode.models.config import validated
from robustode.models.snode_config import SNODEConfig
from robustode.solvers.activations import activation
from robustode.solvers.adaptive import AdaptiveSolver, changed_solver
from robustode.solvers.depth import knot_depths, smoothness
from robustode.solvers.field import Field
from robustode.solvers.flow import Flow
from robustode.solvers.graphs import GraphedFlow, Graphs
from robustode.solvers.operators import Dense, Operator
from robustode.solvers.rounded import Rounded
from robustode.solvers.solve import Solve
from robustode.solvers.tableau import tableau


class SNODE(nn.Module):
    """A standalone neural ODE classifier: x' = σ(W(t) x + b(t)), x(0) = encoding of the input, logits = first
    components of x(T).

    The affine encoding takes bounds[0] to `background` and bounds[1] to `foreground`, so that attacks and budgets live
    in `bounds`. W and b are piecewise linear in depth through `knots` values; Euler takes them at the middle of its
    step.

    Args:
        input_shape: shape of one sample; the state has prod(input_shape) components.
        classes: number of classes K, 2 ≤ K ≤ features.
        horizon: final depth T > 0.
        steps: number of equal steps N ≥ knots; not used by adaptive methods.
        knots: number of knots of the weights; default `steps`.
        activation: "tanh", "sigmoid", "relu" or another of `robustode.solvers.activations`.
        method: "euler", "midpoint" or "rk4" (the 3/8 rule, as in torchdiffeq); or an adaptive one.
        rtol, atol, backend: of an adaptive method, as in `AdaptiveSolver`; each has a default there.
        bounds: (lo, hi) of valid inputs; `forward` does not check them.
        background, foreground: encoded values of lo and hi.
        seed: seed of the initial weights: N(0, 1/features²) at integer depths, a cubic spline between.

    Raises:
        ModelError: a value out of its range; every problem is named.

    Source: Jaroudi et al., arXiv 2205.13933, eq. (1) and section 4.
    """

    arch: ClassVar[str] = "snode"
    schema: ClassVar[type[SNODEConfig]] = SNODEConfig
    operator: Operator = Dense()
    graphs: Graphs | None = None

    def __init__(self, *, seed: int = 0, **config: Any) -> None:
        super().__init__()
        config.setdefault("knots", config.get("steps", self.schema.model_fields["steps"].default))
        self._config = validated(self.schema, config, what="sNODE configuration")
        self.weight = nn.Parameter(torch.empty(self._config.knots, *self._config.weight_shape))
        self.bias = nn.Parameter(torch.empty(self._config.knots, self._config.weight_shape[0]))
        self.initialise(torch.Generator().manual_seed(seed))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw new weights: normal at integer depths, cubic spline at the knots."""
        from scipy.interpolate import CubicSpline

        (rows, *sizes), horizon = self._config.weight_shape, self._config.horizon
        nodes = torch.linspace(0.0, horizon, max(2, math.ceil(horizon) + 1), dtype=torch.float64)
        draws = torch.randn(len(nodes), rows, math.prod(sizes) + 1, generator=generator, dtype=torch.float64)
        draws /= self._config.inverse_spread
        path = CubicSpline(nodes.numpy(), draws.numpy())(knot_depths(self._config.knots, horizon).numpy())
        with torch.no_grad():
            self.weight.copy_(torch.from_numpy(path[..., :-1]).reshape(self.weight.shape))
            self.bias.copy_(torch.from_numpy(path[..., -1]))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SNODE:
        """Build the model that `config` describes, with weights to be loaded; it may be a view's."""
        steps, knots = config.get("steps"), config.get("knots")
        if isinstance(steps, int) and isinstance(knots, int) and 1 <= steps < knots:  # a coarse view that was saved
            return cls(**{**config, "steps": knots}).with_solver(steps=steps)
        return cls(**config)

    @property
    def config(self) -> dict[str, Any]:
        """The JSON-able configuration that `from_config` takes."""
        return self._config.model_dump(mode="json", exclude_none=True)

    @property
    def bounds(self) -> tuple[float, float]:
        """(lo, hi) of valid inputs."""
        return self._config.bounds

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self._config.classes

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self._config.input_shape

    @property
    def horizon(self) -> float:
        """Final depth T."""
        return self._config.horizon

    @property
    def steps(self) -> int:
        """Number of steps of the fixed grid."""
        return self._config.steps

    @property
    def solver(self) -> AdaptiveSolver | None:
        """The adaptive solver of the forward pass; None on a fixed grid."""
        return self._config.solver

    @property
    def nfe(self) -> int | None:
        """Evaluations of the right-hand side in one forward pass; None if it depends on the input, see `last_nfe`."""
        return self._config.steps * tableau(self._config.method).stages if self.solver is None else None

    @property
    def last_nfe(self) -> Tensor | None:
        """Evaluations for each sample of the last forward pass, (batch,) int64; None on a fixed grid and before it."""
        return getattr(self, "_last_nfe", None)

    @property
    def smoothness(self) -> float:
        """∫‖θ'(t)‖² dt over [0, T], weight and bias together; it does not depend on the steps or the solver."""
        parts = (self.weight, self.bias)
        return sum(float(smoothness(part.detach().double(), self.horizon)) for part in parts)

    @property
    def flow(self) -> Flow:
        """The discrete flow x(0) → x(T) with the present weights; raises `ModelError` if the method is adaptive."""
        self._check_fixed()
        values: dict[str, Any] = {
            "weight": self.weight,
            "bias": self.bias,
            "horizon": self.horizon,
            "steps": self._config.steps,
            "tableau": tableau(self._config.method),
            "activation": activation(self._config.activation),
            "operator": self.operator,
        }
        return Flow(**values) if self.graphs is None else GraphedFlow(**values, graphs=self.graphs)

    @property
    def encoding_scale(self) -> float:
        """Derivative of the encoding: (foreground − background) / (hi − lo)."""
        lo, hi = self.bounds
        return (self._config.foreground - self._config.background) / (hi - lo)

    def encode(self, x: Tensor) -> Tensor:
        """Return x(0), (batch, *state): inputs mapped affinely from `bounds` to [background, foreground], lifted."""
        return self.lift((x - self.bounds[0]) * self.encoding_scale + self._config.background)

    def lift(self, x: Tensor) -> Tensor:
        """Return inputs (batch, *input_shape) as states, (batch, *state): the linear map of the encoding."""
        return x.flatten(1)

    def lift_transposed(self, state: Tensor) -> Tensor:
        """Return the transpose of `lift`: (..., *state) → (..., *input_shape)."""
        return state.unflatten(-1, self.input_shape)

    def read(self, state: Tensor) -> Tensor:
        """Return what is read of states (..., *state), a linear map to vectors; first the `classes` logits."""
        return state

    def read_transposed(self, final: Tensor) -> Tensor:
        """Return the transpose of `read`, as states."""
        return final

    def final_state(self, x: Tensor) -> Tensor:
        """Return x(T) as it is `read`, (batch, features), for inputs (batch, *input_shape)."""
        self.check_shape(x)
        if (solver := self.solver) is not None:
            x0, sigma = self.encode(x), activation(self._config.activation)
            shape = tuple(x0.shape[1:])
            field = Field(self.weight, self.bias, self.horizon, sigma, self.operator, shape)
            solution = solver.solve(field, x0.flatten(1))
            self._last_nfe = solution.nfe
            return self.read(solution.state.unflatten(1, shape))
        if not torch.is_grad_enabled():  # nothing is recorded
            return self.read(self.flow.forward(self.encode(x)))
        return self.read(Solve.apply(self.encode(x), self.weight, self.bias, self.flow))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, (batch, classes): the first components of `final_state`."""
        return self.final_state(x)[:, : self.classes]

    def at_steps(self, steps: int, method: str | None = None) -> SNODE:
        """Return the same network on another grid, `with_solver(steps=steps, method=method)`.

        θ is a function of depth, so fewer steps than knots are allowed here: this is the coarse model of a multilevel
        attack.

        Raises:
            ModelError: steps < 1, or a method that is unknown or adaptive.
        """
        return self.with_solver(steps=steps, method=method)

    def with_solver(
        self,
        *,
        method: str | None = None,
        steps: int | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        backend: str | None = None,
    ) -> SNODE:
        """Return the same network under another solver: a view that shares the weights and has a `config` of its own.

        Args:
            method: fixed-step or adaptive; None keeps the model's own.
            steps: steps N ≥ 1 of a fixed-step method; None keeps the model's own.
            rtol, atol, backend: of an adaptive method, see `AdaptiveSolver`; None keeps the model's own, or is the
                default.

        Raises:
            ModelError: an unknown method, a value out of its range, or one that the method does not have.
        """
        changes = changed_solver(self._config, method=method, steps=steps, rtol=rtol, atol=atol, backend=backend)
        view = self._view()
        view._config = self._config.model_copy(update=changes)
        return view

    def searched(self, *, products: torch.dtype | None = None, graphs: Graphs | None = None) -> SNODE:
        """Return the same network as an attack may search on it, faster: a view that shares the weights.

        Args:
            products: what factors of products are rounded to (`Rounded`), torch.bfloat16 or torch.float16; None for
                their own format.
            graphs: where captured sweeps are kept (`GraphedFlow`); None to capture none.

        Raises:
            ModelError: the solver is adaptive: it has no sweep of its own, and its steps would follow the rounding.
        """
        self._check_fixed()
        view = self._view()
        view.graphs = graphs
        if products is not None:
            view.operator = Rounded(self.operator, products)
        return view

    def _view(self) -> SNODE:
        """Return another module of the same weights and values."""
        view = object.__new__(type(self))
        nn.Module.__init__(view)
        view._config, view.weight, view.bias = self._config, self.weight, self.bias
        view.operator, view.graphs = self.operator, self.graphs
        view.train(self.training)
        return view

    def _check_fixed(self) -> None:
        """Raise `ModelError` if the method is adaptive."""
        if self.solver is not None:
            fix = "Take a fixed grid: model.with_solver(method='rk4', steps=N)."
            raise ModelError("fused sweep", expected="a fixed-step method", got=f"{self.solver}", fix=fix)

    def check_shape(self, x: Tensor) -> None:
        """Raise `ModelError` unless `x` is (batch, *input_shape)."""
        if tuple(x.shape[1:]) != self.input_shape:
            raise ModelError(
                f"input of {self.arch} model",
                expected=f"shape (batch, {', '.join(map(str, self.input_shape))})",
                got=tuple(x.shape),
            )

    def extra_repr(self) -> str:
        """Configuration shown by `repr`."""
        c = self._config
        grid = f"T={c.horizon:g}, {self.solver or f'{c.steps} {c.method} steps'}, {c.knots} knots"
        return f"{c.features} features, {c.classes} classes, {c.activation}, {grid}"
