"""The U-Net of diffusion models: residual blocks at several resolutions, joined by skips, with some attention."""

from __future__ import annotations

import math
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from genjax.networks.dense import Dense
from genjax.networks.embeddings import KINDS, LabelEmbedding, check_choice, noise_features
from genjax.networks.layers import Conv
from genjax.ops.attention import attention
from genjax.ops.norm import group_norm
from genjax.ops.resample import (
    avg_pool,
    depth_to_space,
    fir_downsample,
    fir_upsample,
    nearest_conv,
    nearest_upsample,
    space_to_depth,
)
from genjax.types import Array, check_fraction, check_positive

RESAMPLING = {"plain": {"down": avg_pool, "up": nearest_upsample}, "fir": {"down": fir_downsample, "up": fir_upsample}}

_zeros = nn.initializers.zeros
_xavier = nn.initializers.xavier_uniform()
_attention_init = nn.initializers.variance_scaling(0.2, "fan_avg", "uniform")


class Normalize(nn.Module):
    """Group normalisation with at most 32 groups of at least 4 channels, then, with ``act``, SiLU."""

    act: bool = True

    @nn.compact
    def __call__(self, x_BHWC: Array, scale_BC: Array | None = None, shift_BC: Array | None = None) -> Array:
        """Same shape and dtype; ``scale`` and ``shift`` make of the normalised n: n (1 + scale) + shift."""
        channels = x_BHWC.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", _zeros, (channels,))
        if scale_BC is not None:
            scale, bias = scale * (1 + scale_BC), bias * (1 + scale_BC)
        if shift_BC is not None:
            bias = bias + shift_BC
        y_BHWC = group_norm(x_BHWC, scale, bias, groups=norm_groups(channels))
        return nn.silu(y_BHWC) if self.act else y_BHWC


