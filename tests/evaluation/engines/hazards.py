"""Attacks that befall the process they run in, and what the tests of the engines share."""

from __future__ import annotations

from pathlib import Path

from robustode.evaluation.plan import Plan
from tests.evaluation.problem import affine, forms, plan_of
from tests.evaluation.runs import BUDGETS, CARD, SIX, six_attacks

HAZARDS = """
import os
import signal
import time
from pathlib import Path

HERE = Path(__file__).parent


def hazard(model, x, y, *, norm, eps, generator):
    # The clean points; before that, once for each file `once-*` and always where there is `always` or `slow`.
    for file in sorted(HERE.glob("once-*")):
        try:
            file.unlink()
        except FileNotFoundError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)
    if (HERE / "always").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if (HERE / "slow").exists():
        time.sleep(float((HERE / "slow").read_text()))
    return x
"""


def hazardous(folder: Path) -> Plan:
    """The six attacks and `hazard`, on an affine classifier in two shards; `folder` has the files it looks for."""
    six_attacks(folder)
    forms(folder)
    (folder / "hazards.py").write_text(HAZARDS)
    card = CARD.format(name="hazard", norm="l2", kind="minimal").replace("forms.py", "hazards.py")
    (folder / "hazard.toml").write_text(card)
    (folder / "seven.toml").write_text(f"attacks = {['hazard', *SIX]}\n")
    model, data = affine()
    return plan_of(model, data, attacks=str(folder / "seven.toml"), budgets=BUDGETS, shard=16)
