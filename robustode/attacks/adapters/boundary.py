"""The boundary between a classifier and an attack of another library: the model as deployed, in the library's units."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from robustode.attacks.adapters.rng import forked_rng
from robustode.attacks.base import AttackResult, Randomness, assess, one_generator
from robustode.errors import AttackError, BudgetError
from robustode.models.base import Classifier


class UnitBox(nn.Module):
    """A classifier as a module on the unit box: logits of lo + (hi − lo) u, with u of shape (batch, channels, h, w).

    Libraries hard-code [0, 1], or have absolute defaults that suit it only; inputs that are not images become
    (features, 1, 1). Nothing is rescaled if the bounds are [0, 1] already.

    Args:
        model: the classifier; its `bounds` are raw-input units.
        x: (batch, *input_shape), inputs whose shape, device and dtype the classifier takes.
        dtype: floating type of u; that of x if None.

    Attributes:
        span: hi − lo, by which lengths in raw-input units are divided.
    """

    def __init__(self, model: Classifier, x: Tensor, *, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.model = model
        self.bounds, self.span = model.bounds, model.bounds[1] - model.bounds[0]
        self.raw_shape, self.raw_dtype, self.dtype = x.shape[1:], x.dtype, dtype or x.dtype
        self.shape = x.shape[1:] if x.dim() == 4 else (x[0].numel(), 1, 1)
        # torchattacks looks for the device of the first parameter.
        self.anchor = nn.Parameter(torch.zeros(0, device=x.device), requires_grad=False)
        self.eval()

    def enter(self, x: Tensor) -> Tensor:
        """Map raw inputs to the unit box."""
        u = x if self.bounds == (0.0, 1.0) else (x - self.bounds[0]) / self.span
        return u.reshape(-1, *self.shape).to(self.dtype)

    def leave(self, u: Tensor) -> Tensor:
        """Map points of the unit box to where the classifier was evaluated, and clamp them to its bounds."""
        return self._raw(u.detach()).clamp(*self.bounds)

    def forward(self, u: Tensor) -> Tensor:
        return self.model(self._raw(u)).to(self.dtype)

    def _raw(self, u: Tensor) -> Tensor:
        x = u.to(self.raw_dtype).reshape(-1, *self.raw_shape)
        return x if self.bounds == (0.0, 1.0) else self.bounds[0] + self.span * x


@contextmanager
def untouched(model: Classifier) -> Iterator[None]:
    """Run with the model in eval mode, its parameters frozen and gradients enabled; leave it exactly as it was found.

    Freezing spares the gradients of the weights, which some libraries compute and leave in `.grad`.
    """
    with ExitStack() as stack:
        for module in {id(part): part for part in (model, getattr(model, "bare", model))}.values():
            if not isinstance(module, nn.Module):
                continue
            for part in module.modules():
                stack.callback(setattr, part, "training", part.training)
            for parameter in module.parameters():
                stack.callback(parameter.requires_grad_, parameter.requires_grad)
                parameter.requires_grad_(False)
            module.eval()
        stack.enter_context(torch.enable_grad())
        yield


@contextmanager
def sandbox(model: Classifier, generator: Randomness) -> Iterator[int]:
    """Run with the model `untouched` and every random state forked from `generator`; yields the seed drawn from it."""
    with untouched(model), forked_rng(one_generator(generator)) as seed:
        yield seed


@contextmanager
def quiet(*messages: str) -> Iterator[None]:
    """Run without the warnings that begin with one of `messages`; all others pass."""
    with warnings.catch_warnings():
        for message in messages:
            warnings.filterwarnings("ignore", re.escape(message))
        yield


def judge(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    x_adv: Tensor,
    *,
    norm: str,
    eps: float | None,
    target: Tensor | None,
    claimed: Tensor | None = None,
) -> AttackResult:
    """Assess the points of another library's attack; a point that is not finite becomes the clean input, a failure.

    `claimed` is what the attack says of its own success, which is kept and not believed.
    """
    x_adv = x_adv.detach().to(x)
    finite = torch.isfinite(x_adv).flatten(1).all(1).reshape(-1, *([1] * (x.dim() - 1)))
    point = torch.where(finite, x_adv, x)
    return assess(model, x, y, point, norm=norm, eps=eps, target=target, returned=x_adv, claimed=claimed)


def check_budget(what: str, eps: float | None, *, minimal: bool, can_minimise: bool, needs_eps: bool) -> float | None:
    """Return the radius that an attack is judged at, None for a minimal-norm run.

    Args:
        what: name of the attack in messages.
        eps: radius that was asked for, in raw-input units.
        minimal: whether a run without a ball was asked for; `eps` is then not used.
        can_minimise: whether the attack runs without a ball.
        needs_eps: whether every run that is not minimal must have a radius.

    Raises:
        AttackError: minimal norm asked of an attack that searches inside a ball, or no radius for it.
        BudgetError: a radius that is not a positive finite number.
    """
    if minimal and not can_minimise:
        fix = "Use a minimal-norm attack, or give this one a budget."
        raise AttackError(what, expected="a budget eps", got="a minimal-norm run", fix=fix)
    if minimal or (eps is None and not needs_eps):
        return None
    if eps is None:
        raise AttackError(what, expected="a budget eps", got="none", fix="Give a radius in raw-input units.")
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not math.isfinite(eps) or eps <= 0:
        raise BudgetError(f"budget of {what}", expected="a positive finite number", got=repr(eps))
    return float(eps)
