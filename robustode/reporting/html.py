"""The report: one HTML page that works offline, for one run or several comparable ones."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from robustode.evaluation.rundir import RunDir
from robustode.evaluation.statistics import Estimate
from robustode.files import write_text
from robustode.reporting import audit, captions, layout
from robustode.reporting.charts import Chart, all_charts
from robustode.reporting.charts.chart import COLOURS
from robustode.reporting.formatting import eps_label, norm_name, percent
from robustode.reporting.gallery import gallery
from robustode.reporting.join import join, left_apart
from robustode.reporting.tables import Table
from robustode.reporting.views import run_tables

ARCHITECTURES = {
    "snode": "sNODE",
    "conv-snode": "convolutional sNODE",
    "layered": "layered twin (the paper's ResNet)",
    "resnet": "convolutional ResNet",
}


def write_report(runs: Sequence[RunDir], out: Path, *, charts: Sequence[Chart] | None = None) -> Path:
    """Write the report of one or several finished runs as one HTML file, atomically, and return its path.

    Style sheet, scripts, charts and pictures are inside, and the page forbids itself every request to the network.
    Equal runs give equal bytes.

    Args:
        runs: one or several that are comparable.
        out: the file.
        charts: those of the joined runs, where they were made before.

    Raises:
        RunError: if the runs are not comparable.
    """
    return write_text(render(runs, charts), out)


def render(runs: Sequence[RunDir], charts: Sequence[Chart] | None = None) -> str:
    """Return the HTML text of `write_report`."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    run = join(runs)
    charts = all_charts(run) if charts is None else charts
    tables = run_tables(run)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = _cell
    labels = [model["label"] for model in run.meta["models"]]
    return environment.from_string(_resource("report.html.j2")).render(
        title=f"Robustness of {_enumerate(labels)} on {run.meta['data']['name']}",
        subtitle=f"{run.meta['data']['caption']}; {', '.join(sorted({r.meta['created'] for r in runs}))}",
        notes=notes(runs, run.meta),
        verdicts=audit.verdicts(run.audit),
        scope=(run.audit or {}).get("scope"),
        summary=summary(tables, run.records, run.meta),
        tables=tables,
        downloads={table.name: _downloads(table) for table in tables},
        charts=charts,
        data=Markup(_json([_chart(chart) for chart in charts])),
        library=Markup(_library() if charts else ""),
        script=Markup(_resource("page.js")),
        strips=gallery(runs, run.meta["models"]),
        models=[
            {"label": model["label"], "facts": _model_facts(model), "colour": COLOURS[i % len(COLOURS)]}
            for i, model in enumerate(run.meta["models"])
        ],
        runs=[_run(r) for r in runs],
    )


def notes(runs: Sequence[RunDir], meta: dict[str, Any]) -> list[str]:
    """Return what a reader must know before any number: partial runs, attacks that raised, EOT, different machines."""
    found = [captions.partial(meta)]
    for entry in meta.get("errors") or []:
        found.append(
            f"{entry['attack']} raised on {entry['count']} samples of {entry['model']}: {entry['message']}. Cells that "
            "depend on them read incomplete (k)."
        )
    if meta.get("eot"):
        found.append(f"The predictions are random: averaged over {meta['eot']} passes (EOT).")
    if words := captions.precision(meta):
        found.append(words)
    for what, plural in (("versions", "versions of libraries"), ("machine", "machines; do not compare seconds")):
        if len({json.dumps(run.meta.get(what), sort_keys=True) for run in runs}) > 1:
            found.append(f"The runs come from different {plural}.")
    for name in left_apart(runs):
        words = "Certificates" if name == "certificates" else "Certificates of smoothed models"
        found.append(f"{words} are left out: not all of the runs have them for the same norms, radii and map or noise.")
    return [note for note in found if note]


