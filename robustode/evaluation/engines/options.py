"""Which engine computes the units of a run; no part of its protocol, as its records do not depend on it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec

from robustode.errors import MissingDependency, OptionError, unknown

ENGINES = ("local", "processes", "ray")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How the units of a run are computed.

    Attributes:
        name: "local" (one after the other, in this process), "processes" (in worker processes of this machine) or
            "ray" (as tasks of a Ray cluster).
        workers: units computed at once; None for one process a core, or as many as the cluster has cores.
        address: HOST:PORT of a running Ray cluster, or "auto" for the one of this machine; None starts one here.
        memory: bytes that one process may take, by which the attacks' chunks are chosen; None for no limit.

    Raises:
        OptionError: an unknown engine, or options that are not the engine's.
    """

    name: str = "local"
    workers: int | None = None
    address: str | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise unknown("engine", self.name, ENGINES)
        if self.workers is not None and (isinstance(self.workers, bool) or self.workers < 1):
            raise OptionError("workers", expected="a whole number ≥ 1", got=self.workers)
        if self.workers is not None and self.name == "local":
            fix = "Add --engine processes, or --engine ray."
            raise OptionError("workers", expected="an engine with workers", got="engine 'local'", fix=fix)
        if self.address is not None and self.name != "ray":
            raise OptionError("address", expected="engine 'ray'", got=f"engine '{self.name}'", fix="Add --engine ray.")


LOCAL = Engine()


def parse_part(text: str, option: str = "--shard") -> tuple[int, int]:
    """Read i/N, the i-th of N parts counted from 0.

    Raises:
        OptionError: not two whole numbers with 0 ≤ i < N.
    """
    first, slash, second = text.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal() and int(first) < int(second)):
        raise OptionError(option, expected="i/N with 0 ≤ i < N, such as 0/2", got=f"'{text}'")
    return int(first), int(second)


def check_installed(engine: Engine) -> Engine:
    """Return an engine whose library is installed.

    Raises:
        MissingDependency: it is not.
    """
    if engine.name == "ray" and find_spec("ray") is None:
        raise MissingDependency("ray", "ray")
    return engine


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def parse_size(text: str, option: str = "--memory") -> int:
    """Read a number of bytes: 2GB, 512 MiB, 1.5G, 800000000.

    Raises:
        OptionError: not a positive number with one of these units.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([KMGT]?I?)B?\s*", text.upper())
    if found is None or found[2] not in _UNITS or float(found[1]) <= 0:
        raise OptionError(option, expected="a size such as 2GB, 512MB or 1.5GiB", got=f"'{text}'")
    return int(float(found[1]) * _UNITS[found[2]])
