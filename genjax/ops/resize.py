"""Resizing images to any size as three libraries do it, each as a product with a matrix along height and width.

Networks that judge images were trained and are compared on images resized by one library's rule; another rule shifts
or blurs them, and moves a Fréchet distance by more than many methods differ (Parmar et al. 2022, On aliased resizing
and surprising subtleties in GAN evaluation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np


def resize(x: jax.Array, size: Sequence[int], method: str) -> jax.Array:
    """Resizes images; values keep their scale, and only "pillow_bicubic" can leave their range.

    Args:
      x: ``[B, H, W, C]``, integer or floating point.
      size: height and width of the result.
      method: "tensorflow1": ``tf.image.resize_bilinear`` of TensorFlow 1 without aligned corners: output i lies at
        i H / size of the input, so the image moves up and left, and nothing is averaged where it shrinks.
        "torch_bilinear": ``torch.nn.functional.interpolate`` with ``align_corners=False`` and without antialias: output
        i lies at (i + 1/2) H / size - 1/2.
        "pillow_bicubic": ``PIL.Image.resize`` of a floating-point image: the cubic of Keys 1981 with a = -1/2,
        widened by the factor where it shrinks, so that it averages.

    Returns:
      float32 ``[B, size[0], size[1], C]``, computed in full float32 on every platform.

    Raises:
      ValueError: no such method, x is no batch of images, or a size below 1.
    """
    if method not in _MATRICES:
        raise ValueError(f"method={method!r} is unknown; accepted: {', '.join(sorted(_MATRICES))}")
    if x.ndim != 4 or 0 in x.shape[1:3]:
        raise ValueError(f"resize: needs images [B, H, W, C], got {x.shape}")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size={tuple(size)} is wrong; accepted: height and width of at least 1")
    rows, columns = (_MATRICES[method](n, wanted) for n, wanted in zip(x.shape[1:3], size, strict=True))
    x = jnp.einsum("bijc,wj->biwc", x.astype(jnp.float32), columns, precision="highest")
    return jnp.einsum("biwc,hi->bhwc", x, rows, precision="highest")


def _linear(position: np.ndarray, size: int) -> np.ndarray:
    """Rows that interpolate between the pixels around each position; beyond the last pixel is the last pixel."""
    low = np.clip(np.floor(position).astype(int), 0, size - 1)
    share = np.clip(position - low, 0.0, 1.0)[:, None]
    pixels = np.eye(size)
    return (1.0 - share) * pixels[low] + share * pixels[np.minimum(low + 1, size - 1)]


def _tensorflow1(size: int, wanted: int) -> np.ndarray:
    # In float32 as there: at pixel 600 that moves a position by up to 3e-5 pixels, which shows on noisy images.
    position = np.arange(wanted, dtype=np.float32) * np.float32(size / wanted)
    return _linear(position, size).astype(np.float32)


def _torch_bilinear(size: int, wanted: int) -> np.ndarray:
    half = np.float32(0.5)  # in float32 as there, too
    position = (np.arange(wanted, dtype=np.float32) + half) * np.float32(size / wanted) - half
    return _linear(np.maximum(position, 0.0), size).astype(np.float32)


def _pillow_bicubic(size: int, wanted: int) -> np.ndarray:
    scale = size / wanted
    distance = (np.arange(size) + 0.5 - (np.arange(wanted)[:, None] + 0.5) * scale) / max(scale, 1.0)
    weights = _keys(np.abs(distance))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)  # at the edges a part of it is cut off


def _keys(distance: np.ndarray, a: float = -0.5) -> np.ndarray:
    near = ((a + 2.0) * distance - (a + 3.0)) * distance**2 + 1.0
    far = (((distance - 5.0) * distance + 8.0) * distance - 4.0) * a
    return np.where(distance < 1.0, near, np.where(distance < 2.0, far, 0.0))


_MATRICES: dict[str, Callable[[int, int], np.ndarray]] = {
    "tensorflow1": _tensorflow1,
    "torch_bilinear": _torch_bilinear,
    "pillow_bicubic": _pillow_bicubic,
}
