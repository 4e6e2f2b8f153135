"""The data card: README.md of a data set, with a metadata block, made of its `dataset.json` alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from robustode.data.formats import FORMATS, Layout

Index = Mapping[str, Any]
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_FACTS = (
    ("command", "command"),
    ("source", "source data"),
    ("model", "model"),
    ("model_hash", "hash of the model's configuration and weights"),
    ("attack", "attack"),
    ("norm", "norm"),
    ("eps", "ε (radius of the ball; none: minimal norm)"),
    ("seed", "seed"),
    ("version", "made by robustode"),
)
_COLUMNS = {
    "x": "input: the adversarial one where `status` is `success`, else the clean one",
    "y": "label, the true class, from 0",
    "index": "place of the clean sample in the full split of the source data",
    "clean_pred": "class that the model gives to the clean input",
    "adv_pred": "class that the model gives to `x`; −1 where the attack raised an error",
    "distance": "from the clean input, in `norm`, in float64; inf where none was found, 0 if misclassified",
    "status": "`misclassified` (clean already), `success`, `failed`, `error` (the attack raised)",
    "survives": "1: adversarial before and after rounding to 8 bits; 0: before only; −1: not before",
    "distance_found": "distance before rounding to 8 bits",
    "attack": "name of the attack card",
    "norm": "norm of the distance",
    "eps": "radius of the ball; empty for a minimal-norm attack",
    "params": "parameters of the attack, JSON",
    "file_name": "the image",
    "sha256": "of the image file",
}
_ROUNDED = {
    "x": "8-bit image: the rounded adversarial input where the attack found one, else the rounded clean one",
    "adv_pred": "class that the model gives to the image",
    "distance": "from the clean input to the image, in `norm`; inf where that is not adversarial, 0 if misclassified",
    "status": "`misclassified` (clean already), `success` (also as an image), `failed`, `error` (the attack raised)",
}
_LICENCE = (
    "The licence of the source data applies: a sample is one of theirs, changed a little. This card grants no other."
)


def card(indices: Mapping[str, Index]) -> str:
    """Return the data card of the data sets of a folder, by split ("" for a set that has no folder of its own)."""
    first = next(iter(indices.values()))
    parts = [
        _block(indices, first),
        f"# {_title(first['meta'])}\n",
        _summary(indices, first),
        "## How it was made\n",
        *_made(indices, first),
        "## What is in it\n",
        *(_contents(split, index) for split, index in indices.items()),
        *_columns(first),
        "## Licence\n",
        f"{_LICENCE}\n",
        "## How to read it\n",
        *_reading(indices),
    ]
    return "\n".join(parts)


def _title(meta: Mapping[str, Any]) -> str:
    source = meta.get("source", "data")
    if "attack" not in meta:
        return f"Data set from {source}"
    return f"Adversarial {source}: {meta['attack']} on {meta.get('model', 'a model')}"


def _block(indices: Mapping[str, Index], first: Index) -> str:
    """Return the metadata, YAML; its texts are JSON texts, which are YAML, too."""
    n = sum(index["count"] for index in indices.values())
    size = next((name for limit, name in _SIZES if n < limit), "n>1M")
    lines = ["---", f"pretty_name: {json.dumps(_title(first['meta']), ensure_ascii=False)}"]
    lines += ["license: other", "license_name: licence-of-the-source-data"]
    if len(first["input_shape"]) == 3:
        lines += ["task_categories:", "- image-classification"]
    if "attack" in first["meta"]:
        lines += ["tags:", "- adversarial-examples", "- robustness"]
    lines += ["size_categories:", f"- {size}"]
    pattern = FORMATS[first["format"]].table
    if pattern:
        lines += ["configs:", "- config_name: default", "  data_files:"]
        for folder, index in indices.items():
            split = Layout.of(index).split
            path = f"{folder}/{pattern}" if folder else pattern
            lines += [f"  - split: {split}", f"    path: {json.dumps(path.format(split=split))}"]
    return "\n".join([*lines, "---\n"])


def _summary(indices: Mapping[str, Index], first: Index) -> str:
    n, meta = sum(index["count"] for index in indices.values()), first["meta"]
    box = "" if first["bounds"] is None else f" in [{first['bounds'][0]:g}, {first['bounds'][1]:g}]"
    shape = "×".join(map(str, first["input_shape"]))
    kind = f"{n:,} samples of {shape} numbers{box}, {first['classes']} classes, in the format {first['format']}."
    if "attack" not in meta:
        return f"{kind}\n"
    told = "Each success was judged again by the harness that called the attack: prediction, box, ball and distance."
    return f"Adversarial examples of {meta.get('caption', 'data')}. {kind} {told}\n"


def _made(indices: Mapping[str, Index], first: Index) -> Iterator[str]:
    meta = first["meta"]
    facts = [(title, meta[key]) for key, title in _FACTS if meta.get(key) not in (None, "")]
    facts += [(f"{split} samples".strip(), index["meta"].get("caption", "")) for split, index in indices.items()]
    rows = [f"| {title} | {_cell(value)} |" for title, value in facts if value != ""]
    yield "\n".join(["| what | value |", "| --- | --- |", *rows, ""])
    if "attack_card" in meta:
        yield "The attack card, every parameter of it:\n"
        yield f"```json\n{json.dumps(meta['attack_card'], indent=2, ensure_ascii=False)}\n```\n"


def _contents(split: str, index: Index) -> str:
    counts = ", ".join(f"{count:,} {word}" for word, count in index.get("status", {}).items())
    shards = len(index["shards"])
    files = f"{shards} shard{'' if shards == 1 else 's'}"
    text = f"- {Layout.of(index).split}{f' (folder `{split}`)' if split else ''}: {index['count']:,} samples in {files}"
    text += f": {counts}.\n" if counts else ".\n"
    if "survivors" in index:
        found, left = index["survivors"]["found"], index["survivors"]["survive"]
        text += f"  Rounding to 8 bits: of {found:,} adversarial inputs {left:,} are still adversarial.\n"
    if index.get("dropped"):
        gone = ", ".join(f"`{entry['file']}` ({entry['count']:,} samples)" for entry in index["dropped"])
        text += f"  Dropped, because it was broken: {gone}. The command above with `--resume` makes it again.\n"
    return text


def _columns(index: Index) -> Iterator[str]:
    form, layout = FORMATS[index["format"]], Layout.of(index)
    names = form.headings(list(index["columns"]), layout)
    words = {**_COLUMNS, **(_ROUNDED if "survivors" in index else {})}
    rows = [f"| `{name}` | {words.get(name, 'further column')} |" for name in names]
    yield "\n".join(["| column | meaning |", "| --- | --- |", *rows, ""])
    coded = [name for name in layout.codes if name in index["columns"]]
    if coded and not set(layout.constants) & set(names):
        listed = "; ".join(
            f"`{name}`: " + ", ".join(f"{k} {word}" for k, word in enumerate(layout.codes[name])) for name in coded
        )
        yield f"Words are stored as numbers: {listed}. What is the same for all samples stands in `dataset.json`.\n"


def _reading(indices: Mapping[str, Index]) -> Iterator[str]:
    split, index = next(iter(indices.items()))
    code = FORMATS[index["format"]].example(Layout.of(index))
    folder = f"path/to/this/folder/{split}" if split and "load_dataset" not in code else "path/to/this/folder"
    yield "```python\n" + code.replace("DIR", f'"{folder}"') + "\n```\n"
    yield "```sh\nrobustode eval --model CKPT --data path/to/this/folder --attacks none --allow-low-accuracy\n```\n"
    yield "`sha256sum -c SHA256SUMS`, in this folder, checks every file.\n"


def _cell(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
