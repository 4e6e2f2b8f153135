"""A small study: its file, and runs of it made up so that the answers are known."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from robustode.evaluation.study import Study, read_study
from robustode.evaluation.study_runner import StudyRun

FILE = """
kind = "study"
title = "Small"
checks = 1

[primary]
outcome = "median minimal L2 distance"
data = "digits"
arm = "{arm}"
against = "{against}"

[network]
horizon = 1.0
steps = 4
activation = "tanh"
method = "euler"

[[data]]
name = "digits"
train = 60
validation = 20
seeds = {seeds}
target = 0.99

[evaluation]
attacks = ["sensitivity-l2"]
samples = 10
noise = [0.1, 0.2, 0.4]
noise_samples = 20
steps = [8]
steps_samples = 10

[factors]
optimiser = {optimisers}
operator = ["l2"]
cost = ["ce"]
initialisation = ["spline", "independent"]

[[settings]]
optimiser = "adam"
epochs = 1
batch = 20
"""


def write(folder: Path, *, seeds: int = 1, optimisers: str = '["adam"]', arm: str = "adam-l2-ce-spline") -> Path:
    """Write the study to folder/small.toml."""
    text = FILE.format(seeds=seeds, optimisers=optimisers, arm=arm, against="adam-l2-ce-independent")
    path = folder / "small.toml"
    path.write_text(text, encoding="utf-8")
    return path


def study(folder: Path) -> Study:
    """A study of four arms (NCG or Adam, spline or independent) with three seeds."""
    return read_study(str(write(folder, seeds=3, optimisers='["ncg", "adam"]', arm="ncg-l2-ce-spline")))


def made_up(study: Study) -> StudyRun:
    """A run in which NCG adds 0.1 + 0.01 seed to every distance, the spline takes 0.05 from it, in 21 test images.

    The first two test images are misclassified by all. Accuracy under noise is 0.5, with NCG 0.6; NCG is ten times
    smoother.
    """
    units, parts = [], []
    for seed, arm in itertools.product(range(3), study.arms):
        ncg, spline = arm.levels["optimiser"] == "ncg", arm.levels["initialisation"] == "spline"
        row = {"data": "digits", "arm": arm.name, "seed": seed, "higher": False, **arm.levels, "target": 0.99}
        row |= {"validation_accuracy": 0.99, "matched": ncg, "epochs": 1, "seconds": 2.0, "test_accuracy": 0.9}
        row |= {"smoothness": 10.0 if ncg else 100.0, "steps.8.accuracy": 0.8, "steps.8.agreement": 0.7}
        noise = {f"noise.{sigma}": 0.6 if ncg else 0.5 for sigma in (0.1, 0.2, 0.4)}
        units.append({**row, "steps.8.median_distance": 0.3, **noise})
        distance = 0.2 + 0.02 * np.arange(21) + ncg * (0.1 + 0.01 * seed) - 0.05 * spline
        distance[:2] = 0.0
        part = {"data": "digits", "arm": arm.name, "seed": seed, "sample": np.arange(21), "norm": "l2"}
        parts.append(pd.DataFrame({**part, "distance": distance, "clean": distance > 0}))
    return StudyRun(study=study, units=pd.DataFrame(units), distances=pd.concat(parts, ignore_index=True))
