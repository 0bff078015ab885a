"""Convolutional encoder and decoder of a VAE, with depth and base grid taken from the image size."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from genjax.networks.ladder import ladder
from genjax.networks.layers import Conv, ConvTranspose, with_label
from genjax.types import Array, check_positive


class ConvVAE(nn.Module):
    """Strided 3x3 convolutions to a Gaussian over the latents; transposed convolutions back to the image.

    Attributes:
      image_shape: (height, width, channels).
      outputs_per_value: parameters of the likelihood per image value (1 for a mean or logit, 2 with a scale).
      num_classes: 0 for an unconditional model; otherwise encoder and decoder are given the label.
      latent_dim: size of the latent vector.
      width: channels of the finest grid; each coarser grid has twice as many, up to ``max_width``.
      hidden: size of one more dense layer on each side of the latents, 0 for none.
      negative_slope: of the leaky ReLU.
    """

    image_shape: tuple[int, int, int]
    outputs_per_value: int = 1
    num_classes: int = 0
    latent_dim: int = 100
    width: int = 32
    max_width: int = 256
    hidden: int = 0
    negative_slope: float = 0.2
    dtype: jnp.dtype | None = None

    def __post_init__(self):
        super().__post_init__()
        check_positive(latent_dim=self.latent_dim, width=self.width, max_width=self.max_width)
        ladder(self.image_shape)

    def setup(self):
        depth, (h, w) = ladder(self.image_shape)
        widths = [min(self.width * 2**level, self.max_width) for level in range(depth)]
        channels = self.image_shape[-1] * self.outputs_per_value
        self.down = [Conv(features, (3, 3), (2, 2), dtype=self.dtype) for features in widths]
        self.to_latent = nn.Dense(2 * self.latent_dim, dtype=self.dtype)
        self.from_latent = nn.Dense(h * w * widths[-1], dtype=self.dtype)
        ups = [*widths[-2::-1], channels] if depth > 1 else [channels]
        self.up = [ConvTranspose(features, (4, 4), (2, 2), dtype=self.dtype) for features in ups]
        if self.hidden:
            self.hidden_in = nn.Dense(self.hidden, dtype=self.dtype)
            self.hidden_out = nn.Dense(self.hidden, dtype=self.dtype)

    def _activate(self, x: Array) -> Array:
        return nn.leaky_relu(x, self.negative_slope)

    def encode(self, x_BHWC: Array, label_B: Array | None) -> tuple[Array, Array]:
        """Mean and log-variance of q(z|x), each float32 ``[B, latent_dim]``, of images float ``[B, H, W, C]``."""
        for layer in self.down:
            x_BHWC = self._activate(layer(x_BHWC))
        x_BD = with_label(x_BHWC.reshape(x_BHWC.shape[0], -1), label_B, self.num_classes)
        if self.hidden:
            x_BD = self._activate(self.hidden_in(x_BD))
        mean_BD, logvar_BD = jnp.split(self.to_latent(x_BD).astype(jnp.float32), 2, axis=-1)
        return mean_BD, logvar_BD

    def decode(self, z_BD: Array, label_B: Array | None) -> Array:
        """Likelihood parameters float32 ``[B, H, W, C, outputs_per_value]`` from latents ``[B, latent_dim]``."""
        _, (h, w) = ladder(self.image_shape)
        x_BD = with_label(z_BD, label_B, self.num_classes)
        if self.hidden:
            x_BD = self._activate(self.hidden_out(x_BD))
        x_BHWC = self._activate(self.from_latent(x_BD)).reshape(z_BD.shape[0], h, w, -1)
        for layer in self.up[:-1]:
            x_BHWC = self._activate(layer(x_BHWC))
        x_BHWC = self.up[-1](x_BHWC)
        return x_BHWC.reshape(-1, *self.image_shape, self.outputs_per_value).astype(jnp.float32)

    def __call__(self, x_BHWC: Array, label_B: Array | None) -> Array:
        """Encode and decode the mean; used to create the parameters."""
        mean_BD, _ = self.encode(x_BHWC, label_B)
        return self.decode(mean_BD, label_B)
