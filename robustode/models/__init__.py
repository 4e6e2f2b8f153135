"""Models: RobustODE's own, any module of the user's, and the ways to find, load, save and name them."""

from robustode.models.base import Classifier, parameters_like
from robustode.models.checkpoint import Header, check_target, load_checkpoint, read_header, save_checkpoint
from robustode.models.device import resolve_device
from robustode.models.fingerprint import model_hash
from robustode.models.load import load_model, peek
from robustode.models.registry import ARCHITECTURES, architecture
from robustode.models.wrap import WrappedModel, wrap
from robustode.models.zoo import zoo_names

__all__ = [
    "ARCHITECTURES",
    "Classifier",
    "Header",
    "WrappedModel",
    "architecture",
    "check_target",
    "load_checkpoint",
    "load_model",
    "model_hash",
    "parameters_like",
    "peek",
    "read_header",
    "resolve_device",
    "save_checkpoint",
    "wrap",
    "zoo_names",
]
