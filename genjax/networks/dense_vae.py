"""Encoder and decoder of dense layers, as in the first papers on variational autoencoders."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from genjax.networks.layers import with_label
from genjax.types import Array, check_positive


class DenseVAE(nn.Module):
    """Dense layers to a Gaussian over the latents, and back to the image (Burda et al. 2016, section 5: one layer).

    Attributes:
      image_shape: (height, width, channels).
      outputs_per_value: parameters of the likelihood per image value (1 for a mean or logit, 2 with a scale).
      num_classes: 0 for an unconditional model; otherwise encoder and decoder are given the label.
      latent_dim: size of the latent vector.
      hidden: size of each hidden layer of the encoder; the decoder has them in reverse.
    """

    image_shape: tuple[int, int, int]
    outputs_per_value: int = 1
    num_classes: int = 0
    latent_dim: int = 50
    hidden: tuple[int, ...] = (200, 200)
    dtype: jnp.dtype | None = None

    def __post_init__(self):
        super().__post_init__()
        check_positive(latent_dim=self.latent_dim, **{f"hidden[{i}]": size for i, size in enumerate(self.hidden)})

    def setup(self):
        def dense(size: int) -> nn.Dense:
            return nn.Dense(size, dtype=self.dtype, kernel_init=nn.initializers.glorot_uniform())

        height, width, channels = self.image_shape
        self.down = [dense(size) for size in self.hidden]
        self.to_latent = dense(2 * self.latent_dim)
        self.up = [dense(size) for size in reversed(self.hidden)]
        self.to_image = dense(height * width * channels * self.outputs_per_value)

    def encode(self, x_BHWC: Array, label_B: Array | None) -> tuple[Array, Array]:
        """Mean and log-variance of q(z|x), each float32 ``[B, latent_dim]``, of images float ``[B, H, W, C]``."""
        # From [-1, 1] to [0, 1]: a black background of -1 would drive all of the first layer into tanh's flat ends.
        x_BHWC = 0.5 * (x_BHWC + 1.0)
        x_BD = with_label(x_BHWC.reshape(x_BHWC.shape[0], -1), label_B, self.num_classes)
        for layer in self.down:
            x_BD = jnp.tanh(layer(x_BD))
        mean_BD, logvar_BD = jnp.split(self.to_latent(x_BD).astype(jnp.float32), 2, axis=-1)
        return mean_BD, logvar_BD

    def decode(self, z_BD: Array, label_B: Array | None) -> Array:
        """Likelihood parameters float32 ``[B, H, W, C, outputs_per_value]`` from latents ``[B, latent_dim]``."""
        x_BD = with_label(z_BD, label_B, self.num_classes)
        for layer in self.up:
            x_BD = jnp.tanh(layer(x_BD))
        x_BD = self.to_image(x_BD)
        return x_BD.reshape(-1, *self.image_shape, self.outputs_per_value).astype(jnp.float32)

    def __call__(self, x_BHWC: Array, label_B: Array | None) -> Array:
        """Encode and decode the mean; used to create the parameters."""
        mean_BD, _ = self.encode(x_BHWC, label_B)
        return self.decode(mean_BD, label_B)
