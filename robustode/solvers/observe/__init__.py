"""Solves of torchdiffeq and torchode that happen inside any model: seen as they happen, and done again otherwise."""

from robustode.solvers.observe.hooks import observing
from robustode.solvers.observe.replay import DeployedForward, Replay, Replayed, replaying
from robustode.solvers.observe.solve import Observed

__all__ = ["DeployedForward", "Observed", "Replay", "Replayed", "observing", "replaying"]
