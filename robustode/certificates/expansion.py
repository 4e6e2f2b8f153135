"""An sNODE around its nominal trajectory: every activation as a source of curvature, and where its effect arrives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Site:
    """One evaluation of σ, in a step and stage of the nominal pass; q is what its value deviates from linear by.

    Attributes:
        pre: a, (batch, features).
        slope, curvature: σ'(a), σ''(a).
        forms: G = ∂a/∂input, (batch, features, inputs).
        size: upper bound of ‖G‖₂, (batch,).
        gram: c_i c_j (G_i·G_j)² with c = σ'', (batch, features, features): yᵀ gram y = ‖Σ y_i c_i G_i G_iᵀ‖²_F.
        sources: what arrives at a, of the curvature of earlier sites.
    """

    pre: Tensor
    slope: Tensor
    curvature: Tensor
    forms: Tensor
    size: Tensor
    gram: Tensor
    sources: tuple[Arrival, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrival:
    """How the deviations of one group of sites arrive at some outputs: y_r · Σ_m V_m q_m for each output r.

    Attributes:
        group: number of the group, see `Group`.
        absolute: |y|, (batch, outputs, features) float32, rounded up.
        frobenius: (batch, outputs), ‖Σ_m Σ_i (y V_m)_i σ''_i G_i G_iᵀ‖_F: the second-order part is at most half of it
            times ‖δ‖₂².
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
    """A batch of nominal trajectories with all that a bound of second order needs of them, apart from ε.

    Attributes:
        sites: in the order of evaluation.
        groups: that `Arrival.group` numbers.
        states: x at depths 0, h, ..., T, (batch, features) each.
        linear: (batch, outputs, inputs), the gradients of the outputs that `expand` is asked for.
        outputs: how the groups arrive at them.
    """

    sites: tuple[Site, ...]
    groups: tuple[Group, ...]
    states: tuple[Tensor, ...]
    linear: Tensor
    outputs: tuple[Arrival, ...]
