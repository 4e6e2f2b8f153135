"""validity: what attacks return lies where it may, and is what they claim."""

from __future__ import annotations

import numpy as np
import pandas as pd

from robustode.attacks.base import Status
from robustode.audit.case import Case
from robustode.audit.check import Check, Found, not_applicable
from robustode.audit.finding import Verdict
from robustode.evaluation.judge import REFUSED
from robustode.evaluation.rows import CLAIMED

SHARE = 0.01


def run(case: Case) -> Found:
    """Count returned points that are not finite or outside box or ball + τ, and claims of success that do not hold."""
    rows = pd.DataFrame(case.records[case.records["status"].isin([Status.SUCCESS.value, Status.FAILED.value])])
    if len(rows) == 0:
        return not_applicable("no attack returned a point")
    refused = np.array([str(said).startswith(REFUSED) for said in rows["message"]])
    wrong = np.array([str(said).endswith(CLAIMED) for said in rows["message"]])
    attack = rows["attack"].to_numpy()
    shares = {str(name): float(wrong[attack == name].mean()) for name in dict.fromkeys(attack)}
    worst = max(shares, key=lambda name: shares[name])
    share = shares[worst]
    text = f"{int(refused.sum())} of {len(rows)} returned points are not finite or lie outside the box or the ball"
    if bool(refused.any()):
        text += f" ({', '.join(sorted(set(attack[refused])))})"
    text += f"; an attack's claim of success is wrong on at most {share:.2%} of its points"
    text += f" ({worst})" if share else ""
    bad = bool(refused.any()) or share > SHARE
    samples = tuple(sorted(set(rows["sample"].to_numpy()[refused | wrong].tolist()))) if bad else ()
    return Found(
        status=Verdict.FAIL if bad else Verdict.PASS,
        value=float(refused.sum()),
        threshold=0.0,
        text=text,
        samples=samples,
        details={"claims_wrong": shares},
    )


CHECK = Check(
    id="validity",
    title="returned points are inside box and ball, and claims of success hold",
    cheap=True,
    source="foolbox issues 674 and 711",
    advice="These points count as failures here; clip them inside the attack, and count success by predicting anew.",
    run=run,
)
