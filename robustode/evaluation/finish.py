"""The end of a run: its units become the files that a reader finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from robustode.attacks.base import Status
from robustode.evaluation import adversarials, certificate_rows, noise_rows, shards, smoothed_rows
from robustode.evaluation import records as records_file
from robustode.evaluation.beside import certified_places, smoothed_places
from robustode.evaluation.depth import along_depth_of, spread_along_depth_of, write_depth
from robustode.evaluation.jobs import Ready, attacks_of, places_of
from robustode.evaluation.kept import join, seconds_of
from robustode.evaluation.noise_rows import kept_noise
from robustode.evaluation.outdir import own_files
from robustode.evaluation.plan import Plan
from robustode.evaluation.rundir import RunDir, read_run, read_sides
from robustode.files import write_json


def finish(
    plan: Plan,
    ready: Sequence[Ready],
    out: Path,
    meta: dict[str, Any],
    answers: Sequence[tuple[Ready, dict[str, Any]]],
    facts: dict[str, Any] | None,
    publish: Callable[[RunDir], object] | None,
) -> RunDir:
    """Join the units into records, timings, adversarials, uncertainty, certificates and audit.json, publish, and write
    run.json; read it back."""
    places = places_of(plan, plan.models, out)
    audits = [shards.place(out, m.subject.label, name, 0) for m, answer in answers for name in answer["attacks"]]
    records = records_file.validate(records_file.joined(shards.read_records(place) for place in (*places, *audits)))
    records_file.write(records, out / "records.parquet")
    seconds = [pd.DataFrame(answer["timings"]) for _, answer in answers]
    noise = plan.protocol.uncertainty
    noisy = [] if noise is None else [kept_noise(out, model.subject.label) for model in ready]
    certified, smoothed = certified_places(plan, ready, out), smoothed_places(plan, ready, out)
    seconds += [pd.read_parquet(seconds_of(place)) for place in (*noisy, *certified, *smoothed)]
    shards.write_timings([*(shards.read_timings(place) for place in places), *seconds], out / "timings.parquet")
    if "adversarials" in plan.protocol.outputs:
        _write_adversarials(plan, ready, out, answers)
    if len(records) or noise is not None:  # clean accuracy alone stays as cheap as it is
        write_depth((_depth(model, None if noise is None else max(noise.sigma)) for model in ready), out)
    for units, module in ((noisy, noise_rows), (certified, certificate_rows), (smoothed, smoothed_rows)):
        if units:
            join(units, out / module.FILE)
    if facts is None:
        (out / "audit.json").unlink(missing_ok=True)  # of an earlier part of the run, which was audited
    else:
        write_json({**facts, "findings": [answer["finding"] for _, answer in answers]}, out / "audit.json")
    errors = _errors(records)
    final = {**meta, "status": "partial" if plan.attacks.skipped or errors else "complete", "errors": errors}
    if publish is not None:
        timings = pd.read_parquet(out / "timings.parquet")
        publish(RunDir(path=out, meta=final, records=records, timings=timings, **read_sides(out)))
    write_json({**final, "files": own_files(out)}, out / "run.json")
    return read_run(out)


def _depth(model: Ready, sigma: float | None) -> pd.DataFrame:
    """Sensitivity, and uncertainty under input noise σ, along depth, on samples that are classified correctly."""
    x, y, pred = (torch.cat([getattr(part, name) for part in model.shards]) for name in ("x", "y", "clean_pred"))
    right = pred == y
    label, module = model.subject.label, model.planned.module
    parts = [along_depth_of(label, module, x[right], y[right])]
    if sigma is not None:
        parts.append(spread_along_depth_of(label, module, x[right], sigma))
    kept = [part for part in parts if len(part)]
    return pd.concat(kept, ignore_index=True) if kept else parts[0]


def _write_adversarials(
    plan: Plan, ready: Sequence[Ready], out: Path, answers: Sequence[tuple[Ready, dict[str, Any]]]
) -> None:
    """Write the nearest points of all units, one file for each model and norm."""
    for model in ready:
        label = model.subject.label
        for norm in plan.budgets:
            units = [
                (shards.place(out, label, attack.name, shard.number), attack.kind == "minimal")
                for attack in attacks_of(plan)
                for shard in model.shards
                if attack.norm == norm
            ]
            found = [name for one, answer in answers if one is model for name in answer["attacks"]]
            units += [(shards.place(out, label, name, 0), False) for name in found if name.endswith(f"-{norm}")]
            adversarials.write(out, plan, model.subject, model.shards, norm, units)


def _errors(records: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one entry for each model and attack that raised: how many rows, and the first message."""
    broken = records_file.rows(records, status=Status.ERROR.value)
    found = broken.groupby(["model", "attack"], sort=True)["message"].agg(["size", "first"]).reset_index()
    return [
        {"model": model, "attack": attack, "count": int(count), "message": message}
        for model, attack, count, message in found.itertuples(index=False, name=None)
    ]
