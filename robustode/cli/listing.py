"""`robustode list`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from robustode.cli import options
from robustode.cli.console import console, emit
from robustode.errors import unknown

Row = dict[str, str]


def list_command(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="models, attacks, suites, evaluations, data or bounds.")],
    json_: options.Json = False,
) -> None:
    """List what is there by name.

    Example: robustode list attacks
    """
    from rich.table import Table

    if what not in LISTS:
        raise unknown("list", what, LISTS)
    rows = LISTS[what]()
    if json_:
        emit({what: rows})
        return
    table = Table(box=None, pad_edge=False)
    for name in rows[0] if rows else ["name"]:
        table.add_column(name, no_wrap=name == "name", overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    console().print(table)


def _models() -> list[Row]:
    from robustode.models import peek, zoo_names

    rows = []
    for name in zoo_names():
        facts = peek(f"zoo:{name}")
        header = facts["header"]
        accuracy = "" if facts["accuracy"] is None else f"{facts['accuracy']:.1%}"
        command = str(header.provenance.get("command", ""))
        rows.append(
            {
                "name": f"zoo:{name}",
                "arch": header.arch,
                "data": facts["data"],
                "accuracy": accuracy,
                "trained by": command,
            }
        )
    return rows


def _attacks() -> list[Row]:
    from robustode.attacks.cards import card_names, resolve

    cards = [resolve(name)[0] for name in card_names()]
    return [{"name": c.name, "norm": c.norm, "kind": c.kind, "title": c.title, "paper": c.paper} for c in cards]


def _suites() -> list[Row]:
    from robustode.attacks.cards import resolve, suite_names

    return [{"name": name, "attacks": ", ".join(card.name for card in resolve(name))} for name in suite_names()]


def _evaluations() -> list[Row]:
    from robustode.evaluation.protocol import protocol_names, read_protocol
    from robustode.evaluation.study import is_study, read_study

    rows = []
    for name in protocol_names():
        if is_study(name):
            study = read_study(name)
            data, models = ", ".join(plan.name for plan in study.data), f"{len(study.arms)} arms, trained by it"
            row = {"title": study.title, "data": data, "models": models, "attacks": ", ".join(study.evaluation.attacks)}
        else:
            p = read_protocol(name)
            models = ", ".join(m.model for m in p.models) or "yours (--model)"
            row = {"title": p.title, "data": p.data or "the models' own", "models": models, "attacks": p.attacks}
        rows.append({"name": name, **row})
    return rows


def _bounds() -> list[Row]:
    from robustode.certificates import BOUNDS

    return [
        {"name": b.name, "certifies": b.certifies, "norms": ", ".join(b.norms), "title": b.title, "source": b.source}
        for b in BOUNDS.values()
    ]


def _data() -> list[Row]:
    from robustode.data import list_data

    rows = []
    for info in list_data():
        shape = "×".join(map(str, info.shape))
        rows.append({"name": info.name, "shape": shape, "title": info.title, "description": info.description})
    return rows


LISTS: dict[str, Callable[[], list[Row]]] = {
    "models": _models,
    "attacks": _attacks,
    "suites": _suites,
    "evaluations": _evaluations,
    "data": _data,
    "bounds": _bounds,
}
