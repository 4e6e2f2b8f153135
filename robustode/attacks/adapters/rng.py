"""A fork of every global random state, for libraries that draw from them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def forked_rng(generator: torch.Generator | None) -> Iterator[int]:
    """Seed torch (CPU and every CUDA device in use, MPS), NumPy and Python from `generator`; restore all of them after.

    One integer in [0, 2³¹) is drawn from `generator` and yielded; it is 0 if there is no generator. The same generator
    state gives the same draws inside, whatever the global states were, and the global states are unchanged outside.
    """
    seed = 0
    if generator is not None:
        seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device).item())
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed_all(seed)
        if mps is not None:
            torch.mps.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield seed
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
            if mps is not None:
                torch.mps.set_rng_state(mps)
