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
    # The clean points; before that, once for each file `once-*` and always where there is `always`, `most` or `slow`.
    if (HERE / "most").exists() and len(x) > int((HERE / "most").read_text()):
        raise MemoryError
    for file in sorted(HERE.glob("once-*")):
        try:
            file.unlink()
        except FileNotFoundError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)
    if (HERE / "always").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if (HERE / "slow").exists():
        mine = HERE / f"at-work-{os.getpid()}"
        mine.touch()
        end = time.monotonic() + float((HERE / "slow").read_text())
        while mine.exists() and time.monotonic() < end:  # or until the file is taken away
            time.sleep(0.05)
        mine.unlink(missing_ok=True)
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


def children(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    try:
        own = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return own + [other for child in own for other in children(child)]
