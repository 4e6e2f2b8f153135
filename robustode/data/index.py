"""The content of `dataset.json`: what makes the shards of a data set one set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

SCHEMA = 1


def index_of(header: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """Return the content of `dataset.json`: the header, and what is known of all shards together."""
    status: Counter[str] = Counter()
    survivors: Counter[str] = Counter()
    for entry in entries:
        status.update(entry.get("status", {}))
        survivors.update(entry.get("survivors", {}))
    return {
        **header,
        "columns": entries[0]["columns"],
        "count": sum(entry["count"] for entry in entries),
        "status": {word: status[word] for word in header["codes"].get("status", ()) if status[word]},
        **({"survivors": dict(survivors)} if "survivors" in entries[0] else {}),
        **more,
        "shards": [{key: value for key, value in entry.items() if key != "columns"} for entry in entries],
    }
