"""The samples of a run, cut into shards."""

from __future__ import annotations

from torch import Tensor

from robustode.evaluation.rows import Shard


def parts_of(x: Tensor, y: Tensor, index: Tensor, pred: Tensor, margin: Tensor, size: int) -> tuple[Shard, ...]:
    """Return shards of `size` samples, views of the same memory, with the judge's clean answers.

    Args:
        x, y: (samples, *input_shape) and (samples,), on the model's device.
        index: (samples,), in the full split.
        pred, margin: (samples,), the clean answers.
        size: samples in a shard.
    """
    out = []
    for number, start in enumerate(range(0, len(y), size)):
        rows = slice(start, start + size)
        out.append(
            Shard(
                number=number,
                x=x[rows],
                y=y[rows],
                index=index[rows],
                clean_pred=pred[rows],
                clean_margin=margin[rows],
            )
        )
    return tuple(out)
