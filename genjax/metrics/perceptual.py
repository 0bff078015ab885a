"""How far two images are from each other in the feature maps of a network (Zhang et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from genjax.types import Array

_EPSILON = 1e-10  # added to lengths: a position without features is at distance 0 from another such


def perceptual_distance(first: Sequence[Array], second: Sequence[Array]) -> Array:
    """Squared differences of unit feature vectors, averaged over positions and summed over maps.

    The distance of Zhang et al. 2018 with all weights 1: at each position of each map the vector of its channels is
    divided by its length. So it is 2 - 2 cos of the angle between both there, and at most 4 for each map. Their LPIPS
    has learnt weights and other networks; numbers of this function are on the scale of the network they come from.

    Args:
      first, second: maps of the two images of each pair, each ``[N, H, W, C]`` of any float dtype; H, W and C may
        differ from map to map.

    Returns:
      float32 ``[N]``, at least 0; smaller is better.

    Raises:
      ValueError: no maps, or maps whose shapes differ or are not ``[N, H, W, C]``.
    """
    shapes = [[tuple(x.shape) for x in maps] for maps in (first, second)]
    if not first or shapes[0] != shapes[1] or any(len(shape) != 4 or 0 in shape for shape in shapes[0]):
        raise ValueError(f"maps have shapes {shapes[0]} and {shapes[1]}; accepted: equal ones, each [N, H, W, C]")
    total = jnp.zeros(first[0].shape[0], jnp.float32)
    for a, b in zip(first, second, strict=True):
        total += jnp.sum(jnp.square(_unit(a) - _unit(b)), axis=-1).mean(axis=(1, 2))
    return total


def _unit(x: Array) -> Array:
    x = jnp.asarray(x, jnp.float32)
    return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + _EPSILON)
