"""`robustode train`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustode.cli import options
from robustode.cli.console import emit, progress, say
from robustode.cli.evaluate import command_without_resume
from robustode.errors import OptionError, RobustODEError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from robustode.data import Data
    from robustode.training import Progress, Recipe, Stopping, TrainingResult


def train_command(
    arch: Annotated[str, typer.Argument(metavar="ARCH", help="snode, layered, conv-snode or resnet.")],
    data: Annotated[str, typer.Option("--data", metavar="DATA", help="Data set by name or path.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Checkpoint to write (.safetensors).")],
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            metavar="NAME",
            help="best, adversarial, large, large-adversarial, certified (large certified radii) or paper.",
        ),
    ] = "best",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="In place of the recipe's value: epochs=3, adversary=pgd. Repeats."),
    ] = None,
    validation: Annotated[
        int | None,
        typer.Option(
            "--validation",
            metavar="N",
            callback=options.at_least(1),
            help="Training samples held out, for --patience and --target.",
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            metavar="N",
            callback=options.at_least(1),
            help="Stop after N epochs without a better validation accuracy; keep the best weights.",
        ),
    ] = None,
    target: Annotated[
        float | None, typer.Option("--target", metavar="P", help="Stop at this validation accuracy, 0 to 1.")
    ] = None,
    curves: Annotated[
        Path | None, typer.Option("--curves", metavar="FILE", help="Draw the learning curves: .svg or .png.")
    ] = None,
    bounds: options.Bounds = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was stopped, from its last epoch.")
    ] = False,
    force: options.Force = False,
    data_root: options.DataRoot = None,
    json_: options.Json = False,
) -> None:
    """Train a model and write a checkpoint.

    Uses the best known recipe for the architecture and the data. Ctrl-C ends it early and still writes; the same
    command with --resume goes on from the last complete epoch.

    Example: robustode train snode --data digits --out snode.safetensors
    """
    from robustode.data import load_data
    from robustode.models import save_checkpoint
    from robustode.training import build, fit, partial_path, provenance

    chosen = _recipe(arch, data, recipe, set_)
    stopping = _stopping(validation, patience, target)
    place = options.check_device(device)
    unfinished = partial_path(out)
    _check_files(out, curves, unfinished, resume=resume, force=force)
    box = options.bounds_of(bounds)
    samples = load_data(data, split="train", limit=limit, seed=seed, root=data_root, bounds=box)
    test = load_data(data, split="test", root=data_root, bounds=box) if samples.split == "train" else None
    test = None if test is None or test.split != "test" else test  # a written set of one split has no other
    train, held_out = _split(samples, validation, seed)
    model = build(chosen, samples, seed)
    model.to(place)
    say(f"{arch} on {train.caption}: {chosen.optimiser.name}, {chosen.optimiser.epochs} epochs", json_)
    if samples.split == "test":
        say("these are test samples: an accuracy measured on their clean ones later will be too high", json_)
    failure: RobustODEError | None = None
    if not resume:
        unfinished.unlink(missing_ok=True)  # of an earlier training, given up by --force
    with _shown(arch, json_) as show:
        result, failure = _fit(
            lambda: fit(
                model,
                train,
                recipe=chosen,
                test=test,
                validation=held_out,
                stopping=stopping,
                seed=seed,
                on_progress=show,
                partial=unfinished,
                resume=resume,
            )
        )
    header = provenance(chosen, result, command_without_resume(), seed)
    save_checkpoint(model, out, data=samples.name, provenance=header, force=force or resume)
    if not result.interrupted:
        unfinished.unlink(missing_ok=True)
    drawn = _draw(result, curves, f"{arch} on {samples.name}")
    if json_:
        document = {"out": str(out), "provenance": json.loads(json.dumps(header)), "seconds": result.seconds}
        emit({**document, "curves": [str(path) for path in drawn]})
    else:
        _report(result, out, drawn, resumable=unfinished.exists())
    if failure is not None:
        raise failure
    if result.interrupted:
        raise typer.Exit(130)


def _recipe(arch: str, data: str, name: str, set_: list[str] | None) -> Recipe:
    from robustode.training import recipe

    found = recipe(arch, data, name)
    changes = options.params_of(set_, "--set")
    return found.overrides(**changes) if changes else found


def _stopping(validation: int | None, patience: int | None, target: float | None) -> Stopping | None:
    from robustode.training import Stopping

    if patience is None and target is None:
        return None
    if validation is None:
        what = "--patience" if patience is not None else "--target"
        fix = "Hold samples out: --validation 5000."
        raise OptionError(what, expected="validation data to judge by", got="none", fix=fix)
    return Stopping(patience=patience, target=target, checks=10)


def _check_files(out: Path, curves: Path | None, unfinished: Path, *, resume: bool, force: bool) -> None:
    """Raise before anything is computed if something could not be written at the end."""
    from robustode.models import check_target
    from robustode.reporting.curves import check_suffix

    if unfinished.exists() and not (resume or force):
        fix = "Go on with --resume, or start again with --force."
        raise TrainingError(f"'{out}'", expected="no unfinished training", got=f"'{unfinished}'", fix=fix)
    check_target(out, force=force or resume)
    options.check_place(out.parent, resume=resume, force=force)
    if curves is not None:
        check_suffix(curves)
        options.check_place(curves.parent)


def _split(samples: Data, validation: int | None, seed: int) -> tuple[Data, Data | None]:
    from robustode.data import holdout

    return (samples, None) if validation is None else holdout(samples, validation, seed=seed)


def _fit(call: Callable[[], TrainingResult]) -> tuple[TrainingResult, RobustODEError | None]:
    """Return the result, and the error to raise once it is written if the training diverged."""
    from robustode.training import Diverged

    try:
        return call(), None
    except Diverged as error:
        return error.result, error


@contextmanager
def _shown(arch: str, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    with progress(quiet) as bar:
        task = bar.add_task(arch, total=None) if bar is not None else None

        def show(p: Progress) -> None:
            if bar is not None and task is not None:
                done, total = (p.epoch - 1) * p.batches + p.batch, p.epochs * p.batches
                text = f"epoch {p.epoch}/{p.epochs} loss {p.loss:.4f} accuracy {p.accuracy:.1%}"
                bar.update(task, description=text, completed=done, total=total)
            elif p.batch == p.batches:
                say(f"epoch {p.epoch}/{p.epochs}: loss {p.loss:.4f}, accuracy {p.accuracy:.2%}", quiet)

        yield show


def _draw(result: TrainingResult, curves: Path | None, title: str) -> list[Path]:
    from robustode.reporting.curves import learning_curves

    return learning_curves(result.history, curves, title=title) if curves is not None and result.history else []


def _report(result: TrainingResult, out: Path, drawn: list[Path], *, resumable: bool) -> None:
    accuracy = "not measured" if result.test_accuracy is None else f"{result.test_accuracy:.2%}"
    state = "interrupted after" if result.interrupted else "trained for"
    if result.stopped is not None:
        say(f"stopped early: {result.stopped}")
    for path in drawn:
        say(f"learning curves: {path}")
    if result.smoothness is not None:
        say(f"roughness of the weights in depth, ∫‖θ'‖² dt: {result.smoothness:.4g}")
    say(f"{state} {result.epochs_done} epochs in {result.seconds:.0f} s; test accuracy {accuracy}; wrote {out}")
    if result.interrupted:
        say(
            "Go on with the same command and --resume" if resumable else "Start again with the same command and --force"
        )
    say(f"Next: robustode eval --model {out}")
