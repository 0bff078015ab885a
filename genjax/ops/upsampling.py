"""Transposed convolutions without the zeros between the pixels, for the CPU.

An output pixel o = s * m + a of the phase a, 0 <= a < s, meets every s-th tap only: with the padding ``low`` on the
near side those are the taps q = q0 + s * l, q0 = (low - a) mod s, on the input pixels m + (a + q0 - low) / s + l. So
each phase is a convolution of the images with a part of the kernel (Shi et al. 2016, Real-time single image and video
super-resolution, section 3: sub-pixel convolution), and together they have as many products as are needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from genjax.ops.grouped import Sides


class _Phase(NamedTuple):
    """One phase along one axis: its taps are first, first + stride, ..., ``taps`` of them; see the module."""

    first: int
    taps: int
    shift: int  # input pixel that the first tap meets at output m = 0, negative in the padding


def _phases(taps: int, stride: int, low: int) -> list[_Phase]:
    found = []
    for a in range(stride):
        first = (low - a) % stride
        found.append(_Phase(first, max(0, -(-(taps - first) // stride)), (a + first - low) // stride))
    return found


def _interleave(
    x: jax.Array,
    kernel: jax.Array,
    stride: tuple[int, int],
    padding: Sides,
    phase: Callable[[tuple[_Phase, _Phase], Sides], jax.Array],
) -> jax.Array:
    """All phases side by side; ``phase`` gives one of them from its taps and the padding that its windows need."""
    sizes = [
        (n - 1) * s + 1 + low + high - k + 1
        for n, k, s, (low, high) in zip(x.shape[1:3], kernel.shape, stride, padding, strict=False)
    ]
    counts = [-(-size // s) for size, s in zip(sizes, stride, strict=True)]

    def around(one: _Phase, n: int, count: int) -> tuple[int, int]:
        return -one.shift, count - 1 + one.shift + one.taps - n

    rows = []
    for down in _phases(kernel.shape[0], stride[0], padding[0][0]):
        row = []
        for right in _phases(kernel.shape[1], stride[1], padding[1][0]):
            if min(down.taps, right.taps) == 0:
                row.append(jnp.zeros((x.shape[0], *counts, kernel.shape[3]), x.dtype))
                continue
            sides = around(down, x.shape[1], counts[0]), around(right, x.shape[2], counts[1])
            row.append(phase((down, right), sides))
        rows.append(jnp.stack(row, axis=3))
    y = jnp.stack(rows, axis=2)  # [B, H / s, s, W / s, s, C]
    y = y.reshape(x.shape[0], counts[0] * stride[0], counts[1] * stride[1], kernel.shape[3])
    return y[:, : sizes[0], : sizes[1]]


def sub_pixel(x: jax.Array, kernel: jax.Array, stride: tuple[int, int], padding: Sides) -> jax.Array:
    """The convolution of images spread out by ``stride``, a small convolution for each phase.

    Args:
      x: [B, H, W, C_in].
      kernel: [kh, kw, C_in, C_out].
      stride: factor of up-sampling along height and width.
      padding: of the spread-out images.

    Returns:
      [B, H_out, W_out, C_out].
    """

    def phase(axes: tuple[_Phase, _Phase], sides: Sides) -> jax.Array:
        down, right = axes
        part = kernel[down.first :: stride[0], right.first :: stride[1]]
        return lax.conv_general_dilated(x, part, (1, 1), sides, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    return _interleave(x, kernel, stride, padding, phase)


def overlap_add(x: jax.Array, kernel: jax.Array, stride: tuple[int, int], padding: Sides) -> jax.Array:
    """As ``sub_pixel``, for few output channels: one matrix product with all taps, then sums of shifted slices.

    Half precision is summed in float32.
    """
    kh, kw, c, f = kernel.shape
    wide = jnp.promote_types(x.dtype, jnp.float32)
    taps_first = kernel.transpose(0, 1, 3, 2).reshape(kh * kw * f, c)
    # [taps, pixels]: whole rows of pixels stay together, where [pixels, taps] would leave a few values to each.
    products = jnp.matmul(taps_first, x.reshape(-1, c).T, preferred_element_type=wide)
    products = products.reshape(kh, kw, f, *x.shape[:3])

    def phase(axes: tuple[_Phase, _Phase], sides: Sides) -> jax.Array:
        (top, bottom), (left, right_side) = sides
        down, right = axes
        height = x.shape[1] + top + bottom - down.taps + 1
        width = x.shape[2] + left + right_side - right.taps + 1
        total = jnp.zeros((f, x.shape[0], height, width), wide)
        for i in range(down.taps):
            for j in range(right.taps):
                plane = products[down.first + i * stride[0], right.first + j * stride[1]]
                # Where the window begins at this tap: pad or crop so that all planes lie on one grid.
                rows, columns = (top - i, bottom - down.taps + 1 + i), (left - j, right_side - right.taps + 1 + j)
                config = [(0, 0, 0), (0, 0, 0), (*rows, 0), (*columns, 0)]
                total = total + lax.pad(plane, jnp.zeros((), wide), config)
        return total.transpose(1, 2, 3, 0).astype(x.dtype)

    return _interleave(x, kernel, stride, padding, phase)