def summary(tables: Sequence[Table], records: pd.DataFrame, meta: dict[str, Any]) -> Table:
    """Return a row for each model: clean accuracy and the worst case at every budget of every norm."""
    frames = [table.frame for table in tables if table.name.startswith(("robust_accuracy", "clean_accuracy"))]
    rows = [row for frame in frames for row in frame.to_dict(orient="records")]
    after = any(row["attack"] == layout.AFTER_AUDIT for row in rows)
    rows = [row for row in rows if row["attack"] in (layout.AFTER_AUDIT if after else layout.ALL_ATTACKS, "none")]
    display = []
    for model in meta["models"]:
        cells = {"model": model["label"]}
        for row in (row for row in rows if row["model"] == model["label"]):
            head = f"{norm_name(row['norm'])} {eps_label(row['eps'])}" if row["eps"] else "clean"
            estimate = Estimate(value=row["estimate"], lo=row["lo"], hi=row["hi"])
            cells[head] = f"incomplete ({row['incomplete']})" if row["incomplete"] else percent(estimate)
        display.append(cells)
    text = "" if records.empty else f"{captions.WORST_CASE} {captions.AUDIT}" if after else captions.WORST_CASE
    return Table(
        name="summary",
        title="Summary",
        caption=captions.caption(records, meta, text, captions.WILSON),
        frame=pd.DataFrame(rows),
        display=pd.DataFrame(display),
        group=None,
    )


def _cell(text: str) -> Any:
    """A cell with its interval set apart, so that it can go below the number on a narrow screen."""
    from markupsafe import Markup, escape

    value, bracket, rest = text.partition(" [")
    return Markup('{} <span class="ci">[{}</span>').format(value, rest) if bracket else escape(text)


def _resource(name: str) -> str:
    return resources.files("robustode.reporting").joinpath(name).read_text(encoding="utf-8")


@cache
def _library() -> str:
    """Vega, Vega-Lite and vega-embed as one script, which vl-convert carries: nothing is loaded from elsewhere."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")


def _chart(chart: Chart) -> dict[str, Any]:
    return {"name": chart.name, "models": list(chart.models) or None, "spec": chart.page()}


def _json(value: Any) -> str:
    """JSON that cannot end the script element in which it stands."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _downloads(table: Table) -> list[tuple[str, str]]:
    files = ((f"{table.name}.csv", "text/csv", table.csv()), (f"{table.name}.tex", "text/x-tex", table.latex()))
    return [(name, f"data:{kind};base64,{base64.b64encode(text.encode()).decode()}") for name, kind, text in files]


def _model_facts(model: dict[str, Any]) -> list[tuple[str, str]]:
    lo, hi = model["bounds"]
    provenance = model.get("provenance") or {}
    rows = [
        ("architecture", ARCHITECTURES.get(str(model.get("arch")), str(model.get("arch")))),
        ("given as", model["spec"]),
        ("hash", model["hash"]),
        ("parameters", f"{model['parameters']:,}"),
        ("input", f"{' × '.join(map(str, model['input_shape']))}, in [{lo:g}, {hi:g}], {model['classes']} classes"),
        ("clean accuracy", f"{100 * model['clean_accuracy']:.1f} % ({model['clean_correct']} of {model['n']})"),
    ]
    rows += [("run", model["run"])] if "run" in model else []
    return rows + [(f"training: {key}", _text(value)) for key, value in provenance.items()]


def _run(run: RunDir) -> dict[str, Any]:
    meta = run.meta
    facts = [("status", meta["status"]), ("created", meta["created"]), ("protocol", meta["protocol_hash"])]
    facts += [(f"data: {key}", _text(meta["data"][key])) for key in ("name", "split", "n", "fingerprint")]
    facts += [(what, _text(meta.get(what))) for what in ("versions", "seeds", "machine")]
    return {
        "path": str(run.path),
        "command": meta["command"],
        "facts": facts,
        "protocol": json.dumps(meta["protocol"], indent=2, ensure_ascii=False),
        "files": "\n".join(f"{digest}  {name}" for name, digest in meta["files"].items()),
    }


def _text(value: Any) -> str:
    """One line for a value of a JSON document."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    return ", ".join(map(_text, value)) if isinstance(value, list) else "–" if value is None else str(value)


def _enumerate(labels: list[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
