"""What is different between an interrupted run and the one that is to go on with it, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

# Of the protocol in run.json: words, and what may change between the parts of a run.
_FREE = ("title", "base", "audit", "transfer", "allow_low_accuracy", "store", "data", "paper")
_APART = ("outputs", "uncertainty", "certificates", "smoothing")  # not in the hash, and must stay as they were
_SHOWN = 60  # characters of a value


def changes(old: Mapping[str, Any], new: Mapping[str, Any], *, machine: bool) -> list[str]:
    """Return one line for each thing that differs between two run.json and forbids a resume, "KEY: A then, B now".

    Args:
        old, new: run.json of the interrupted run, and of the one about to begin.
        machine: whether versions of libraries and the device count.
    """
    found = list(_protocol(old, new)) + list(_models(old["models"], new["models"])) + list(_data(old, new))
    if machine:
        found += _between(old["versions"], new["versions"], "version of ")
        found += _between(old["machine"], new["machine"], "", ("device",))
    return found


def _protocol(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    then, now = _flat(old["protocol"]), _flat(new["protocol"])
    if "outputs" not in old["protocol"]:  # a run of before there was this key
        kept = "adversarials" in now.pop("outputs", ())
        if kept != old["protocol"].get("store", True):
            yield f"outputs: adversarials {'not ' if kept else ''}kept then, {'' if kept else 'not '}kept now"
    same = old["protocol_hash"] == new["protocol_hash"]
    free = [key for key in dict.fromkeys([*then, *now]) if key.startswith(_APART)]
    lines = list(_between(then, now, "", tuple(free) if same else None))
    yield from lines
    data = old["data"]["fingerprint"] != new["data"]["fingerprint"]
    if not same and not lines and not data:
        yield f"the protocol: hash {old['protocol_hash']} then, {new['protocol_hash']} now"


def _flat(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a resolved protocol by dotted key; attacks by their names."""
    cards = {card["name"]: card for card in protocol["attacks"]}
    values = {key: value for key, value in protocol.items() if key not in (*_FREE, "attacks", "params")}
    out: dict[str, Any] = {"attacks": list(cards)}
    _flatten({**values, "attacks": cards}, "", out)
    return out


def _flatten(value: Mapping[str, Any], before: str, out: dict[str, Any]) -> None:
    for key, inner in value.items():
        name = f"{before}{key}"
        if isinstance(inner, Mapping):
            _flatten(inner, f"{name}.", out)
        elif key not in _FREE:
            out[name] = inner


def _between(
    old: Mapping[str, Any], new: Mapping[str, Any], before: str, keys: tuple[str, ...] | None = None
) -> Iterator[str]:
    """The keys whose values differ; of an attack that came or went, only the list of attacks says it."""
    for key in dict.fromkeys([*old, *new]):
        if (keys is not None and key not in keys) or old.get(key) == new.get(key):
            continue
        name = key.split(".")[1] if key.startswith("attacks.") else None
        if name is not None and not (name in old["attacks"] and name in new["attacks"]):
            continue
        yield f"{before}{key}: {_said(old.get(key))} then, {_said(new.get(key))} now"


def _models(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Iterator[str]:
    then, now = ([model["label"] for model in models] for models in (old, new))
    if then != now:
        yield f"models: {', '.join(then)} then, {', '.join(now)} now"
        return
    for one, other in zip(old, new, strict=True):
        if one["hash"] != other["hash"]:
            where = f" ({other['spec']})" if one["spec"] == other["spec"] else f" ({one['spec']}, {other['spec']})"
            yield f"model '{other['label']}'{where}: weights of hash {one['hash']} then, {other['hash']} now"


def _data(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    one, other = old["data"], new["data"]
    if one["fingerprint"] == other["fingerprint"]:
        return
    before = "data: " if one["name"] == other["name"] else f"data: '{one['name']}' then, '{other['name']}' now; "
    if one["n"] != other["n"]:
        yield f"{before}{one['n']} samples then, {other['n']} now"
    else:
        yield f"{before}fingerprint {one['fingerprint'][:16]} then, {other['fingerprint'][:16]} now"


def _said(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}...{text[-_SHOWN // 2 :]}"
