"""Classification losses, one value per example."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from genjax.types import Array


def cross_entropy(logits: Array, labels: Array, label_smoothing: float = 0.0) -> Array:
    """Softmax cross-entropy in nats, float32 ``[B]``.

    Args:
      logits: ``[B, K]``.
      labels: int ``[B]`` in ``0..K-1``.
      label_smoothing: weight of the uniform distribution mixed into the target (Szegedy et al. 2016).
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    nll = -jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]
    uniform = -jnp.mean(log_probs, axis=-1)
    return (1.0 - label_smoothing) * nll + label_smoothing * uniform
