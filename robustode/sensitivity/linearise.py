"""One forward pass at a batch of points, kept so that Jacobian products of both kinds can be asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from robustode.models.base import Classifier
from robustode.models.snode import SNODE


class Linearisation(Protocol):
    """The logits at a batch of points and products with their Jacobian J = ∂logits/∂input, sample by sample.

    Attributes:
        logits: (batch, classes), without a graph.
    """

    logits: Tensor

    def vjp(self, cotangent: Tensor) -> Tensor:
        """Return Jᵀw: (batch, classes) → (batch, *input_shape), or (batch, k, classes) → (batch, k, *input_shape)."""
        ...

    def jvp(self, delta: Tensor) -> Tensor:
        """Return Jδ: (batch, *input_shape) → (batch, classes)."""
        ...


COTANGENT_BYTES = 256 * 2**20  # largest batch of adjoints in flight


class FusedLinearisation:
    """Linearisation of an sNODE: one stored sweep; all cotangents travel in one batched reverse sweep."""

    def __init__(self, model: SNODE, x: Tensor) -> None:
        self._model, self._classes, self._scale = model, model.classes, model.encoding_scale
        self._flow = model.flow
        with torch.no_grad():
            model.check_shape(x)
            final, self._tape = self._flow.record(model.encode(x))
        self._state_bytes = final.numel() * final.element_size()
        self.logits = model.read(final)[:, : self._classes]

    @property
    def stored_bytes(self) -> int:
        """Bytes that the stored sweep takes for each row."""
        stages = (stage for step in self._tape.stages for stage in step)
        kept = [
            *self._tape.starts,
            *(part for stage in stages for part in (stage.slope, stage.input) if part is not None),
        ]
        return sum(part.numel() * part.element_size() for part in kept) // self._tape.rows

    @torch.no_grad()
    def vjp(self, cotangent: Tensor) -> Tensor:
        """Return Jᵀw; see `Linearisation`."""
        if cotangent.dim() == 3:
            at_once = max(1, COTANGENT_BYTES // max(1, self._state_bytes))
            return torch.cat([self._pull(part) for part in cotangent.split(at_once, dim=1)], dim=1)
        return self._pull(cotangent)

    def _pull(self, cotangent: Tensor) -> Tensor:
        pulled = self._flow.adjoint(self._tape, self._final(cotangent)).mul_(self._scale)
        return self._model.lift_transposed(pulled)

    def _final(self, cotangent: Tensor) -> Tensor:
        """Return λ(T) for a cotangent of the logits."""
        final = cotangent.new_zeros(*cotangent.shape[:-1], self._flow.bias.shape[-1])
        final[..., : self._classes] = cotangent
        return self._model.read_transposed(final)

    @torch.no_grad()
    def adjoints(self, cotangent: Tensor) -> Iterator[Tensor]:
        """Yield λ, (batch, *state), at depths T, T − h, ..., 0 for a cotangent (batch, classes) of the logits.

        Each is overwritten by the next.
        """
        yield from self._flow.adjoints(self._tape, self._final(cotangent))

    @torch.no_grad()
    def tangents(self, delta: Tensor) -> Iterator[Tensor]:
        """Yield ξ, (batch, *state), at depths 0, h, ..., T for a perturbation (batch, *input_shape) of the input."""
        yield from self._flow.tangents(self._tape, self._model.lift(delta) * self._scale)

    @torch.no_grad()
    def jvp(self, delta: Tensor) -> Tensor:
        """Return Jδ; see `Linearisation`."""
        pushed = self._flow.tangent(self._tape, self._model.lift(delta) * self._scale)
        return self._model.read(pushed)[:, : self._classes]


class AutogradLinearisation:
    """Linearisation of any module whose samples do not interact: one reverse pass of the batch for each cotangent.

    The tangent is taken by double backward, and by central differences where the module's backward, or a part of it,
    cannot itself be differentiated: where double backward raises, or where ⟨Jδ, w⟩ = ⟨δ, Jᵀw⟩ does not hold for a fixed
    random w. An output that carries no graph has the zero Jacobian.
    """

    def __init__(self, model: Classifier, x: Tensor) -> None:
        self._model = model
        with torch.enable_grad():
            self._x = x.detach().clone().requires_grad_(True)
            self._out = model(self._x)
        self.logits = self._out.detach()
        self._probe: tuple[Tensor, Tensor] | None = None

    def vjp(self, cotangent: Tensor) -> Tensor:
        """Return Jᵀw; see `Linearisation`."""
        if cotangent.dim() == 3:
            return torch.stack([self._pull(w) for w in cotangent.unbind(1)], dim=1)
        return self._pull(cotangent)

    def _pull(self, cotangent: Tensor) -> Tensor:
        if not self._out.requires_grad:
            return torch.zeros_like(self._x)
        (pulled,) = torch.autograd.grad(self._out, self._x, cotangent, retain_graph=True, allow_unused=True)
        return torch.zeros_like(self._x) if pulled is None else pulled.detach()

    def jvp(self, delta: Tensor) -> Tensor:
        """Return Jδ; see `Linearisation`."""
        if not self._out.requires_grad:
            return torch.zeros_like(self.logits)
        try:
            pushed = self._double_backward(delta)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return self._central_difference(delta)
        right = self._adjoint_holds(pushed, delta)
        return pushed if bool(right.all()) else torch.where(right[:, None], pushed, self._central_difference(delta))

    def _double_backward(self, delta: Tensor) -> Tensor:
        with torch.enable_grad():
            dummy = torch.zeros_like(self.logits, requires_grad=True)
            (pulled,) = torch.autograd.grad(self._out, self._x, dummy, create_graph=True)
        (pushed,) = torch.autograd.grad(pulled, dummy, delta, retain_graph=True)
        return pushed.detach()

    def _adjoint_holds(self, pushed: Tensor, delta: Tensor) -> Tensor:
        """Whether ⟨Jδ, w⟩ = ⟨δ, Jᵀw⟩ up to rounding, (batch,) bool."""
        if self._probe is None:
            w = torch.randn(self.logits.shape[1], generator=torch.Generator().manual_seed(0)).to(self.logits)
            w = w.expand_as(self.logits)
            self._probe = (w, self._pull(w).flatten(1))
        w, pulled = self._probe
        flat, eps = delta.flatten(1), torch.finfo(self.logits.dtype).eps
        error = ((pushed * w).sum(1) - (flat * pulled).sum(1)).abs()
        norm = torch.linalg.vector_norm
        tolerance = 1e-8 if self.logits.dtype == torch.float64 else max(1e-3, 32 * getattr(self._model, "unit", 0.0))
        allowed = tolerance * norm(pushed, dim=1) * norm(w, dim=1)
        return error <= allowed + 10 * eps * norm(flat, dim=1) * norm(pulled, dim=1)

    @torch.no_grad()
    def _central_difference(self, delta: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(delta.flatten(1), dim=1).clamp_min(torch.finfo(delta.dtype).tiny)
        scale = torch.finfo(delta.dtype).eps ** (1 / 3) / size
        h = scale.reshape(-1, *([1] * (delta.dim() - 1)))
        x = self._x.detach()
        return (self._model(x + h * delta) - self._model(x - h * delta)) / (2 * scale[:, None])


def linearise(model: Classifier, x: Tensor) -> Linearisation:
    """Run the model once at `x` (batch, *input_shape) and return its logits with Jacobian products.

    A model may bring its own method `linearise(x)` (the harness does, to count passes); an sNODE on a fixed grid uses
    the fused sweep, an adaptive one and any other module plain autograd.
    """
    own = getattr(model, "linearise", None)
    if own is not None:
        return own(x)
    if isinstance(model, SNODE) and model.solver is None:
        return FusedLinearisation(model, x)
    return AutogradLinearisation(model, x)
