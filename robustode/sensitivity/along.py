"""How large the state, a perturbation of it and the margin's gradient are at every depth of an sNODE."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.models.snode import SNODE
from robustode.sensitivity.linearise import FusedLinearisation

ALONG_BYTES = 256 * 2**20  # largest batch of adjoints kept at all depths


@dataclass(frozen=True, kw_only=True, eq=False)
class AlongDepth:
    """Sizes along the depth grid t_n = n h, n = 0 ... N; ‖·‖ is the Euclidean norm over all components of the state.

    ξ solves the sensitivity problem, ξ' = σ'(a) ⊙ W ξ, from ξ(0) = the encoded direction; λ solves the adjoint problem,
    −λ' = Wᵀ(σ'(a) ⊙ λ), from λ(T) = the gradient of the margin with respect to the final state, so that λ(t) is the
    gradient of the margin with respect to the state at depth t.

    Attributes:
        depth: t_n, (N + 1,) float64.
        state: ‖x(t)‖, (batch, N + 1).
        tangent: ‖ξ(t)‖, (batch, N + 1): where it rises, the perturbation grows.
        adjoint: ‖λ(t)‖, (batch, N + 1): where it is large, a disturbance of the state moves the margin most.
        pairing: ⟨λ(t), ξ(t)⟩, (batch, N + 1): the derivative of the margin along the direction, the same at every depth
            up to rounding, since the discrete adjoint is exact.
    """

    depth: Tensor
    state: Tensor
    tangent: Tensor
    adjoint: Tensor
    pairing: Tensor


def samples_at_once(model: SNODE, x: Tensor) -> int:
    """Return how many samples' adjoints at all depths fit into `ALONG_BYTES`, at least one."""
    state = model.encode(x[:1])
    return max(1, ALONG_BYTES // max(1, (model.steps + 1) * state.numel() * state.element_size()))


@torch.no_grad()
def along_depth(model: SNODE, linear: FusedLinearisation, x: Tensor, delta: Tensor, cotangent: Tensor) -> AlongDepth:
    """Follow a direction from the input to the output and the margin's gradient back.

    The adjoints of the batch are kept at all depths, see `samples_at_once`; of everything else only the sizes are.

    Args:
        model: an sNODE on a fixed grid.
        linear: its linearisation at x.
        x: (batch, *input_shape).
        delta: direction in the input, (batch, *input_shape).
        cotangent: gradient of the margin with respect to the logits, (batch, classes).
    """
    adjoints = [adjoint.flatten(1).clone() for adjoint in linear.adjoints(cotangent)]
    sizes = []
    for state, tangent in zip(model.flow.states(model.encode(x)), linear.tangents(delta), strict=True):
        adjoint, tangent = adjoints.pop(), tangent.flatten(1)
        norms = [part.flatten(1).norm(dim=1) for part in (state, tangent, adjoint)]
        sizes.append(torch.stack([*norms, (adjoint * tangent).sum(1)]))
    state, tangent, adjoint, pairing = torch.stack(sizes, dim=-1)
    depth = torch.arange(model.steps + 1, dtype=torch.float64) * (model.horizon / model.steps)
    return AlongDepth(depth=depth, state=state, tangent=tangent, adjoint=adjoint, pairing=pairing)
