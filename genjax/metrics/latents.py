"""What the latents of an autoencoder are used for."""

from __future__ import annotations

import numpy as np

from genjax.metrics.check import check_rows

ACTIVE = 0.01  # variance of the posterior mean above which a latent counts as used


def activity(means: np.ndarray) -> np.ndarray:
    """Variance over the data of each latent's posterior mean, float64 ``[D]`` (Burda et al. 2016, section 5).

    A latent that says nothing about x has the same posterior for all, and activity 0; the variance of a latent that is
    known for sure is that of the prior, 1.

    Args:
      means: E[z|x] of N examples, float ``[N, D]``, N at least 2.

    Raises:
      ValueError: of another shape, or not finite.
    """
    means = check_rows("means", means, least=2).astype(np.float64)
    return means.var(axis=0, ddof=1)


def active_units(means: np.ndarray) -> int:
    """Latents whose ``activity`` is above 0.01."""
    return int((activity(means) > ACTIVE).sum())
