"""Random flips and shifts of the images of a mini-batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def flipped_and_shifted(x: Tensor, shift: int, fill: float, generator: torch.Generator) -> Tensor:
    """Return images, each flipped left to right with probability 1/2 and shifted by up to `shift` pixels both ways.

    Offsets are uniform on {−shift, ..., shift}², and what comes in from outside is `fill`.

    Args:
        x: (batch, channels, height, width).
        shift: pixels, ≥ 0.
        fill: value of the background.
        generator: on the CPU.

    Source: He et al., Deep residual learning for image recognition, CVPR 2016, section 4.2.
    """
    batch, _, height, width = x.shape
    flip = torch.rand(batch, generator=generator) < 0.5
    down, right = torch.randint(2 * shift + 1, (2, batch), generator=generator)
    rows = down[:, None] + torch.arange(height)
    columns = right[:, None] + torch.where(flip[:, None], torch.arange(width).flip(0), torch.arange(width))
    padded = functional.pad(x, (shift,) * 4, value=fill)
    samples, rows, columns = (place.to(x.device) for place in (torch.arange(batch), rows, columns))
    # indices on both sides of a slice: (batch, height, width, channels)
    found = padded[samples[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return found.permute(0, 3, 1, 2).contiguous()
