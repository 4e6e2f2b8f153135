"""Where a model runs."""

from __future__ import annotations

import torch

from robustode.errors import OptionError, unknown

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device that a name stands for; "auto" is the first of cuda, mps, cpu that is there.

    Args:
        name: "auto", "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        OptionError: the name is unknown, or this machine has no such device.
    """
    name = str(name)
    kind, _, index = name.partition(":")
    if kind not in DEVICES or (index and (kind != "cuda" or not index.isdecimal())):
        raise unknown("device", name, DEVICES)
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if kind == "auto":
        return torch.device(next(device for device, there in count.items() if there))
    if int(index or 0) >= count[kind]:
        there = ", ".join(device for device, number in sorted(count.items()) if number)
        raise OptionError("device", expected=f"one that this machine has ({there})", got=f"'{name}'")
    return torch.device(name)
