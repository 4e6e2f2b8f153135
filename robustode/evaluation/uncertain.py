"""Accuracy under noise, predicted and drawn, for the samples of a plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from robustode.evaluation.engine import seed_of
from robustode.evaluation.plan import Plan
from robustode.evaluation.planned import samples_for
from robustode.uncertainty import noisy_accuracy, propagate

CHUNK = 256


def noise_table(plan: Plan, sigmas: Sequence[float], *, draws: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (summary, rows) for the first model of a plan.

    summary: sigma, predicted, monte_carlo, standard_error, n, draws. rows: model, sample, label, sigma, predicted,
    monte_carlo: the probability of a correct answer of each sample.
    """
    model = plan.models[0]
    summary, rows = [], []
    for sigma in sigmas:
        parts = []
        variance = 0.0
        for start in range(0, len(plan.data), CHUNK):
            x, y = samples_for(model, plan.data, slice(start, start + CHUNK))
            predicted = propagate(model.module, x, input_cov=sigma**2).p_correct(y.cpu(), seed=seed)
            generator = torch.Generator().manual_seed(seed_of(seed, "noise", sigma, start))
            drawn = noisy_accuracy(model.module, x, y, sigma=sigma, draws=draws, generator=generator)
            variance += (drawn.standard_error * len(x)) ** 2
            parts.append(
                pd.DataFrame(
                    {
                        "model": model.label,
                        "sample": plan.data.index[start : start + CHUNK].numpy(),
                        "label": y.cpu().numpy(),
                        "sigma": sigma,
                        "predicted": predicted.numpy(),
                        "monte_carlo": drawn.p_correct.numpy(),
                    }
                )
            )
        table = pd.concat(parts, ignore_index=True)
        rows.append(table)
        summary.append(
            {
                "sigma": float(sigma),
                "predicted": float(np.mean(table["predicted"].to_numpy())),
                "monte_carlo": float(np.mean(table["monte_carlo"].to_numpy())),
                "standard_error": variance**0.5 / len(table),
                "n": len(table),
                "draws": draws,
            }
        )
    return pd.DataFrame(summary), pd.concat(rows, ignore_index=True)
