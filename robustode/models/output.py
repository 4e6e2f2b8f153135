"""Which part of a module's output holds the logits.

A choice is a comma-separated path: the key of a dict, the index of a tuple or list, the attribute of an object, and,
for tensors, "last" (final time of (time, batch, classes)), "last:1" (final time of (batch, time, classes)) and "binary"
(one logit z per sample, which becomes the logits (0, z)). So "0,last" is the final time of a tuple's first entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from robustode.errors import ModelError, unknown


def _binary(output: Tensor) -> Tensor:
    if output.dim() == 2 and output.shape[1] == 1:
        output = output[:, 0]
    if output.dim() != 1:
        raise ModelError("output 'binary'", expected="one logit per sample, (batch,) or (batch, 1)", got=_one(output))
    return torch.stack((torch.zeros_like(output), output), dim=1)


def _last(output: Tensor) -> Tensor:
    return _trajectory(output, "last")[-1]


def _last_of_second(output: Tensor) -> Tensor:
    return _trajectory(output, "last:1")[:, -1]


def _trajectory(output: Tensor, step: str) -> Tensor:
    if output.dim() < 3:
        raise ModelError(f"output '{step}'", expected="a trajectory of at least 3 axes", got=_one(output))
    return output


TENSOR_STEPS: dict[str, Callable[[Tensor], Tensor]] = {"last": _last, "last:1": _last_of_second, "binary": _binary}
MEANING = {
    "last": "the final time of (time, batch, classes)",
    "last:1": "the final time of (batch, time, classes)",
    "binary": "one logit z becomes (0, z)",
}


def select(output: Any, choice: str | None) -> Any:
    """Return the part of a module's output that `choice` names; without one, `.logits` of an object or the output.

    Raises:
        ModelError: the output has no such part; the parts it has are named.
    """
    if choice is None:
        return output if isinstance(output, Tensor) else getattr(output, "logits", output)
    for step in choice.split(","):
        output = _step(output, step.strip())
    return output


def _step(output: Any, step: str) -> Any:
    if isinstance(output, Tensor):
        if step not in TENSOR_STEPS:
            raise unknown(f"output of a {_one(output)}", step, TENSOR_STEPS, ModelError)
        return TENSOR_STEPS[step](output)
    parts = _parts(output)
    if step not in parts:
        raise unknown(f"output of a {type(output).__name__}", step, parts, ModelError)
    return parts[step]


def _parts(output: Any) -> dict[str, Any]:
    """Return the named parts of a dict, tuple, list or object."""
    if isinstance(output, Mapping):
        return {str(key): value for key, value in output.items()}
    if isinstance(output, Sequence) and not isinstance(output, str):
        return {str(index): value for index, value in enumerate(output)}
    public = getattr(output, "__dict__", {})
    return {name: value for name, value in public.items() if not name.startswith("_")}


def describe(output: Any) -> str:
    """Return the types and shapes of an output in one line: "tuple (0: tensor (1, 10), 1: tensor (1, 64))"."""
    parts = {} if isinstance(output, Tensor) else _parts(output)
    if not parts:
        return _one(output)
    shown = [f"{name}: {_one(value)}" for name, value in list(parts.items())[:8]]
    return f"{_one(output)} ({', '.join(shown)}{', ...' if len(parts) > 8 else ''})"


def _one(value: Any) -> str:
    return f"tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def choices(output: Any) -> list[str]:
    """Return every choice that makes logits of this output of a batch of one; "" if it is logits as it stands."""
    if not isinstance(output, Tensor):
        return _join((name, value) for name, value in _parts(output).items())
    if output.dim() == 2 and output.shape[0] == 1 and output.shape[1] >= 2:
        return [""]
    if tuple(output.shape) in ((1,), (1, 1)):
        return ["binary"]
    if output.dim() == 3 and output.numel():
        return _join((("last", output[-1]), ("last:1", output[:, -1])))
    return []


def _join(parts: Any) -> list[str]:
    return [f"{name},{rest}" if rest else name for name, value in parts for rest in choices(value)]


def check_logits(output: Any, choice: str | None, *, who: str) -> int:
    """Return the number of classes, after checking a module's output for a batch of one.

    Args:
        output: what the module returned.
        choice: the user's choice, or None.
        who: name of the module, for the message.

    Raises:
        ModelError: it is not (1, classes) finite floating-point logits of at least two classes; says what came and
            which choices would do.
    """
    logits = select(output, choice)
    if not isinstance(logits, Tensor) or choices(logits) != [""]:
        chosen = f" after output '{choice}'" if choice else ""
        ways = [f"{prefix}{way}" for prefix in ([f"{choice},"] if choice else [""]) for way in choices(logits)]
        raise ModelError(
            f"output of {who}{chosen}",
            expected="logits of shape (1, classes) for a batch of one sample, with at least 2 classes",
            got=describe(logits),
            fix=_advice(ways),
        )
    if not logits.is_floating_point():
        fix = "Return the logits, not the predicted class."
        raise ModelError(f"output of {who}", expected="floating-point logits", got=str(logits.dtype), fix=fix)
    if not bool(logits.isfinite().all()):
        got = f"{int((~logits.isfinite()).sum())} of {logits.numel()} not finite"
        fix = "Look at the weights, the bounds and the normalisation."
        raise ModelError(f"output of {who} for one sample", expected="finite logits", got=got, fix=fix)
    return logits.shape[1]


def _advice(ways: list[str]) -> str:
    if not ways:
        return "Let forward return logits of shape (batch, classes), also for a batch of one."
    said = [f"{way} ({MEANING[end]})" if (end := way.split(",")[-1]) in MEANING else way for way in ways]
    return f"Choose with --output: {' or '.join(said)}"
