"""`robustode generate`."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustode.cli import options
from robustode.cli.console import emit, progress, say
from robustode.cli.evaluate import command_without_resume

if TYPE_CHECKING:
    from robustode.evaluation.generate import Generated
    from robustode.evaluation.plan import Plan

CARD, SUMS = "README.md", "SHA256SUMS"  # of `robustode.data.place`, which would import torch here
FORMAT_HELP = (
    "npz; safetensors; parquet (pandas); huggingface (datasets.load_dataset reads the folder); png (8-bit images; "
    "success is judged again after rounding)."
)


def generate_command(
    model: options.Model,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Directory of the data set.")],
    attack: Annotated[
        str, typer.Option("--attack", metavar="CARD", help="Card by name or path, or library:NAME with --norm.")
    ],
    data: options.Data = None,
    format_: Annotated[str, typer.Option("--format", metavar="FORMAT", help=FORMAT_HELP)] = "npz",
    eps: Annotated[
        str | None, typer.Option("--eps", metavar="EPS", help="One radius; none means minimal norm.")
    ] = None,
    norm: options.Norms = None,
    param: options.Params = None,
    limit: options.Limit = None,
    split: Annotated[
        list[str] | None,
        typer.Option("--split", metavar="SPLIT", help="test (default) or train; given twice, a folder for each."),
    ] = None,
    arch: options.Arch = None,
    bounds: options.Bounds = None,
    classes: options.Classes = None,
    input_shape: options.InputShape = None,
    mean: options.Mean = None,
    std: options.Std = None,
    normalise: options.Normalise = None,
    output: options.Output = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    dtype: options.DType = None,
    shard: options.Shard = 500,
    allow_low_accuracy: options.AllowLowAccuracy = False,
    resume: options.Resume = False,
    force: options.Force = False,
    data_root: options.DataRoot = None,
    json_: options.Json = False,
) -> None:
    """Write an adversarial data set.

    Every sample is attacked by one card and judged: input, label, index, predictions, distance, status. A data card
    (README.md) and checksums (SHA256SUMS) stand beside it. Ctrl-C keeps what is finished; --resume goes on.

    Example: robustode generate --model zoo:snode-digits --attack sensitivity-l2 --out adversarial-digits
    """
    from robustode.attacks.cards import resolve
    from robustode.data.formats import format_of
    from robustode.errors import AttackError
    from robustode.evaluation.budgets import parse_budgets
    from robustode.evaluation.generate import check_request
    from robustode.evaluation.plan import make_plan
    from robustode.evaluation.protocol import build_protocol

    format_of(format_)
    options.check_place(out, resume=resume, force=force)
    params = options.params_of(param)
    cards = resolve(attack, norms=norm or [], params=params or None)
    if len(cards) != 1:
        got = ", ".join(card.name for card in cards) or "none"
        raise AttackError("--attack", expected="one card", got=got, fix="Name one of them, or choose with --norm.")
    extra = options.module_options(arch, bounds, classes, input_shape, mean, std, normalise, output, dtype)
    values = {
        "models": [{"model": model, **extra}],
        "data": data,
        "limit": limit,
        "attacks": attack,
        "norms": norm or [],
        "params": params,
        "budgets": parse_budgets([eps], [cards[0].norm]) if eps else {},
        "seed": seed,
        "shard": shard,
        "allow_low_accuracy": allow_low_accuracy,
    }
    place = options.check_device(device)
    plans = {}
    for name in dict.fromkeys(split or ["test"]):
        protocol = build_protocol({**values, "split": name}, "generation")
        plans[name] = make_plan(protocol, data_root=data_root, device=place)
        check_request(plans[name], format_)
    made = _generate(plans, out, format_, attack, resume=resume, force=force, quiet=json_)
    if json_:
        emit(_document(made, out, format_))
    else:
        _tell(made, out)
    if any(one.errors for one in made.values()):
        raise typer.Exit(1)


def _generate(
    plans: dict[str, Plan], out: Path, format_: str, attack: str, *, resume: bool, force: bool, quiet: bool
) -> dict[str, Generated]:
    """Write the set, with a progress bar; Ctrl-C says how to go on."""
    from robustode.evaluation.generate import generate
    from robustode.evaluation.splits import generate_splits

    try:
        with progress(quiet) as bar:
            task = bar.add_task(attack, total=None) if bar is not None else None

            def listen(done: int, total: int) -> None:
                if bar is not None and task is not None:
                    bar.update(task, completed=done, total=total)

            settings = {"format": format_, "command": command_without_resume(), "resume": resume, "force": force}
            if len(plans) > 1:
                return generate_splits(plans, out, listen=listen, **settings)
            (plan,) = plans.values()
            return {plan.data.split: generate(plan, out, listen=listen, **settings)}
    except KeyboardInterrupt:
        if out.exists():
            sys.stderr.write(f"what is finished stays in {out}; go on with the same command and --resume\n")
        raise typer.Exit(130) from None


def _tell(made: dict[str, Generated], out: Path) -> None:
    for split, one in made.items():
        prefix = f"{split}: " if len(made) > 1 else ""
        said = f"{prefix}{_counts(one.status)}"
        kept = sum(one.status.values()) - sum(one.made.values())
        if kept:
            said += f" ({kept} of them kept, {sum(one.made.values())} new)"
        if one.survivors is not None:
            found, left = one.survivors["found"], one.survivors["survive"]
            said += f"; of {found} adversarials {left} still are after rounding to 8 bits"
        say(f"{said}; wrote {one.path}")
        if one.errors:
            say(f"{prefix}the attack raised: {one.errors}")
    say(f"Data card {out / CARD}; check the files with: sha256sum -c {SUMS}")
    say(f"Read it back in eval: --data {out} --attacks none --allow-low-accuracy, or attack with it: --also {out}")
    say(f"Train on it: robustode train snode --data {out} --out robust.safetensors")


def _counts(status: dict[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in sorted(status.items()))


def _document(made: dict[str, Generated], out: Path, format_: str) -> dict[str, Any]:
    """Return what --json prints: the set as a whole, then each split."""
    splits = {
        split: {
            "path": str(one.path),
            "samples": sum(one.status.values()),
            "status": one.status,
            "made": one.made,
            "survivors": one.survivors,
            "error": one.errors or None,
        }
        for split, one in made.items()
    }
    total: Counter[str] = Counter()
    for one in made.values():
        total.update(one.status)
    return {
        "out": str(out),
        "format": format_,
        "card": str(out / CARD),
        "checksums": str(out / SUMS),
        "samples": sum(total.values()),
        "status": dict(total),
        "splits": splits,
        "error": next((one.errors for one in made.values() if one.errors), None),
    }
