"""Training: nonlinear conjugate gradients with Sobolev gradients for sNODE, SGD and Adam for every module."""

from robustode.training.adversarial import Adversary
from robustode.training.cost import Cost
from robustode.training.fit import fit
from robustode.training.ncg import NCGConfig
from robustode.training.partial import partial_path
from robustode.training.provenance import provenance
from robustode.training.recipes import RECIPES, Recipe, build, recipe
from robustode.training.result import Diverged, Progress, TrainingResult
from robustode.training.sgd import SGDConfig
from robustode.training.stopping import Stopping

__all__ = [
    "RECIPES",
    "Adversary",
    "Cost",
    "Diverged",
    "NCGConfig",
    "Progress",
    "Recipe",
    "SGDConfig",
    "Stopping",
    "TrainingResult",
    "build",
    "fit",
    "partial_path",
    "provenance",
    "recipe",
]
