"""Is a robustness number to be believed? `run` asks every check."""

from robustode.audit.finding import Finding, Verdict
from robustode.audit.run import run

__all__ = ["Finding", "Verdict", "run"]
