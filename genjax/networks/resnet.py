"""Residual classifier for small images (He et al. 2016, the CIFAR form of section 4.2; pre-activation blocks)."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from genjax.networks.cnn import global_mean, kaiming, sow_features
from genjax.networks.layers import Conv
from genjax.types import Array, check_positive


class Block(nn.Module):
    """Pre-activation residual block (He et al. 2016b): BN, ReLU, conv, BN, ReLU, conv, plus the shortcut."""

    features: int
    stride: int = 1
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BHWC: Array, train: bool) -> Array:
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype)
        conv = partial(Conv, use_bias=False, kernel_init=kaiming, dtype=self.dtype)
        strides = (self.stride, self.stride)
        h_BHWC = nn.relu(norm()(x_BHWC))
        if x_BHWC.shape[-1] != self.features or self.stride != 1:
            x_BHWC = conv(self.features, (1, 1), strides)(h_BHWC)
        h_BHWC = conv(self.features, (3, 3), strides)(h_BHWC)
        h_BHWC = nn.relu(norm()(h_BHWC))
        return x_BHWC + conv(self.features, (3, 3))(h_BHWC)


class ResNet(nn.Module):
    """Stem, stages that halve the grid and double the width, global mean, dense.

    Attributes:
      num_classes: number of logits.
      width: channels of the first stage.
      blocks: residual blocks in each stage.
      stem_stride: 2 computes everything on a quarter of the pixels.
      remat: keep only what goes in and out of each block and compute the rest again in the backward pass: less memory
        for a third more time (Chen et al. 2016, Training deep nets with sublinear memory cost).
    """

    num_classes: int
    width: int = 16
    blocks: tuple[int, ...] = (2, 2, 2)
    stem_stride: int = 1
    remat: bool = False
    dtype: jnp.dtype | None = None

    def __post_init__(self):
        super().__post_init__()
        check_positive(
            width=self.width, stem_stride=self.stem_stride, **{f"blocks[{i}]": n for i, n in enumerate(self.blocks)}
        )

    @nn.compact
    def __call__(self, x_BHWC: Array, train: bool) -> Array:
        """Logits float32 ``[B, num_classes]`` of images float ``[B, H, W, C]``; sows "features" (``sow_features``)."""
        strides = (self.stem_stride, self.stem_stride)
        x_BHWC = Conv(self.width, (3, 3), strides, use_bias=False, kernel_init=kaiming, dtype=self.dtype)(x_BHWC)
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block  # 2: train
        for stage, count in enumerate(self.blocks):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                name = f"Block_{sum(self.blocks[:stage]) + i}"  # whatever remat would call it
                x_BHWC = block(self.width * 2**stage, stride, self.dtype, name=name)(x_BHWC, train)
        x_BHWC = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(x_BHWC))
        x_BD = global_mean(x_BHWC)
        sow_features(self, x_BD)
        return nn.Dense(self.num_classes)(x_BD)
