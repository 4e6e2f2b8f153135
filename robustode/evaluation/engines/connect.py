"""The way to a Ray cluster: one that runs, found out within seconds, or one of this machine."""

from __future__ import annotations

import importlib
import logging
import os
import socket
from typing import Any

from robustode.errors import MissingDependency, OptionError, RunError

SECONDS = 5.0  # in which a cluster must answer
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_SETTINGS = 4  # type of the frame that every server of gRPC answers it with
_FIX = "Start it with: ray start --head --port=6380, and give HOST:6380; or leave out the address."


def import_ray() -> Any:
    """Import Ray, an optional library.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as missing:
        if missing.name != "ray":
            raise
        raise MissingDependency("ray", "ray") from None


def connect(address: str | None, workers: int | None) -> None:
    """Connect this process to a cluster.

    Args:
        address: HOST:PORT, or "auto" for the cluster of this machine; None starts one that ends with the process.
        workers: cores of a cluster that is started; None for those of the machine.

    Raises:
        OptionError: an address that is neither.
        RunError: nothing there answers, or it refuses.
    """
    ray = import_ray()
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        ray.init(num_cpus=workers, include_dashboard=False, **quiet)
        return
    if address != "auto":
        check_answers(address)
    try:
        ray.init(address=address, **quiet)
    except (Exception, SystemExit) as error:  # the library leaves the process where the other side refuses it
        raise _refused(address, error) from error


def _refused(address: str, error: BaseException) -> RunError:
    """Return what the library says, which of a token it says in the middle of a traceback."""
    text, cause = "", error
    while cause is not None:
        text, cause = f"{text}\n{cause}", cause.__cause__ or cause.__context__
    what, expected = f"Ray cluster '{address}'", "a cluster to join"
    if "AuthenticationError" in text or "Authentication token" in text:
        fix = "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH, the file with the token of the cluster."
        return RunError(what, expected=expected, got="one that wants another token", fix=fix)
    first = str(error).strip().splitlines()[:1]
    return RunError(what, expected=expected, got=": ".join([type(error).__name__, *first]), fix=_FIX)


def check_answers(address: str) -> None:
    """Raise unless a server of gRPC answers at HOST:PORT within seconds; the library itself waits for minutes.

    Raises:
        OptionError: not of this form.
        RunError: nothing answers, or something else does.
    """
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 2**16) or "/" in address:
        raise OptionError("address", expected="HOST:PORT of a Ray cluster, or auto", got=f"'{address}'")
    what, expected = f"Ray cluster '{address}'", f"an answer within {SECONDS:g} seconds"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS) as line:
            if os.environ.get("RAY_USE_TLS", "0") == "1":
                return
            line.sendall(_PREFACE)
            answer = line.recv(9)
    except OSError as reason:
        raise RunError(what, expected=expected, got=reason.strerror or str(reason), fix=_FIX) from None
    if len(answer) < 4 or answer[3] != _SETTINGS:
        raise RunError(what, expected=expected, got="something else at this port", fix=_FIX)
