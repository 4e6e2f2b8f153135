"""Which models have bounds by log norms: sNODEs and their twins, dense or convolutional, and on which grid."""

from __future__ import annotations

from robustode.certificates.problem import Problem
from robustode.certificates.slopes import SHAPES
from robustode.errors import OptionError
from robustode.models.layered import Layered
from robustode.models.snode import SNODE


def refuses_discrete(problem: Problem) -> str | None:
    """Return why the discrete map of a model has no bound by step constants, or None."""
    model = problem.exact
    if (reason := _refuses_any(model)) is not None or not isinstance(model, SNODE):
        return reason
    if model.solver is not None:
        return (
            f"the adaptive {model.solver} chooses its steps by the input, so that there is no one discrete map; "
            "certify the flow, or a fixed grid: model.with_solver(method='rk4', steps=N)"
        )
    return None


def refuses_flow(problem: Problem) -> str | None:
    """Return why a model has no flow, or no bound of it, or None."""
    model = problem.exact
    if isinstance(model, Layered):
        return "layered: independent layers are not samples of a path in depth, so that there is no flow"
    return _refuses_any(model)


def network(problem: Problem) -> SNODE:
    """Return the exact model as an sNODE.

    Raises:
        OptionError: it is none.
    """
    if not isinstance(problem.exact, SNODE):
        raise OptionError("certificate", expected="an sNODE or its twin", got=type(problem.exact).__name__)
    return problem.exact


def state_shape(problem: Problem) -> tuple[int, ...]:
    """Return the shape of a state."""
    return tuple(network(problem).encode(problem.x[:1]).shape[1:])


def _refuses_any(model: object) -> str | None:
    if not isinstance(model, SNODE):
        return f"{getattr(model, 'arch', type(model).__name__)}: no sNODE, so that it has no log norm in depth"
    if (name := model.config["activation"]) not in SHAPES:
        return f"activation '{name}': the range of its slopes is not known"
    return None
