"""An sNODE around a reference trajectory: every activation with what it deviates by, and where that arrives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustode.certificates.fit import Fit


@dataclass(frozen=True, kw_only=True, eq=False)
class Site:
    """One evaluation of σ, in a step and stage of the reference trajectory.

    Attributes:
        fit: σ near the reference pre-activation, (batch, features).
        forms: G = ∂a/∂input, (batch, features, inputs).
        above, below: (batch, features), G δ ≤ above · ε and ≥ −below · ε in the ball.
        size: upper bound of ‖G‖₂, (batch,).
        sources: what arrives at a, of the deviations of earlier sites.
    """

    fit: Fit
    forms: Tensor
    above: Tensor
    below: Tensor
    size: Tensor
    sources: tuple[Arrival, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrival:
    """How the deviations of one group of sites arrive at some outputs: y_r · Σ_m V_m q_m for each output r.

    Attributes:
        group: number of the group, see `Group`.
        absolute: |y|, (batch, outputs, features) float32, rounded up.
        frobenius: (batch, outputs), ‖Σ_m Σ_i (y V_m)_i c_i G_i G_iᵀ‖_F with the curvatures c of the fits: the part of
            second order is at most half of it times ‖δ‖₂².
    """

    group: int
    absolute: Tensor
    frobenius: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Sites whose deviations are taken together: one site, or all of a block of steps as they arrive at its end.

    Attributes:
        sites: their numbers.
        reach: |V_m| for each, (batch, features, features); None for the identity.
        weights: v_m, near which V_m is v_m I.
        rest: |V_m − v_m I|, None for nothing.
    """

    sites: tuple[int, ...]
    reach: tuple[Tensor | None, ...]
    weights: tuple[float, ...]
    rest: tuple[Tensor | None, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Expansion:
    """A batch of reference trajectories with all that a bound of second order needs of them, apart from ε.

    Attributes:
        sites: in the order of evaluation.
        groups: that `Arrival.group` numbers.
        states: x at depths 0, h, ..., T, (batch, features) each.
        values: (batch, outputs), the outputs on the reference trajectory.
        linear: (batch, outputs, inputs), the gradients of the outputs that `expand` is asked for.
        outputs: how the groups arrive at them.
    """

    sites: tuple[Site, ...]
    groups: tuple[Group, ...]
    states: tuple[Tensor, ...]
    values: Tensor
    linear: Tensor
    outputs: tuple[Arrival, ...]
