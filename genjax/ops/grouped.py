"""Grouped convolutions written as sums and single-group convolutions, for the CPU.

XLA's CPU backend computes a grouped convolution by a loop that is tens to hundreds of times slower than this, most of
all in its gradients. Both forms are made of operations that JAX differentiates well.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Sides = tuple[tuple[int, int], tuple[int, int]]


def depthwise(
    x: jax.Array, kernel: jax.Array, stride: tuple[int, int], padding: Sides, dilation: tuple[int, int]
) -> jax.Array:
    """One group for each channel of ``x``: the sum over the taps of the shifted images times the tap's weights.

    Args:
      x: [B, H, W, C].
      kernel: [kh, kw, 1, C * m]; channel c gives the results c*m to c*m + m - 1.
      stride, padding, dilation: of the window along height and width.

    Returns:
      [B, H_out, W_out, C * m], of the dtype of ``x``; half precision is summed in float32.
    """
    dtype = x.dtype
    wide = jnp.promote_types(dtype, jnp.float32)
    x, kernel = x.astype(wide), kernel.astype(wide)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    x = jnp.repeat(x, kernel.shape[3] // x.shape[3], axis=3)
    kh, kw = kernel.shape[:2]
    seen = tap_slices(x, (kh, kw), stride, dilation)
    y = jnp.zeros((), wide)
    for part, taps in zip(seen, kernel.reshape(kh * kw, -1), strict=True):
        y = y + part * taps
    return y.astype(dtype)


def tap_slices(
    x: jax.Array, taps: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> list[jax.Array]:
    """What each tap of a window sees of images that are padded already, ``[B, H_out, W_out, C]``, row by row."""
    spans = [(k - 1) * d for k, d in zip(taps, dilation, strict=True)]
    last = [(n - 1 - span) // s * s for n, span, s in zip(x.shape[1:3], spans, stride, strict=True)]
    seen = []
    for top in range(0, taps[0] * dilation[0], dilation[0]):
        for left in range(0, taps[1] * dilation[1], dilation[1]):
            high = (x.shape[0], top + last[0] + 1, left + last[1] + 1, x.shape[3])
            seen.append(lax.slice(x, (0, top, left, 0), high, (1, *stride, 1)))
    return seen


def split(x: jax.Array, kernel: jax.Array, groups: int, convolve: Callable) -> jax.Array:
    """Each group by itself, then joined; ``convolve`` takes x [B, H, W, C / groups] and its part of the kernel."""
    parts = zip(jnp.split(x, groups, axis=3), jnp.split(kernel, groups, axis=3), strict=True)
    return jnp.concatenate([convolve(images, taps) for images, taps in parts], axis=3)
