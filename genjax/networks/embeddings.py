"""What a network is told besides the image: numbers and classes as vectors, positions as tables."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from genjax.types import Array, check_positive

KINDS = ("positional", "fourier")


def positional(x: Array, channels: int, max_period: float = 10000.0, endpoint: bool = False) -> Array:
    """cos(f x) and sin(f x) for frequencies f falling geometrically from 1 to 1/max_period (Vaswani et al. 2017).

    Args:
      x: numbers of any shape.
      channels: of the result, even and at least 4.
      max_period: inverse of the lowest frequency.
      endpoint: whether the lowest frequency is reached (Ho et al. 2020) or would be the next one.

    Returns:
      [..., channels] float32, the cosines first.

    Raises:
      ValueError: ``channels`` is odd or less than 4.
    """
    half = _half("positional", channels)
    exponents = np.arange(half) / (half - 1 if endpoint else half)
    return _waves(x, jnp.asarray(np.exp(-math.log(max_period) * exponents), jnp.float32))


def fourier(x: Array, channels: int, scale: float = 16.0) -> Array:
    """cos(2 pi f x) and sin(2 pi f x) for fixed f ~ N(0, scale^2) (Tancik et al. 2020; Song et al. 2021).

    The frequencies are the same in every network of as many channels, so they need no place among the parameters.

    Args:
      x: numbers of any shape.
      channels: of the result, even and at least 4.
      scale: standard deviation of the frequencies.

    Returns:
      [..., channels] float32, the cosines first.

    Raises:
      ValueError: ``channels`` is odd or less than 4.
    """
    key = jax.random.key(0, impl="threefry2x32")  # named, so that no flag changes what a checkpoint means
    frequencies = jax.random.normal(key, (_half("fourier", channels),), jnp.float32)
    return _waves(x, 2 * math.pi * scale * frequencies)


def noise_features(noise_BK: Array, channels: int, kind: str = "positional", endpoint: bool = False) -> Array:
    """``channels`` features of each of the K numbers, side by side: float32 ``[B, K * channels]``.

    Raises:
      ValueError: ``kind`` is neither "positional" nor "fourier", or ``noise_BK`` has no two axes.
    """
    check_choice(kind=(kind, KINDS))
    if noise_BK.ndim != 2:
        raise ValueError(f"noise levels must have the shape [B, K], K numbers for each image; got {noise_BK.shape}")
    features = fourier(noise_BK, channels) if kind == "fourier" else positional(noise_BK, channels, endpoint=endpoint)
    return features.reshape(noise_BK.shape[0], -1)


class LabelEmbedding(nn.Module):
    """A learned vector for each class, and one more, number ``num_classes``, for "no label".

    Attributes:
      num_classes: number of classes.
      features: length of the vectors.
      stddev: of their initial values.
    """

    num_classes: int
    features: int
    stddev: float = 0.02
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, label_B: Array | None) -> Array:
        """Vectors ``[B, features]`` of labels int32 ``[B]`` in [0, num_classes]; ValueError without labels."""
        if label_B is None:
            raise ValueError(f"this network has {self.num_classes} classes and was given no labels")
        init = nn.initializers.normal(self.stddev)
        return nn.Embed(self.num_classes + 1, self.features, embedding_init=init, dtype=self.dtype)(label_B)


def sincos_grid(height: int, width: int, channels: int) -> np.ndarray:
    """Fixed positions of a grid, float32 ``[height * width, channels]`` (Dosovitskiy et al. 2021; Peebles & Xie 2023).

    The first half of the channels tells the column and the second the row, each sines first and then cosines.

    Raises:
      ValueError: ``channels`` is no multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"positions of a grid need channels divisible by 4, got {channels}")
    frequencies = 10000.0 ** -(np.arange(channels // 4) / (channels // 4))
    rows, columns = (axis.reshape(-1, 1) * frequencies for axis in np.indices((height, width)))
    waves = [wave(angle) for angle in (columns, rows) for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=1).astype(np.float32)


def rotary_grid(height: int, width: int, channels: int, before: int = 0) -> np.ndarray:
    """Cosines and sines of the angles by which pairs of channels turn at each position (Su et al. 2021, on a grid).

    The first half of the pairs turns with the row, the second with the column, so that the product of a query and a key
    depends on their distance along either axis.

    Args:
      height, width: of the grid.
      channels: of a head.
      before: number of tokens before those of the grid, which are not turned.

    Returns:
      Float32 ``[2, before + height * width, channels / 2]``.

    Raises:
      ValueError: ``channels`` is no multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"rotary positions need heads of a number of channels divisible by 4, got {channels}")
    frequencies = 10000.0 ** -(np.arange(channels // 4) / (channels // 4))
    angles = np.concatenate([axis.reshape(-1, 1) * frequencies for axis in np.indices((height, width))], axis=1)
    angles = np.pad(angles, ((before, 0), (0, 0)))
    return np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def rotate(x_BNHD: Array, turns_2NP: Array) -> Array:
    """Turns the pairs of channels (p, p + D/2) of ``[B, N, heads, D]`` as ``rotary_grid`` says; dtype of ``x``."""
    cos_NHP, sin_NHP = turns_2NP[0][:, None], turns_2NP[1][:, None]
    first, second = jnp.split(x_BNHD, 2, axis=-1)
    turned = [first * cos_NHP - second * sin_NHP, first * sin_NHP + second * cos_NHP]
    return jnp.concatenate(turned, axis=-1).astype(x_BNHD.dtype)


def check_choice(**choices: tuple[str, tuple[str, ...]]) -> None:
    """Raises ValueError unless every value is one of those it may take."""
    for name, (value, accepted) in choices.items():
        if value not in accepted:
            raise ValueError(f"{name}={value!r} is unknown; accepted: {', '.join(accepted)}")


def _half(name: str, channels: int) -> int:
    check_positive(channels=channels)
    if channels % 2 or channels < 4:
        raise ValueError(f"{name}: channels={channels} must be even and at least 4")
    return channels // 2


def _waves(x: Array, frequencies: Array) -> Array:
    angles = jnp.asarray(x, jnp.float32)[..., None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
