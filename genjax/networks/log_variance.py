"""The variance of the loss at each noise level, learnt beside the network."""

from __future__ import annotations

import flax.linen as nn
import jax

from genjax.networks.embeddings import fourier
from genjax.types import Array


class LogVariance(nn.Module):
    """u(c_noise), one dense layer on Fourier features, 0 at the start (Karras et al. 2024, section 2.2 and eq. 14).

    Attributes:
      channels: of the features.
    """

    channels: int = 128

    @nn.compact
    def __call__(self, noise_B: Array) -> Array:
        """Log-variance float32 ``[B]`` of levels ``[B]``."""
        return nn.Dense(1, kernel_init=jax.nn.initializers.zeros)(fourier(noise_B, self.channels, scale=1.0))[..., 0]
