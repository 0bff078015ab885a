"""Losses of the two players, one value per example, from the discriminator's logits (D = sigmoid(logit)).

All are written with ``softplus(t) = log(1 + e^t)``, so that log D(x) = -softplus(-logit) and
log(1 - D(x)) = -softplus(logit) keep their gradient at any logit.
"""

from __future__ import annotations

import jax

from genjax.types import Array


def discriminator_loss(real_logits: Array, fake_logits: Array) -> Array:
    """-[log D(x) + log(1 - D(G(z)))], ``[B]``: minimising it is the max_D of Goodfellow et al. 2014, eq. 1."""
    return jax.nn.softplus(-real_logits) + jax.nn.softplus(fake_logits)


def minimax(fake_logits: Array) -> Array:
    """log(1 - D(G(z))), ``[B]``: the generator's side of eq. 1 as written; saturates while D wins."""
    return -jax.nn.softplus(fake_logits)


def non_saturating(fake_logits: Array) -> Array:
    """-log D(G(z)), ``[B]``: same fixed point, strong gradient early (Goodfellow et al. 2014, section 3)."""
    return jax.nn.softplus(-fake_logits)


GENERATOR_LOSSES = {"non_saturating": non_saturating, "minimax": minimax}
