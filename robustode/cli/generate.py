"""`robustode generate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from robustode.cli import options
from robustode.cli.console import emit, progress, say
from robustode.cli.evaluate import command_line


def generate_command(
    model: options.Model,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Directory of the data set.")],
    attack: Annotated[
        str, typer.Option("--attack", metavar="CARD", help="Card by name or path, or library:NAME with --norm.")
    ],
    data: options.Data = None,
    format_: Annotated[str, typer.Option("--format", metavar="FORMAT", help="npz or safetensors.")] = "npz",
    eps: Annotated[
        str | None, typer.Option("--eps", metavar="EPS", help="One radius; none means minimal norm.")
    ] = None,
    norm: options.Norms = None,
    param: options.Params = None,
    limit: options.Limit = None,
    split: options.Split = "test",
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
    shard: options.Shard = 500,
    allow_low_accuracy: options.AllowLowAccuracy = False,
    resume: options.Resume = False,
    force: options.Force = False,
    data_root: options.DataRoot = None,
    json_: options.Json = False,
) -> None:
    """Write an adversarial data set.

    Example: robustode generate --model zoo:snode-digits --attack sensitivity-l2 --out adversarial-digits
    """
    from robustode.attacks.cards import resolve
    from robustode.errors import AttackError
    from robustode.evaluation.budgets import parse_budgets
    from robustode.evaluation.generate import generate
    from robustode.evaluation.plan import make_plan
    from robustode.evaluation.protocol import build_protocol

    options.check_place(out, resume=resume, force=force)
    params = options.params_of(param)
    cards = resolve(attack, norms=norm or [], params=params or None)
    if len(cards) != 1:
        got = ", ".join(card.name for card in cards) or "none"
        raise AttackError("--attack", expected="one card", got=got, fix="Name one of them, or choose with --norm.")
    extra = options.module_options(arch, bounds, classes, input_shape, mean, std, normalise, output)
    values = {
        "models": [{"model": model, **extra}],
        "data": data,
        "split": split,
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
    plan = make_plan(build_protocol(values, "generation"), data_root=data_root, device=place)
    try:
        with progress(json_) as bar:
            task = bar.add_task(attack, total=None) if bar is not None else None

            def listen(done: int, total: int) -> None:
                if bar is not None and task is not None:
                    bar.update(task, completed=done, total=total)

            made = generate(
                plan, out, format=format_, command=command_line(), resume=resume, force=force, listen=listen
            )
    except KeyboardInterrupt:
        if out.exists():
            sys.stderr.write(f"what is finished stays in {out}; go on with the same command and --resume\n")
        raise typer.Exit(130) from None
    if json_:
        emit({"out": str(out), "status": made.status, "error": made.errors or None})
    else:
        listing = ", ".join(f"{count} {name}" for name, count in sorted(made.status.items()))
        say(f"{listing or 'nothing new'}; wrote {made.path}")
        if made.errors:
            say(f"the attack raised: {made.errors}")
        say(f"Read it back in eval: --data {out} --attacks none --allow-low-accuracy, or attack with it: --also {out}")
    if made.errors:
        raise typer.Exit(1)
