"""One unit of a study: one arm with one seed on one data set, trained, evaluated and written before the next."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robustode.attacks.base import Status
from robustode.data import Data, holdout, load_data
from robustode.errors import DataError, RunError
from robustode.evaluation.plan import make_plan
from robustode.evaluation.protocol import Protocol, build_protocol
from robustode.evaluation.runner import execute
from robustode.evaluation.study import Arm, Study, StudyData
from robustode.files import atomic, write_json
from robustode.models import save_checkpoint
from robustode.models.layered import Layered
from robustode.models.snode import SNODE
from robustode.models.snode_config import SNODEConfig
from robustode.training.cost import Cost
from robustode.training.fit import fit
from robustode.training.measure import evaluate
from robustode.training.result import Diverged, TrainingResult
from robustode.training.stopping import Stopping
from robustode.versions import versions

MATCH = 0.003  # of validation accuracy, within which an arm counts as stopped at its target


@dataclass(frozen=True, kw_only=True)
class StudyUnit:
    """One arm, one seed, one data set; `name` is that of its folder."""

    plan: StudyData
    arm: Arm
    seed: int

    @property
    def target(self) -> float:
        """Validation accuracy at which it stops."""
        higher = self.plan.higher_target if self.arm.higher else None
        return self.plan.target if higher is None else higher

    @property
    def name(self) -> str:
        """DATA/ARM-SEED."""
        return f"{Path(self.plan.name).stem}/{self.arm.name}-{self.seed}"


def units_of(study: Study) -> list[StudyUnit]:
    """Return the units of a study: every arm on every data set with the first seed, then with the next."""
    seeds = range(max(plan.seeds for plan in study.data))
    return [
        StudyUnit(plan=plan, arm=arm, seed=seed)
        for seed in seeds
        for plan in study.data
        if seed < plan.seeds
        for arm in study.arms
    ]


def run_unit(study: Study, unit: StudyUnit, folder: Path, *, data_root: Path | None, command: str) -> dict[str, Any]:
    """Train and evaluate one unit and write it to `folder`: model.safetensors, records.parquet, then unit.json.

    The seed draws initial weights, mini-batches and the training images; the test images are the same for all units
    of a data set.

    Returns:
        what unit.json holds: levels, accuracies, epochs, smoothness, accuracies under noise and on other grids.
    """
    plan = unit.plan
    train, validation, test = samples(unit, data_root)
    model = initial(study, unit, train)
    stopping = Stopping(target=unit.target, checks=study.checks)
    failure = None
    try:
        result = fit(model, train, recipe=unit.arm.optimiser, validation=validation, stopping=stopping, seed=unit.seed)
    except Diverged as error:
        result, failure = error.result, str(error)
    if result.interrupted:
        raise KeyboardInterrupt
    records = attack(study, model, plan.name, data_root)
    row = {**_facts(study, unit, result, failure), **_measures(study, model, test, data_root)}
    header = {"command": command, "study": study.hash, "seed": unit.seed, "accuracy": row["test_accuracy"]}
    save_checkpoint(model, folder / "model.safetensors", data=plan.name, provenance=header, force=True)
    with atomic(folder / "records.parquet") as temporary:
        records.to_parquet(temporary, index=False)
    write_json(row, folder / "unit.json")
    return row


def samples(unit: StudyUnit, data_root: Path | None) -> tuple[Data, Data, Data]:
    """Return the training, validation and test images of a unit.

    Raises:
        DataError: too few of them, or a source that has no test split of its own.
    """
    plan = unit.plan
    drawn = load_data(plan.name, split="train", limit=plan.train + plan.validation, seed=unit.seed, root=data_root)
    test = load_data(plan.name, split="test", root=data_root)
    if drawn.split != "train" or test.split != "test":
        raise DataError(f"data '{plan.name}' of a study", expected="separate training and test splits", got="one set")
    return *holdout(drawn, plan.validation, seed=unit.seed), test


def check_study(study: Study, data_root: Path | None) -> None:
    """Raise what would stop a unit of the study after its training: data, networks, attacks, numbers of images."""
    asked = study.evaluation
    for unit in units_of(study):
        if unit.seed == 0 and unit.arm.name == study.arms[0].name:
            train, _, test = samples(unit, data_root)
            for n in (asked.samples, asked.noise_samples, *([asked.steps_samples] if asked.steps else [])):
                load_data(test.name, split="test", limit=n, root=data_root)
            for arm in study.arms:
                model = initial(study, replace(unit, arm=arm), train)
                arm.optimiser.trainer(model, 1)
                for steps in asked.steps:
                    model.at_steps(steps)
            for names in (asked.attacks, *([[asked.steps_attack]] if asked.steps else [])):
                make_plan(_protocol(study, test.name, attacks=names), modules=[model], data_root=data_root)


def initial(study: Study, unit: StudyUnit, data: Data) -> SNODE:
    """Return the untrained network: knots of a spline, or the independent layers of the layered twin, as an sNODE."""
    config = {**study.network, "input_shape": tuple(data.x.shape[1:]), "classes": data.classes, "bounds": data.bounds}
    config.setdefault("knots", config.setdefault("steps", SNODEConfig.model_fields["steps"].default))
    model = SNODE(seed=unit.seed, **config)
    if unit.arm.levels["initialisation"] == "independent":
        model.load_state_dict(Layered(seed=unit.seed, **config).state_dict())
    return model


def attack(study: Study, model: SNODE, data: str, data_root: Path | None, **changes: Any) -> pd.DataFrame:
    """Return the records of the study's attacks on its shared test images, judged by the harness."""
    made = make_plan(_protocol(study, data, **changes), modules=[model], data_root=data_root)
    with tempfile.TemporaryDirectory(prefix="robustode-") as folder:
        found = execute(made, Path(folder) / "run", command="study").records
    broken = pd.DataFrame(found[found["status"] == Status.ERROR.value])
    if len(broken):
        got = f"{len(broken)} rows with an error: {broken['message'].iloc[0]}"
        raise RunError(f"attack '{broken['attack'].iloc[0]}' of a study", expected="an answer on every image", got=got)
    return found


