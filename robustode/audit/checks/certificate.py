"""certificate: no adversarial lies inside a certified radius."""

from __future__ import annotations

import numpy as np
import pandas as pd

from robustode.attacks.norms import ball_tolerance
from robustode.audit.case import Case
from robustode.audit.check import Check, Found, not_applicable
from robustode.audit.finding import Verdict
from robustode.evaluation.records import rows

DEPLOYED = "discrete"


def run(case: Case) -> Found:
    """Compare certified radii r of the deployed map with the smallest distances d that the run and the checks before
    this one found in the same norm: 0 ≤ r ≤ d + τ for every sample.

    Every distance is of a point that the judge confirmed. A misclassified sample has d = 0.
    """
    if case.certificates is None:
        return not_applicable("the run has no certificates")
    own = rows(case.certificates, map=DEPLOYED)
    if own.empty:
        return not_applicable("its certificates are of the flow, which is not the deployed map")
    found = {norm: _of_norm(case, rows(own, norm=norm), norm) for norm in dict.fromkeys(own["norm"])}
    attacked = set(case.records["norm"]) | set(case.audited["norm"])
    tried = [norm for norm in found if norm in attacked]
    frame = pd.concat([*found.values()], ignore_index=True)
    violated = pd.DataFrame(frame[frame["violated"]])
    if violated.empty and not tried:
        return not_applicable("no attack was run in the norms of the certificates")
    details = {norm: _numbers(one) for norm, one in found.items()}
    if violated.empty:
        said = ", ".join(f"{norm}: at most {details[norm]['largest_ratio']:.3g} of the way" for norm in tried)
        text = f"no adversarial lies inside the certified radius of any of {len(frame)} samples ({said})"
        return Found(status=Verdict.PASS, value=0.0, threshold=0.0, text=text, details=details)
    worst = violated.loc[violated["excess"].idxmax()]
    text = (
        f"{len(violated)} of {len(frame)} certified radii do not hold; sample {worst['sample']}: '{worst['method']}' "
        f"certifies {worst['radius']:.6g} in {worst['norm']}, and an adversarial is at {worst['distance']:.6g}"
    )
    samples = tuple(sorted(set(violated["sample"].tolist())))
    return Found(
        status=Verdict.FAIL, value=float(len(violated)), threshold=0.0, text=text, samples=samples, details=details
    )


def _of_norm(case: Case, own: pd.DataFrame, norm: str) -> pd.DataFrame:
    """The certificates of one norm with the smallest distance found, and whether they are violated."""
    index = case.shard.index.tolist()
    audited = rows(case.audited, norm=norm).groupby("sample")["distance"].min()
    found = np.minimum(case.distances(norm), pd.Series(audited).reindex(index).to_numpy(dtype=float, na_value=np.inf))
    distance = pd.Series(found, index=index).reindex(own["sample"]).to_numpy(dtype=float)
    radius = own["radius"].to_numpy(dtype=float)
    bounds, dimension = tuple(case.model.bounds), case.shard.x[0].numel()
    slack = np.array([ball_tolerance(d, bounds, dimension, norm) if np.isfinite(d) else 0.0 for d in distance])
    holds = (radius >= 0) & (radius <= distance + slack)
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = np.where(np.isnan(radius), np.inf, np.maximum(radius - distance, -radius))
        ratio = np.where(radius > 0, radius / distance, 0.0)
    columns = {"distance": distance, "violated": ~holds, "excess": excess, "ratio": ratio}
    return own.reset_index(drop=True).assign(**columns)


def _numbers(frame: pd.DataFrame) -> dict[str, float | int]:
    met = frame[np.isfinite(frame["ratio"].to_numpy())]
    return {
        "samples": len(frame),
        "violated": sum(frame["violated"].tolist()),
        "largest_ratio": max(met["ratio"].tolist(), default=0.0),
    }


CHECK = Check(
    id="certificate",
    title="no adversarial lies inside a certified radius",
    cheap=True,
    source="RobustODE: what a certificate asserts",
    advice="A soundness bug: quote no certified number of this run, and report the model and these samples.",
    run=run,
)
