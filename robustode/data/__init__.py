"""Labelled inputs: where they come from, which of them are taken, and how they are written to disk."""

from robustode.data.catalogue import CATALOGUE, DEFAULT_BUDGETS, DataInfo, default_budgets, list_data
from robustode.data.dataset import Data, check_bounds
from robustode.data.export import export
from robustode.data.fetch import fetch
from robustode.data.formats import FORMATS
from robustode.data.holdout import holdout
from robustode.data.repair import Repaired, repair
from robustode.data.sources import check_fits, load_data
from robustode.data.subset import parse_limit
from robustode.data.writer import DatasetWriter

__all__ = [
    "CATALOGUE",
    "DEFAULT_BUDGETS",
    "FORMATS",
    "Data",
    "DataInfo",
    "DatasetWriter",
    "Repaired",
    "check_bounds",
    "check_fits",
    "default_budgets",
    "export",
    "fetch",
    "holdout",
    "list_data",
    "load_data",
    "parse_limit",
    "repair",
]
