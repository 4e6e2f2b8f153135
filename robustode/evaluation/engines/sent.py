"""What travels to a worker, once: models, samples and attacks as bytes, from which it makes its bench."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from robustode.data import Data
from robustode.errors import ModelError, RunError
from robustode.evaluation.counting import Counted
from robustode.evaluation.engines.bench import Bench, Rows
from robustode.evaluation.eot import Averaged
from robustode.evaluation.jobs import Attack, Ready, attacks_of
from robustode.evaluation.judge import Judge
from robustode.evaluation.parts import parts_of
from robustode.evaluation.plan import Plan
from robustode.evaluation.rows import Subject
from robustode.evaluation.searched import searched
from robustode.models import load_model, model_hash
from robustode.models.base import parameters_like
from robustode.models.factory import PREFIX


@dataclass(frozen=True, kw_only=True, eq=False)
class SentModel:
    """A model on its way.

    Attributes:
        label, hash: as planned.
        module: the classifier itself; None where it is made from the user's code, which the worker loads again.
        spec, options: what it was asked for by.
        batches: what its judge has found out of batches.
        size: of the batches of its judge.
        pred, margin: the judge's clean answers.
    """

    label: str
    hash: str
    module: Any
    spec: str
    options: dict[str, Any]
    batches: bool | None
    size: int
    pred: Tensor
    margin: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Sent:
    """All that a worker needs, with names as in `Bench`.

    Attributes:
        samples: of the run.
        models: of the run.
        shard, eot, search_precision, cuda_graphs: of the protocol.
        device: where the models run.
        threads: of torch, in one worker.
        folder: of the command, from which the paths of the user's code go.
    """

    samples: Data
    models: tuple[SentModel, ...]
    attacks: tuple[Attack, ...]
    radii: dict[str, tuple[float, ...]]
    seed: int
    protocol: str
    shard: int
    eot: int | None
    search_precision: str
    cuda_graphs: bool
    device: str
    threads: int
    folder: Path
    rows: Rows

    def bench(self) -> Bench:
        """Return what computes units here, on as many threads as there are for it.

        Raises:
            ModelError: a model of the user's code that is another one here.
            RobustODEError: code of the user that cannot be loaded here.
        """
        torch.set_num_threads(self.threads)
        if self.folder.is_dir():
            os.chdir(self.folder)
        subjects, parts = [], []
        for model in self.models:
            module = self._module(model)
            judge = Judge(module, batches=model.batches, size=model.size)
            counted = Counted(module, searched(module, precision=self.search_precision, graphs=self.cuda_graphs))
            subjects.append(Subject(label=model.label, hash=model.hash, counted=counted, judge=judge))
            device, dtype = parameters_like(module)
            x, y = self.samples.x.to(device=device, dtype=dtype), self.samples.y.to(device)
            parts.append(parts_of(x, y, self.samples.index, model.pred, model.margin, self.shard))
        return Bench(
            subjects=tuple(subjects),
            parts=tuple(parts),
            attacks=self.attacks,
            radii=self.radii,
            data=self.samples.name,
            seed=self.seed,
            protocol=self.protocol,
            rows=self.rows,
        )

    def _module(self, model: SentModel) -> Any:
        if model.module is not None:
            return model.module
        samples = self.samples
        module: Any = load_model(
            model.spec, device=self.device, sample=samples.x[:1], default_bounds=samples.bounds, **model.options
        )
        if (here := model_hash(module)) != model.hash:
            fix = "Let its code make the same weights each time, or evaluate a checkpoint."
            expected = f"the model of hash {model.hash} in every worker"
            raise ModelError(f"model '{model.label}' ({model.spec})", expected=expected, got=f"hash {here}", fix=fix)
        return (module if self.eot is None else Averaged(module, self.eot)).eval()


def sent_of(plan: Plan, ready: Sequence[Ready], rows: Rows, threads: int) -> Sent:
    """Return what a plan sends to its workers."""
    models = []
    for one in ready:
        planned = one.planned
        again = str(planned.spec).startswith(PREFIX) or "arch" in planned.options
        models.append(
            SentModel(
                label=planned.label,
                hash=planned.hash,
                module=None if again else planned.module,
                spec=plan.protocol.near(planned.spec),
                options=planned.options,
                batches=one.subject.judge.batches,
                size=one.subject.judge.size,
                pred=torch.cat([part.clean_pred for part in one.shards]),
                margin=torch.cat([part.clean_margin for part in one.shards]),
            )
        )
    return Sent(
        samples=plan.data,
        models=tuple(models),
        attacks=attacks_of(plan),
        radii=plan.budgets,
        seed=plan.protocol.seed,
        protocol=plan.hash,
        shard=plan.protocol.shard,
        eot=plan.protocol.eot,
        search_precision=plan.protocol.search_precision,
        cuda_graphs=plan.protocol.cuda_graphs,
        device=str(parameters_like(plan.models[0].module)[0]),
        threads=threads,
        folder=Path.cwd(),
        rows=rows,
    )


def pack(value: Any, by: ModuleType = pickle) -> bytes:
    """Return a value as bytes; tensors that share memory share it there, too.

    Raises:
        RunError: something that another process cannot be given.
    """
    stream = io.BytesIO()
    try:
        torch.save(value, stream, pickle_module=by)
    except (pickle.PicklingError, AttributeError, TypeError) as reason:
        fix = "Define its class in a module of its own, name it as python:FILE.py:factory, or use engine local."
        got = f"{type(reason).__name__}: {reason}"
        raise RunError("models and attacks", expected="what workers can be sent", got=got, fix=fix) from reason
    return stream.getvalue()


def unpack(content: bytes) -> Any:
    """Return what `pack` made into bytes in a process of the same run; never for files, which may be anybody's."""
    return torch.load(io.BytesIO(content), weights_only=False)
