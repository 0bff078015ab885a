"""DCGAN generator and discriminator (Radford et al. 2016), with depth and base grid taken from the image size.

With labels they are the conditional pair of Mirza & Osindero 2014: the label joins the latent vector as an embedding
and the image as one more channel.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from genjax.networks.ladder import ladder
from genjax.networks.layers import Conv, ConvTranspose
from genjax.types import Array, check_fraction, check_positive

_normal = jax.nn.initializers.normal(0.02)  # DCGAN, section 4


class Generator(nn.Module):
    """Dense to a small grid, then 4x4 stride-2 transposed convolutions to the image, tanh.

    Attributes:
      image_shape: (height, width, channels) to generate.
      num_classes: 0 for an unconditional generator.
      width: channels before the last layer; each coarser grid has twice as many, up to ``max_width``.
      negative_slope: of the leaky ReLU.
    """

    image_shape: tuple[int, int, int]
    num_classes: int = 0
    width: int = 64
    max_width: int = 512
    negative_slope: float = 0.2
    dtype: jnp.dtype | None = None

    def __post_init__(self):
        super().__post_init__()
        check_positive(width=self.width, max_width=self.max_width)
        ladder(self.image_shape)

    @nn.compact
    def __call__(self, z_BD: Array, label_B: Array | None, train: bool) -> Array:
        """Images float32 ``[B, H, W, C]`` in [-1, 1] from latents ``[B, D]``."""
        depth, (h, w) = ladder(self.image_shape)
        widths = [min(self.width * 2 ** (depth - 1 - level), self.max_width) for level in range(depth)]
        if self.num_classes:
            z_BD = jnp.concatenate([z_BD, nn.Embed(self.num_classes, z_BD.shape[-1])(label_B)], axis=-1)

        def activate(x_BHWC):
            x_BHWC = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(x_BHWC)
            return nn.leaky_relu(x_BHWC, self.negative_slope)

        x_BD = nn.Dense(h * w * widths[0], use_bias=False, kernel_init=_normal, dtype=self.dtype)(z_BD)
        x_BHWC = activate(x_BD.reshape(-1, h, w, widths[0]))
        for features in widths[1:]:
            up = ConvTranspose(features, (4, 4), (2, 2), use_bias=False, kernel_init=_normal, dtype=self.dtype)
            x_BHWC = activate(up(x_BHWC))
        x_BHWC = ConvTranspose(self.image_shape[-1], (4, 4), (2, 2), kernel_init=_normal, dtype=self.dtype)(x_BHWC)
        return jnp.tanh(x_BHWC.astype(jnp.float32))


class Discriminator(nn.Module):
    """4x4 stride-2 convolutions with leaky ReLU and dropout down to the base grid, then one logit.

    Attributes:
      image_shape: (height, width, channels) to judge.
      num_classes: 0 for an unconditional discriminator.
      width: channels of the first layer; each coarser grid has twice as many, up to ``max_width``.
      dropout: rate after every convolution.
    """

    image_shape: tuple[int, int, int]
    num_classes: int = 0
    width: int = 64
    max_width: int = 512
    negative_slope: float = 0.2
    dropout: float = 0.3
    dtype: jnp.dtype | None = None

    def __post_init__(self):
        super().__post_init__()
        check_positive(width=self.width, max_width=self.max_width)
        check_fraction(dropout=self.dropout)
        ladder(self.image_shape)

    @nn.compact
    def __call__(self, x_BHWC: Array, label_B: Array | None, train: bool) -> Array:
        """Logits float32 ``[B]`` of images float ``[B, H, W, C]`` in [-1, 1]; positive means real."""
        depth, _ = ladder(self.image_shape)
        height, width, _ = self.image_shape
        if self.num_classes:
            plane_BHWC = nn.Embed(self.num_classes, height * width)(label_B).reshape(-1, height, width, 1)
            x_BHWC = jnp.concatenate([x_BHWC, plane_BHWC], axis=-1)
        for level in range(depth):
            features = min(self.width * 2**level, self.max_width)
            x_BHWC = Conv(features, (4, 4), (2, 2), kernel_init=_normal, dtype=self.dtype)(x_BHWC)
            x_BHWC = nn.leaky_relu(x_BHWC, self.negative_slope)
            x_BHWC = nn.Dropout(self.dropout, deterministic=not train)(x_BHWC)
        x_BD = x_BHWC.reshape(x_BHWC.shape[0], -1)
        return nn.Dense(1, kernel_init=_normal, dtype=self.dtype)(x_BD)[:, 0].astype(jnp.float32)
