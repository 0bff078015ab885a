"""Points between two draws of Gaussian noise."""

from __future__ import annotations

import jax.numpy as jnp

from genjax.types import Array


def slerp(a: Array, b: Array, num: int) -> Array:
    """``num`` points on the arc from a ``[B, D]`` to b, ends included, ``[B, num, D]`` (White 2016)."""
    cosine = jnp.sum(a * b, -1) / (jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1))
    angle = jnp.arccos(jnp.clip(cosine, -1.0 + 1e-6, 1.0 - 1e-6))[:, None, None]
    t = jnp.linspace(0.0, 1.0, num)[None, :, None]
    return (jnp.sin((1 - t) * angle) * a[:, None] + jnp.sin(t * angle) * b[:, None]) / jnp.sin(angle)
