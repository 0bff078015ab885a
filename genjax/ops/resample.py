"""Resampling images by a whole factor: means, repeats, bilinear interpolation and FIR filters, without gathers.

All of it is sums over shifted and strided images. Their gradients are sums too, so nothing here is slow on a CPU.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from genjax.ops.conv import conv_transpose
from genjax.ops.grouped import depthwise


def avg_pool(x: jax.Array, factor: int = 2) -> jax.Array:
    """Mean over blocks of ``factor`` x ``factor`` pixels, ``[B, H, W, C]`` to ``[B, H/factor, W/factor, C]``.

    Raises:
      ValueError: the factor is no positive int or does not divide height and width.
    """
    factor = _check("avg_pool", x, factor, divides=True)
    B, H, W, C = x.shape
    blocks = x.reshape(B, H // factor, factor, W // factor, factor, C)
    return jnp.mean(blocks, axis=(2, 4), dtype=_wide(x)).astype(x.dtype)


def nearest_upsample(x: jax.Array, factor: int = 2) -> jax.Array:
    """Repeats every pixel ``factor`` times along height and width, ``[B, H, W, C]`` to ``[B, factor H, factor W, C]``.

    Raises:
      ValueError: the factor is no positive int.
    """
    factor = _check("nearest_upsample", x, factor)
    B, H, W, C = x.shape
    copies = jnp.broadcast_to(x[:, :, None, :, None], (B, H, factor, W, factor, C))
    return copies.reshape(B, H * factor, W * factor, C)


def nearest_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """``conv(nearest_upsample(x), kernel)`` for kernels of 3x3, in less than half as many multiplications.

    Of the nine taps over repeated pixels, those that fall on one pixel are added up before. What is left is a
    transposed convolution with 4x4 taps, of which four meet each result.

    Args:
      x: [B, H, W, C_in], floating point.
      kernel: [3, 3, C_in, C_out], of the dtype of ``x`` or a wider one, in which taps are then added up.

    Returns:
      [B, 2 H, 2 W, C_out], of the dtype of ``x``.

    Raises:
      ValueError: the kernel does not fit.
    """
    _check("nearest_conv", x, 2)
    if jnp.ndim(kernel) != 4 or kernel.shape[:3] != (3, 3, x.shape[3]):
        raise ValueError(f"nearest_conv: x {x.shape} needs a kernel [3, 3, {x.shape[3]}, C_out], got {kernel.shape}")
    padded = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
    rows = padded[:-1] + padded[1:]
    taps = (rows[:, :-1] + rows[:, 1:]).astype(x.dtype)
    return conv_transpose(x, taps, stride=2, padding=[(2, 2), (2, 2)])


def fir_downsample(x: jax.Array, taps: Sequence[float] = (1, 3, 3, 1), factor: int = 2) -> jax.Array:
    """Filters along height and width and keeps every ``factor``-th pixel, with zeros around the images.

    Along one axis of n pixels: y[i] = sum_k taps[k] x[factor i + k - (len(taps) - factor) / 2] / sum(taps). The filter
    of StyleGAN2 (Karras et al. 2020) and NCSN++ (Song et al. 2021) is (1, 3, 3, 1); (1, 1) is the mean of two.

    Args:
      x: [B, H, W, C].
      taps: of the filter; as many as ``factor``, or an even number more.
      factor: divides H and W.

    Returns:
      [B, H / factor, W / factor, C] of the dtype of ``x``; half precision is summed in float32.

    Raises:
      ValueError: the factor or the number of taps does not fit.
    """
    factor = _check("fir_downsample", x, factor, divides=True)
    weights, side = _filter("fir_downsample", taps, factor)
    wide = x.astype(_wide(x))
    for axis in (1, 2):
        shape, stride, padding = _along(axis, len(weights), factor, side)
        kernel = jnp.broadcast_to(jnp.asarray(weights, wide.dtype).reshape(*shape, 1, 1), (*shape, 1, x.shape[3]))
        wide = depthwise(wide, kernel, stride, padding, (1, 1))
    return wide.astype(x.dtype)


def fir_upsample(x: jax.Array, taps: Sequence[float] = (1, 3, 3, 1), factor: int = 2) -> jax.Array:
    """Puts zeros between the pixels and filters: the transpose of ``fir_downsample`` times ``factor`` squared.

    Computed phase by phase, so that no zero is multiplied: of ``len(taps)`` taps each result sees one in ``factor``.

    Args:
      x: [B, H, W, C].
      taps: of the filter; as many as ``factor``, or an even number more.
      factor: of the size.

    Returns:
      [B, factor H, factor W, C] of the dtype of ``x``; half precision is summed in float32.

    Raises:
      ValueError: the factor or the number of taps does not fit.
    """
    factor = _check("fir_upsample", x, factor)
    weights, side = _filter("fir_upsample", taps, factor)
    wide = x.astype(_wide(x))
    for axis in (1, 2):
        wide = _interleave(wide, axis, weights * factor, factor, side)
    return wide.astype(x.dtype)


def bilinear_downsample(x: jax.Array, factor: int = 2) -> jax.Array:
    """``jax.image.resize(x, ..., "bilinear")`` to 1/factor of the size, with its triangle filter against aliasing.

    Raises:
      ValueError: the factor is no positive int or does not divide height and width.
    """
    factor = _check("bilinear_downsample", x, factor, divides=True)
    return _renormalised(fir_downsample, x, factor)


def bilinear_upsample(x: jax.Array, factor: int = 2) -> jax.Array:
    """``jax.image.resize(x, ..., "bilinear")`` to ``factor`` times the size.

    Raises:
      ValueError: the factor is no positive int.
    """
    return _renormalised(fir_upsample, x, _check("bilinear_upsample", x, factor))


def space_to_depth(x: jax.Array, factor: int) -> jax.Array:
    """Blocks of ``factor`` x ``factor`` pixels as channels, ``[B, H/factor, W/factor, factor * factor * C]``.

    Raises:
      ValueError: the factor is no positive int or does not divide height and width.
    """
    factor = _check("space_to_depth", x, factor, divides=True)
    B, H, W, C = x.shape
    blocks = x.reshape(B, H // factor, factor, W // factor, factor, C).swapaxes(2, 3)
    return blocks.reshape(B, H // factor, W // factor, factor * factor * C)


def depth_to_space(x: jax.Array, factor: int) -> jax.Array:
    """The inverse of ``space_to_depth``: channels as blocks of pixels, ``[B, factor H, factor W, C / factor^2]``.

    Raises:
      ValueError: the factor is no positive int or its square does not divide the channels.
    """
    factor = _check("depth_to_space", x, factor)
    B, H, W, C = x.shape
    if C % factor**2:
        raise ValueError(f"depth_to_space: factor={factor} needs channels divisible by {factor**2}, got {C}")
    blocks = x.reshape(B, H, W, factor, factor, C // factor**2).swapaxes(2, 3)
    return blocks.reshape(B, H * factor, W * factor, C // factor**2)


def _wide(x: jax.Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)


def _along(axis: int, taps: int, factor: int, side: int) -> tuple:
    """Kernel size, stride and padding of a window along one of the two axes."""
    if axis == 1:
        return (taps, 1), (factor, 1), ((side, side), (0, 0))
    return (1, taps), (1, factor), ((0, 0), (side, side))


def _interleave(x: jax.Array, axis: int, weights: np.ndarray, factor: int, side: int) -> jax.Array:
    """y[j] = sum_i x[i] weights[j + side - factor i] along ``axis``, each phase j mod factor by itself."""
    size = x.shape[axis]
    reach = -(-len(weights) // factor)
    padded = jnp.pad(x, [(reach, reach) if a == axis else (0, 0) for a in range(x.ndim)])
    phases = []
    for phase in range(factor):
        total = None
        for offset in range(-reach, reach + 1):  # i = j // factor + offset
            tap = phase + side - factor * offset
            if 0 <= tap < len(weights):
                part = jax.lax.slice_in_dim(padded, reach + offset, reach + offset + size, axis=axis)
                part = part * jnp.asarray(weights[tap], x.dtype)
                total = part if total is None else total + part
        phases.append(total)
    stacked = jnp.stack(phases, axis=axis + 1)
    return stacked.reshape(*x.shape[:axis], size * factor, *x.shape[axis + 1 :])


def _renormalised(resample, x: jax.Array, factor: int) -> jax.Array:
    """A triangle of half-width ``factor``; at the edges the weights that fall inside the image are made to sum to 1."""
    half = np.arange(0.5 if factor % 2 == 0 else 0, factor)
    right = 1 - half / factor
    taps = (*right[::-1], *right[factor % 2 :])
    weights, side = _filter("bilinear", taps, factor)
    totals = []
    for size in x.shape[1:3]:
        ones = np.pad(np.ones(size), 2 * side + factor)  # the sums of the weights inside, by the same filter in NumPy
        if resample is fir_downsample:
            seen = np.convolve(ones, weights)[len(weights) - 1 + side + factor :: factor][: size // factor]
        else:
            spread = np.zeros(len(ones) * factor)
            spread[::factor] = ones
            seen = np.convolve(spread, weights * factor)[side + (2 * side + factor) * factor :][: size * factor]
        totals.append(seen)
    scale = jnp.asarray(1 / np.outer(*totals), _wide(x))
    return (resample(x.astype(_wide(x)), taps, factor) * scale[..., None]).astype(x.dtype)


def _filter(name: str, taps: Sequence[float], factor: int) -> tuple[np.ndarray, int]:
    """The taps with sum 1, and how far they reach beyond a block of pixels on either side."""
    weights = np.asarray(taps, np.float64)
    if weights.ndim != 1 or len(weights) < factor or (len(weights) - factor) % 2 or weights.sum() == 0:
        raise ValueError(
            f"{name}: taps={tuple(taps)} do not fit factor={factor}; accepted: {factor} of them or an even number "
            "more, with a sum other than zero"
        )
    return weights / weights.sum(), (len(weights) - factor) // 2


def _check(name: str, x: jax.Array, factor: int, divides: bool = False) -> int:
    if jnp.ndim(x) != 4 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name}: needs floating-point images [B, H, W, C], got {x.dtype} {jnp.shape(x)}")
    try:
        checked = operator.index(factor)
    except TypeError:
        checked = 0
    if checked < 1:
        raise ValueError(f"{name}: factor={factor!r} is out of range; accepted: a positive int")
    if divides and (x.shape[1] % checked or x.shape[2] % checked):
        raise ValueError(f"{name}: factor={factor} does not divide images of {x.shape[1]}x{x.shape[2]}")
    return checked