def norm_groups(channels: int) -> int:
    """The most groups that divide the channels evenly, at most 32 and with at least 4 channels each."""
    return next(groups for groups in range(max(min(32, channels // 4), 1), 0, -1) if channels % groups == 0)


class Block(nn.Module):
    """Residual block of DDPM++ and ADM as Karras et al. 2022 (table 7) unite them.

    Attributes:
      features: channels of the result.
      resample: "" to stay on the grid, "down" or "up" to halve or double it.
      resampling: "plain" or "fir".
      heads: of the attention that follows, 0 for none.
      adaptive_scale: whether the embedding scales and shifts the normalised features, or is added before.
      skip_scale: factor of every sum of two branches.
      dropout: rate before the second convolution.
    """

    features: int
    resample: str = ""
    resampling: str = "plain"
    heads: int = 0
    adaptive_scale: bool = False
    skip_scale: float = 1.0
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BHWC: Array, emb_BE: Array, train: bool) -> Array:
        """Images ``[B, h, w, features]`` of images ``[B, H, W, C]`` and an embedding ``[B, E]``."""
        dense = partial(Dense, kernel_init=_xavier, dtype=self.dtype)
        resize = RESAMPLING[self.resampling][self.resample] if self.resample else lambda x: x

        h_BHWC = Normalize(name="norm_in")(x_BHWC)
        if self.resample == "up" and self.resampling == "plain":
            h_BHWC = NearestConv(self.features, dtype=self.dtype, name="conv_in")(h_BHWC)
        else:
            h_BHWC = Conv(self.features, kernel_init=_xavier, dtype=self.dtype, name="conv_in")(resize(h_BHWC))
        shift_BC = dense((1 + self.adaptive_scale) * self.features, name="emb")(emb_BE)
        if self.adaptive_scale:
            h_BHWC = Normalize(name="norm_out")(h_BHWC, *jnp.split(shift_BC, 2, axis=-1))
        else:
            h_BHWC = Normalize(name="norm_out")(h_BHWC + shift_BC[:, None, None])
        h_BHWC = nn.Dropout(self.dropout, deterministic=not train)(h_BHWC)
        h_BHWC = Conv(self.features, kernel_init=_zeros, dtype=self.dtype, name="conv_out")(h_BHWC)

        if self.resample or x_BHWC.shape[-1] != self.features:
            # A pointwise convolution and a resampling commute: the convolution comes on the smaller grid.
            project = dense(self.features, name="skip")
            x_BHWC = resize(project(x_BHWC)) if self.resample == "up" else project(resize(x_BHWC))
        x_BHWC = (x_BHWC + h_BHWC) * self.skip_scale
        if self.heads:
            x_BHWC = (x_BHWC + self._attend(x_BHWC)) * self.skip_scale
        return x_BHWC

    def _attend(self, x_BHWC: Array) -> Array:
        B, H, W, C = x_BHWC.shape
        qkv = Dense(3 * C, kernel_init=_attention_init, dtype=self.dtype, name="qkv")
        out = Dense(C, kernel_init=_zeros, dtype=self.dtype, name="attention_out")
        qkv_BHWD = qkv(Normalize(act=False, name="norm_attention")(x_BHWC))
        qkv_BNHD = jnp.split(qkv_BHWD.reshape(B, H * W, 3 * self.heads, C // self.heads), 3, axis=2)
        return out(attention(*qkv_BNHD).reshape(B, H, W, C))


class NearestConv(nn.Module):
    """``Conv(features)`` of images whose pixels are repeated to 2x2, with the same parameters."""

    features: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BHWC: Array) -> Array:
        """Maps images [B, H, W, C] to [B, 2 H, 2 W, features]."""
        kernel = self.param("kernel", _xavier, (3, 3, x_BHWC.shape[-1], self.features))
        bias = self.param("bias", _zeros, (self.features,))
        x_BHWC, bias = promote_dtype(x_BHWC, bias, dtype=self.dtype)
        return nearest_conv(x_BHWC, kernel) + bias


class UNet(nn.Module):
    """DDPM++ and ADM U-Net (Song et al. 2021; Dhariwal & Nichol 2021) in the form of Karras et al. 2022, appendix F.

    As many levels as ``multipliers``; between them the grid is halved. EDM's network for CIFAR-10 is ``width=128,
    multipliers=(2, 2, 2), blocks=4, attention=(16,), dropout=0.13`` with nine augmentation labels.

    Attributes:
      image_shape: (height, width, channels) of the result; the input may have more channels.
      num_classes: 0 for an unconditional network; otherwise label ``num_classes`` stands for "no label".
      width: channels of level 0 before its multiplier; the embedding has four times as many.
      multipliers: channels of each level in units of ``width``.
      blocks: residual blocks of a level on the way down; one more on the way up.
      attention: heights of the grids whose blocks attend; the middle block always does.
      heads: of the attention.
      head_channels: channels of a head; 0 to go by ``heads`` instead.
      embedding: of the noise level, "positional" (DDPM++) or "fourier" (NCSN++).
      adaptive_scale: whether the embedding scales and shifts (ADM) or is added (DDPM++).
      skip_scale: factor of every sum of two branches, sqrt(1/2) in DDPM++ and 1 in ADM.
      resampling: "plain", means and repeats (DDPM++), or "fir", the filter (1, 3, 3, 1) (NCSN++).
      patch: side of the blocks of pixels that become channels before the first level: 2 computes everything on a
        quarter of the pixels.
      dropout: rate inside the residual blocks.
      remat: keep only what goes in and out of each block and compute the rest again in the backward pass: less memory
        for a third more time (Chen et al. 2016).
    """

    image_shape: tuple[int, int, int]
    num_classes: int = 0
    width: int = 128
    multipliers: tuple[int, ...] = (2, 2, 2)
    blocks: int = 4
    attention: tuple[int, ...] = ()
    heads: int = 1
    head_channels: int = 0
    embedding: str = "positional"
    adaptive_scale: bool = False
    skip_scale: float = 0.5**0.5
    resampling: str = "plain"
    patch: int = 1
    dropout: float = 0.0
    remat: bool = False
    dtype: jnp.dtype | None = None

    def __post_init__(self):
        super().__post_init__()
        check_positive(
            **{name: getattr(self, name) for name in ("width", "blocks", "heads", "patch")},
            multipliers=len(self.multipliers),
            **{f"multipliers[{i}]": n for i, n in enumerate(self.multipliers)},
        )
        check_fraction(dropout=self.dropout)
        check_choice(embedding=(self.embedding, KINDS), resampling=(self.resampling, tuple(RESAMPLING)))
        if self.width % 2 or self.width < 4:
            raise ValueError(f"width={self.width} does not fit; accepted: an even number from 4")
        self._check_grids()
        for height, multiplier in zip(self._heights(), self.multipliers, strict=True):
            last = height == self._heights()[-1]
            if last or height in self.attention:
                self._heads(self.width * multiplier)

    def _check_grids(self):
        height, width, _ = self.image_shape
        multiple = self.patch * 2 ** (len(self.multipliers) - 1)
        if height % multiple or width % multiple:
            raise ValueError(
                f"image size {height}x{width} does not fit {len(self.multipliers)} multipliers and patch={self.patch}: "
                f"height and width must be multiples of {multiple}; accepted: fewer multipliers or a smaller patch"
            )
        for side in self.attention:
            if side not in self._heights():
                grids = ", ".join(map(str, self._heights()))
                raise ValueError(f"attention={self.attention}: no grid has height {side}; accepted: {grids}")

    def _heights(self) -> list[int]:
        return [self.image_shape[0] // self.patch // 2**level for level in range(len(self.multipliers))]

    def _heads(self, channels: int) -> int:
        heads = channels // self.head_channels if self.head_channels > 0 else self.heads
        if (
            self.head_channels < 0
            or not heads
            or channels % heads
            or (self.head_channels and channels % self.head_channels)
        ):
            setting = f"head_channels={self.head_channels}" if self.head_channels else f"heads={self.heads}"
            raise ValueError(f"{setting} does not fit attention over {channels} channels; accepted: a divisor of them")
        return heads

    @nn.compact
    def __call__(
        self,
        x_BHWC: Array,
        noise_BK: Array,
        label_B: Array | None = None,
        augment_BA: Array | None = None,
        *,
        train: bool,
    ) -> Array:
        """The prediction, float32 ``[B, *image_shape]``.

        Args:
          x_BHWC: noisy images, floating point; may have more channels than ``image_shape`` (self-conditioning).
          noise_BK: float32, the K numbers that tell the noise level.
          label_B: int32 in [0, num_classes], where ``num_classes`` means "no label"; unused without classes.
          augment_BA: float32, what augmentation did to each image, 0 for nothing (Karras et al. 2022, appendix F.2).
          train: whether dropout acts.
        """
        emb_BE = self._embedding(noise_BK, label_B, augment_BA)
        conv = partial(Conv, dtype=self.dtype)
        block = nn.remat(Block, static_argnums=(3,)) if self.remat else Block  # 3: train
        shared = {
            name: getattr(self, name) for name in ("resampling", "adaptive_scale", "skip_scale", "dropout", "dtype")
        }
        heights, widths = self._heights(), [self.width * multiplier for multiplier in self.multipliers]

        def apply(name: str, x: Array, features: int, resample: str = "", attend: bool = False) -> Array:
            heads = self._heads(features) if attend else 0
            return block(features, resample, heads=heads, **shared, name=name)(x, emb_BE, train)

        x_BHWC = space_to_depth(x_BHWC, self.patch)
        x_BHWC = conv(self.width, kernel_init=_xavier, name="stem")(x_BHWC)
        skips = [x_BHWC]
        for level, features in enumerate(widths):
            if level:
                x_BHWC = apply(f"encoder_{level}_down", x_BHWC, x_BHWC.shape[-1], "down")
                skips.append(x_BHWC)
            for i in range(self.blocks):
                x_BHWC = apply(f"encoder_{level}_{i}", x_BHWC, features, attend=heights[level] in self.attention)
                skips.append(x_BHWC)
        x_BHWC = apply("middle_0", x_BHWC, widths[-1], attend=True)
        x_BHWC = apply("middle_1", x_BHWC, widths[-1])
        for level, features in reversed(list(enumerate(widths))):
            if level < len(widths) - 1:
                x_BHWC = apply(f"decoder_{level}_up", x_BHWC, x_BHWC.shape[-1], "up")
            for i in range(self.blocks + 1):
                attend = i == self.blocks and heights[level] in self.attention
                x_BHWC = jnp.concatenate([x_BHWC, skips.pop()], axis=-1)
                x_BHWC = apply(f"decoder_{level}_{i}", x_BHWC, features, attend=attend)
        out = conv(self.image_shape[2] * self.patch**2, kernel_init=_zeros, name="head")
        return depth_to_space(out(Normalize(name="norm_head")(x_BHWC)), self.patch).astype(jnp.float32)

    def _embedding(self, noise_BK: Array, label_B: Array | None, augment_BA: Array | None) -> Array:
        """What every block is told, ``[B, 4 width]``: noise level, class and augmentation."""
        dense = partial(Dense, kernel_init=_xavier, dtype=self.dtype)
        channels = self.width * (2 if self.embedding == "fourier" else 1)
        emb_BE = noise_features(noise_BK, channels, self.embedding, endpoint=True)
        if self.num_classes:
            # As large as EDM's linear map of one-hot labels times sqrt(num_classes); its bias is our "no label".
            stddev = math.sqrt(2 * self.num_classes / (self.num_classes + channels))
            label = LabelEmbedding(self.num_classes, emb_BE.shape[-1], stddev, dtype=self.dtype, name="label")
            emb_BE = emb_BE + label(label_B)
        if augment_BA is not None:
            emb_BE = emb_BE + dense(emb_BE.shape[-1], use_bias=False, name="augment")(augment_BA)
        emb_BE = nn.silu(dense(4 * self.width, name="emb_0")(emb_BE))
        return nn.silu(dense(4 * self.width, name="emb_1")(emb_BE))
