"""Whether an interrupted run ended in the files of an undisturbed one: all of them, to the byte."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from robustode.api import publish
from robustode.evaluation.outdir import own_files
from robustode.evaluation.rundir import read_run
from robustode.reporting.html import write_report

# The only files in which seconds or the time of day stand.
TIMED = {"timings.parquet", "report.html", "run.json"} | {f"tables/attack_cost.{kind}" for kind in ("csv", "md", "tex")}


def check_same(run: Path, whole: Path, spare: Path) -> None:
    """Check that two finished runs, made by one command line in two directories, are the same.

    Every file apart from `TIMED` has the same bytes. Those have them, too, once the first run is given the seconds of
    the second: what stays different are `created`, `command` and `engine` alone.
    """
    (one, one_meta), (two, two_meta) = (_files(path) for path in (run, whole))
    assert one.keys() == two.keys()
    assert {name for name in one if one[name] != two[name]} <= TIMED
    assert {key for key in one_meta if one_meta[key] != two_meta[key]} <= {"created", "command", "engine", "files"}
    shutil.copytree(run, spare)
    shutil.copy(whole / "timings.parquet", spare / "timings.parquet")
    meta = {
        **one_meta,
        "created": two_meta["created"],
        "command": two_meta["command"],
        "engine": two_meta["engine"],
        "files": own_files(spare),
    }
    (spare / "run.json").write_text(json.dumps(meta))
    ended = replace(read_run(spare), meta={**meta, "files": {}})  # as it is when a run ends
    publish(ended)
    write_report([replace(ended, path=whole)], spare / "report.html")
    again, _ = _files(spare)
    assert {name for name in two if again[name] != two[name]} <= {"run.json"}


def _files(path: Path) -> tuple[dict[str, bytes], dict]:
    """The bytes of every file of a run that is not in shards/, hidden ones too, and its run.json."""
    found = {file.relative_to(path): file for file in path.rglob("*") if file.is_file()}
    files = {str(name): file.read_bytes() for name, file in found.items() if name.parts[0] != "shards"}
    return files, json.loads(files["run.json"])