def _protocol(study: Study, data: str, **changes: Any) -> Protocol:
    first, *others = changes.pop("attacks", study.evaluation.attacks)
    values = {
        "models": ["model"],
        "data": data,
        "limit": study.evaluation.samples,
        "attacks": first,
        "also": others,
        "outputs": [],
        "allow_low_accuracy": True,
        **changes,
    }
    return build_protocol(values, "evaluation of a study")


def matched(reached: float | None, target: float) -> bool:
    """Return whether a validation accuracy is within `MATCH` of the target, both counted as decimals."""
    return reached is not None and abs(reached - target) <= MATCH + 1e-9


def _facts(study: Study, unit: StudyUnit, result: TrainingResult, failure: str | None) -> dict[str, Any]:
    target, reached = unit.target, result.validation_accuracy
    return {
        "data": unit.plan.name,
        "arm": unit.arm.name,
        "seed": unit.seed,
        "higher": unit.arm.higher,
        **unit.arm.levels,
        "study": study.hash,
        "target": target,
        "validation_accuracy": reached,
        "matched": matched(reached, target),
        "stopped": result.stopped,
        "failure": failure,
        "epochs": result.epochs_done,
        "train_accuracy": result.train_accuracy,
        "seconds": result.seconds,
        "versions": versions(("robustode", "torch", "numpy")),
    }


def _measures(study: Study, model: SNODE, test: Data, data_root: Path | None) -> dict[str, Any]:
    asked = study.evaluation
    some = load_data(test.name, split="test", limit=asked.noise_samples, root=data_root)
    with torch.no_grad():
        labels = model(some.x).argmax(1)
    noise, grids = {}, {}
    draws = torch.randn(some.x.shape, generator=torch.Generator().manual_seed(0))
    for sigma in asked.noise:
        noise[f"{sigma:g}"] = _accuracy(model, some.x + sigma * draws, some.y)
    for steps in asked.steps:
        view = model.at_steps(steps)
        with torch.no_grad():
            pred = view(some.x).argmax(1)
        records = attack(study, view, test.name, data_root, attacks=[asked.steps_attack], limit=asked.steps_samples)
        grids[str(steps)] = {
            "accuracy": float((pred == some.y).double().mean()),
            "agreement": float((pred == labels).double().mean()),
            "median_distance": _median(records),
        }
    return {
        "test_accuracy": evaluate(model, test, Cost())[0],
        "smoothness": model.smoothness,
        "noise": noise,
        "steps": grids,
    }


@torch.no_grad()
def _accuracy(model: SNODE, x: Tensor, y: Tensor) -> float:
    return float((model(x).argmax(1) == y).double().mean())


def _median(records: pd.DataFrame) -> float | None:
    value = float(np.median(records["distance"].to_numpy()))
    return value if math.isfinite(value) else None
