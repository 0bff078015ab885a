"""How much of its latent space an autoencoder uses."""

from __future__ import annotations

import dataclasses

import numpy as np

from genjax.evaluators.base import Context, Report, check_at_least
from genjax.metrics.latents import ACTIVE, activity


@dataclasses.dataclass(frozen=True)
class ActiveUnits:
    """Latents whose posterior mean varies over the data (Burda et al. 2016, section 5), and how many there are.

    Attributes:
      limit: examples to look at, 0 for all.
    """

    limit: int = 0

    def __post_init__(self):
        check_at_least(0, limit=self.limit)

    def __call__(self, context: Context) -> Report:
        encode, key = context.extra("encode", "active_units"), context.key("active_units")
        means = []
        for batch in context.batches(self.limit):
            real = batch.pop("mask") > 0
            means.append(np.asarray(encode(context.state, context.place(batch), key))[real])
        variances = activity(np.concatenate(means))
        facts = {"data": context.source.provenance, "examples": sum(map(len, means)), "seed": context.seed}
        return Report(
            {"active_units": float((variances > ACTIVE).sum()), "latents": float(len(variances))},
            protocol={**facts, "active_above": ACTIVE, "activity": [float(f"{value:.4g}") for value in variances]},
        )
