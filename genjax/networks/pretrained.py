"""What the pretrained feature networks share: layers without batch norm, and weights with it folded in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from genjax.networks.layers import Conv
from genjax.types import Array, UserError

Weights = Mapping[str, np.ndarray]
"""Arrays under PyTorch's names and in its layout: kernels ``[out, in, height, width]``, matrices ``[out, in]``."""


class ConvReLU(Conv):
    """A convolution with ``max(0, .)`` after it."""

    @nn.compact
    def __call__(self, x_BHWC: Array) -> Array:
        return nn.relu(super().__call__(x_BHWC))


class ConvReLU6(Conv):
    """A convolution with ``min(max(0, .), 6)`` after it."""

    @nn.compact
    def __call__(self, x_BHWC: Array) -> Array:
        return nn.relu6(super().__call__(x_BHWC))


def rgb(images: Array) -> Array:
    """float32 ``[B, H, W, 3]`` of the same range; a single channel is repeated.

    Raises:
      ValueError: not ``[B, H, W, 1 or 3]``.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"needs images [B, H, W, 1 or 3], got {images.shape}")
    return jnp.broadcast_to(images, (*images.shape[:3], 3)).astype(jnp.float32)


def check_side(x_BHWC: Array, least: int) -> None:
    """Raises ValueError unless x is ``[B, H, W, 3]`` with H and W of at least ``least``."""
    if x_BHWC.ndim != 4 or x_BHWC.shape[-1] != 3 or min(x_BHWC.shape[1:3]) < least:
        raise ValueError(f"needs images [B, H, W, 3] of at least {least}x{least}, got {x_BHWC.shape}")


def take(weights: Weights, name: str, shape: Sequence[int], where: str) -> np.ndarray:
    """``weights[name]`` in float64.

    Raises:
      UserError: it is missing, has another shape, or holds no finite real numbers; the message names it and ``where``.
    """
    if name not in weights:
        raise UserError(f"{where}: {name} is missing; must be an array of shape {list(shape)}")
    array = np.asarray(weights[name])
    if array.shape != tuple(shape):
        raise UserError(f"{where}: {name} has shape {list(array.shape)}; must be {list(shape)}")
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        raise UserError(f"{where}: {name} ({array.dtype}) must hold finite real numbers")
    return array.astype(np.float64)


def folded(
    weights: Weights, conv: str, norm: str, params: Mapping[str, Array], epsilon: float, where: str
) -> dict[str, np.ndarray]:
    """One convolution and the batch norm after it as a convolution with a bias.

    With scale g, shift b, running mean m and variance v: ``kernel g / sqrt(v + epsilon)`` and
    ``b - m g / sqrt(v + epsilon)``, computed in float64.

    Args:
      weights: holds ``<conv>.weight`` and ``<norm>.weight``, ``.bias``, ``.running_mean`` and ``.running_var``.
      params: the layer's "kernel" ``[kh, kw, in, out]``; only its shape counts.
      epsilon: of the batch norm.
      where: what the weights came from, for the message.

    Returns:
      {"kernel": float32 ``[kh, kw, in, out]``, "bias": float32 ``[out]``}

    Raises:
      UserError: where ``take`` does, or a variance is negative.
    """
    kh, kw, inputs, outputs = params["kernel"].shape
    kernel = take(weights, f"{conv}.weight", (outputs, inputs, kh, kw), where)
    parts = ("weight", "bias", "running_mean", "running_var")
    scale, shift, mean, variance = (take(weights, f"{norm}.{part}", (outputs,), where) for part in parts)
    if variance.min() < 0:
        raise UserError(f"{where}: {norm}.running_var is negative; a variance must be at least 0")
    gain = scale / np.sqrt(variance + epsilon)
    kernel = kernel.transpose(2, 3, 1, 0) * gain
    return {"kernel": kernel.astype(np.float32), "bias": (shift - mean * gain).astype(np.float32)}


def dense(weights: Weights, name: str, shape: tuple[int, int], where: str) -> dict[str, np.ndarray]:
    """A dense layer's "kernel" ``[in, out] = shape`` and "bias" in float32. Raises UserError where ``take`` does."""
    kernel = take(weights, f"{name}.weight", shape[::-1], where).T
    bias = take(weights, f"{name}.bias", shape[1:], where)
    return {"kernel": np.ascontiguousarray(kernel, np.float32), "bias": bias.astype(np.float32)}


def parameter_shapes(network: nn.Module, side: int) -> dict[str, Any]:
    """A network's parameters as ``jax.ShapeDtypeStruct`` without computing any, for reading only.

    ``side`` is that of a colour image it takes.
    """
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(network.init, jax.random.key(0), images)["params"]
