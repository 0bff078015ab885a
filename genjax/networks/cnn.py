"""Plain convolutional classifiers: the three-layer CNN and an AlexNet scaled down to small images."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from genjax.networks.layers import Conv
from genjax.types import Array, check_fraction, check_positive


class CNN(nn.Module):
    """Three 3x3 convolutions with ReLU, then a dense layer to the classes.

    Attributes:
      num_classes: number of logits.
      features, strides: output channels and stride of each convolution.
      dropout: rate before the dense layer.
      dtype: computation type; parameters and logits stay float32.
    """

    num_classes: int
    features: tuple[int, ...] = (32, 64, 128)
    strides: tuple[int, ...] = (1, 2, 2)
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    def __post_init__(self):
        super().__post_init__()
        if len(self.features) != len(self.strides):
            raise ValueError(
                f"{len(self.features)} features but {len(self.strides)} strides; give one of each per layer"
            )
        for name in ("features", "strides"):
            check_positive(**{f"{name}[{i}]": value for i, value in enumerate(getattr(self, name))})
        check_fraction(dropout=self.dropout)

    @nn.compact
    def __call__(self, x_BHWC: Array, train: bool) -> Array:
        """Logits float32 ``[B, num_classes]`` of images float ``[B, H, W, C]``; sows "features" (``sow_features``)."""
        for features, stride in zip(self.features, self.strides, strict=True):
            x_BHWC = nn.relu(Conv(features, (3, 3), (stride, stride), dtype=self.dtype)(x_BHWC))
        sow_features(self, global_mean(x_BHWC))
        x_BD = x_BHWC.reshape(x_BHWC.shape[0], -1)
        x_BD = nn.Dropout(self.dropout, deterministic=not train)(x_BD)
        return nn.Dense(self.num_classes, dtype=self.dtype)(x_BD).astype(jnp.float32)


class AlexNet(nn.Module):
    """AlexNet (Krizhevsky et al. 2012) scaled down: its five convolutions, three poolings and three dense layers.

    The 11x11 stride-4 stem becomes 3x3 stride 1 and the poolings 2x2, so that small images keep a grid to pool.

    Attributes:
      num_classes: number of logits.
      width: channels of the first convolution; the others keep AlexNet's proportions.
      hidden: size of the two dense layers.
      dropout: rate before each of them.
    """

    num_classes: int
    width: int = 32
    hidden: int = 256
    dropout: float = 0.5
    dtype: jnp.dtype | None = None

    def __post_init__(self):
        super().__post_init__()
        check_positive(width=self.width, hidden=self.hidden)
        check_fraction(dropout=self.dropout)

    @nn.compact
    def __call__(self, x_BHWC: Array, train: bool) -> Array:
        """Logits float32 ``[B, num_classes]`` of images float ``[B, H, W, C]``; sows "features" (``sow_features``)."""
        plan = [(1, True), (3, True), (4, False), (4, False), (3, True)]
        for multiple, pool in plan:
            x_BHWC = nn.relu(Conv(self.width * multiple, (3, 3), dtype=self.dtype)(x_BHWC))
            if pool:
                x_BHWC = nn.max_pool(x_BHWC, (2, 2), (2, 2), "SAME")
        x_BD = x_BHWC.reshape(x_BHWC.shape[0], -1)
        for _ in range(2):
            x_BD = nn.Dropout(self.dropout, deterministic=not train)(x_BD)
            x_BD = nn.relu(nn.Dense(self.hidden, dtype=self.dtype)(x_BD))
        sow_features(self, x_BD)
        return nn.Dense(self.num_classes, dtype=self.dtype)(x_BD).astype(jnp.float32)


def global_mean(x_BHWC: Array) -> Array:
    """Mean over the grid, ``[B, C]``, in float32."""
    return jnp.mean(x_BHWC.astype(jnp.float32), axis=(1, 2))


def sow_features(module: nn.Module, x_BD: Array) -> None:
    """Leaves float32 ``[B, D]``, what the classes are told apart by, in the collection "intermediates".

    Only a caller of ``apply`` that makes the collection mutable sees them, and a compiled program computes them for no
    other; parameters and logits are the same either way.
    """
    module.sow("intermediates", "features", x_BD.astype(jnp.float32))


kaiming = jax.nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
"""He et al. 2015, for ReLU networks with skip connections."""
