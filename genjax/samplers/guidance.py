"""Guidance: a denoiser moved away from a weaker one."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from genjax.processes.paths import Path, expand
from genjax.samplers.base import Denoiser
from genjax.types import Array


def check_interval(interval: tuple[float, float]) -> None:
    """Raises ValueError unless ``interval`` is a lower and an upper noise level."""
    if len(interval) != 2 or not 0 <= interval[0] < interval[1]:
        raise ValueError(f"interval={interval} is out of range; accepted: two noise levels with 0 <= lower < upper")


def guide(
    strong: Array, weak: Array, scale: Array | float, level: Array, interval: tuple[float, float] = (0.0, math.inf)
) -> Array:
    """D_w + scale (D_s - D_w) where the noise level is in the interval, D_s elsewhere; ``[B, ...]``.

    Args:
      strong, weak: D_s and D_w, ``[B, ...]``.
      scale: 1 leaves D_s, 0 is D_w; a number or an array of shape ``[]`` or ``[B]``, also traced.
      level: noise level r of each image ``[B]``.
      interval: (lower, upper), guided where lower < r <= upper.
    """
    inside = expand((level > interval[0]) & (level <= interval[1]), strong)
    scale = expand(jnp.asarray(scale, strong.dtype), strong)
    return jnp.where(inside, weak + scale * (strong - weak), strong)


def guided(
    strong: Denoiser,
    weak: Denoiser,
    scale: Array | float,
    path: Path,
    interval: tuple[float, float] = (0.0, math.inf),
) -> Denoiser:
    """The denoiser D_w + scale (D_s - D_w) between two noise levels, D_s outside.

    With D_s given the label and D_w not, this is classifier-free guidance (Ho & Salimans 2022, eq. 6, whose 1 + w is
    ``scale``), with an interval that of Kynkäänniemi et al. 2024; with a smaller or less trained model as D_w it is
    autoguidance (Karras et al. 2024b). Two evaluations for one; ``weak`` is left out where no image of a batch is in
    the interval (though not under ``vmap``, which evaluates both).

    Args:
      strong, weak: denoisers.
      scale: as in ``guide``.
      path: of both.
      interval: (lower, upper) noise level.

    Raises:
      ValueError: ``interval`` is none.
    """
    check_interval(interval)

    def denoise(x: Array, t: Array) -> Array:
        level, value = path.noise_level(t), strong(x, t)
        if tuple(interval) == (0.0, math.inf):
            return guide(value, weak(x, t), scale, level, interval)
        inside = jnp.any((level > interval[0]) & (level <= interval[1]))
        other = jax.lax.cond(inside, lambda: weak(x, t).astype(value.dtype), lambda: value)
        return guide(value, other, scale, level, interval)

    return denoise
