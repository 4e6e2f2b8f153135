"""`robustode train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from robustode.cli import options
from robustode.cli.console import emit, progress, say
from robustode.cli.evaluate import command_line


def train_command(
    arch: Annotated[str, typer.Argument(metavar="ARCH", help="snode, conv-snode, layered or resnet.")],
    data: Annotated[str, typer.Option("--data", metavar="DATA", help="Data set by name or path.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Checkpoint to write (.safetensors).")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="In place of the recipe's value: epochs=3, steps=30. Repeats."),
    ] = None,
    bounds: options.Bounds = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    force: options.Force = False,
    data_root: options.DataRoot = None,
    json_: options.Json = False,
) -> None:
    """Train a model and write a checkpoint.

    Uses the best known recipe for the architecture and the data; Ctrl-C ends it early and still writes.

    Example: robustode train snode --data digits --out snode.safetensors
    """
    from robustode.data import load_data
    from robustode.models import check_target, save_checkpoint
    from robustode.training import Diverged, Progress, build, fit, provenance
    from robustode.training import recipe as best_recipe

    recipe = best_recipe(arch, data)
    changes = options.params_of(set_, "--set")
    if changes:
        recipe = recipe.overrides(**changes)
    place = options.check_device(device)
    check_target(out, force=force)
    options.check_place(out.parent)
    box = options.bounds_of(bounds)
    samples = load_data(data, split="train", limit=limit, seed=seed, root=data_root, bounds=box)
    test = load_data(data, split="test", root=data_root, bounds=box) if samples.split == "train" else None
    model = build(recipe, samples, seed)
    model.to(place)
    say(f"{arch} on {samples.caption}: {recipe.optimiser.name}, {recipe.optimiser.epochs} epochs", json_)
    with progress(json_) as bar:
        task = bar.add_task(arch, total=None) if bar is not None else None

        def show(p: Progress) -> None:
            if bar is not None and task is not None:
                done, total = (p.epoch - 1) * p.batches + p.batch, p.epochs * p.batches
                text = f"epoch {p.epoch}/{p.epochs} loss {p.loss:.4f} accuracy {p.accuracy:.1%}"
                bar.update(task, description=text, completed=done, total=total)
            elif p.batch == p.batches:
                say(f"epoch {p.epoch}/{p.epochs}: loss {p.loss:.4f}, accuracy {p.accuracy:.2%}", json_)

        failure: Diverged | None = None
        try:
            result = fit(model, samples, recipe=recipe, test=test, seed=seed, on_progress=show)
        except Diverged as error:
            result, failure = error.result, error
    header: dict[str, Any] = provenance(recipe, result, command_line(), seed)
    save_checkpoint(model, out, data=samples.name, provenance=header, force=force)
    accuracy = "not measured" if result.test_accuracy is None else f"{result.test_accuracy:.2%}"
    if json_:
        emit({"out": str(out), "provenance": json.loads(json.dumps(header)), "seconds": result.seconds})
    else:
        state = "interrupted after" if result.interrupted else "trained for"
        say(f"{state} {result.epochs_done} epochs in {result.seconds:.0f} s; test accuracy {accuracy}; wrote {out}")
        say(f"Next: robustode eval --model {out}")
    if failure is not None:
        raise failure
    if result.interrupted:
        raise typer.Exit(130)
