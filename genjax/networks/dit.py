"""Diffusion transformers (Peebles & Xie 2023): tokens of a few pixels, conditioned by adaptive layer normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from genjax.networks.dense import Dense
from genjax.networks.embeddings import LabelEmbedding, check_choice, noise_features, rotary_grid, rotate, sincos_grid
from genjax.ops.attention import attention
from genjax.ops.resample import depth_to_space, space_to_depth
from genjax.types import Array, check_fraction, check_positive

NORMS = ("layer", "rms")
MLPS = ("gelu", "swiglu")
POSITIONS = ("sincos", "rope")
_FREQUENCIES = 256  # features of each number that tells the noise level
_EPS = 1e-6  # added to variances

_xavier = nn.initializers.xavier_uniform()
_normal = nn.initializers.normal(0.02)
_zeros = nn.initializers.zeros


def normalize(x: Array, kind: str) -> Array:
    """Layer ("layer", Ba et al. 2016) or root-mean-square ("rms", Zhang & Sennrich 2019) normalisation.

    Over the last axis, without parameters; statistics in float32 at least, the result in the dtype of ``x``.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if kind == "layer":
        wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
    return (wide * lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + _EPS)).astype(x.dtype)


def modulate(x_BND: Array, scale_BD: Array, shift_BD: Array) -> Array:
    """x (1 + scale) + shift, the same for all tokens of an image."""
    return x_BND * (1 + scale_BD[:, None]) + shift_BD[:, None]


class Attention(nn.Module):
    """Multi-head self-attention; with ``qk_norm`` queries and keys are normalised (Dehghani et al. 2023)."""

    heads: int
    qk_norm: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BND: Array, turns_2NP: Array | None) -> Array:
        """Tokens ``[B, N, D]``; ``turns_2NP`` of ``rotary_grid``, or None for no rotary positions."""
        B, N, D = x_BND.shape
        dense = partial(Dense, kernel_init=_xavier, dtype=self.dtype)
        # Head by head, so that devices that share the product by its results each have whole heads.
        qkv_BNH3K = dense(3 * D, name="qkv")(x_BND).reshape(B, N, self.heads, 3, D // self.heads)
        q_BNHK, k_BNHK, v_BNHK = (qkv_BNH3K[:, :, :, i] for i in range(3))
        if self.qk_norm:
            q_BNHK, k_BNHK = self._scaled("query_scale", q_BNHK), self._scaled("key_scale", k_BNHK)
        if turns_2NP is not None:
            q_BNHK, k_BNHK = rotate(q_BNHK, turns_2NP), rotate(k_BNHK, turns_2NP)
        return dense(D, name="out")(attention(q_BNHK, k_BNHK, v_BNHK).reshape(B, N, D))

    def _scaled(self, name: str, x: Array) -> Array:
        scale = self.param(name, nn.initializers.ones, (x.shape[-1],))
        return normalize(x, "rms") * scale.astype(x.dtype)


class MLP(nn.Module):
    """Two dense layers around GELU, or SwiGLU (Shazeer 2020) with 2/3 of the hidden units and as many parameters."""

    hidden: int
    kind: str = "gelu"
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BND: Array, train: bool) -> Array:
        """Tokens ``[B, N, D]``; ``train`` decides whether dropout acts."""
        dense = partial(Dense, kernel_init=_xavier, dtype=self.dtype)
        if self.kind == "swiglu":
            gate, value = jnp.split(dense(2 * (2 * self.hidden // 3), name="in")(x_BND), 2, axis=-1)
            hidden = nn.silu(gate) * value
        else:
            hidden = nn.gelu(dense(self.hidden, name="in")(x_BND))
        hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        return dense(x_BND.shape[-1], name="out")(hidden)


class Block(nn.Module):
    """Transformer block with adaLN-zero (Peebles & Xie 2023, section 3.2): at first it is the identity."""

    heads: int
    hidden: int
    norm: str = "layer"
    mlp: str = "gelu"
    qk_norm: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BND: Array, emb_BD: Array, turns_2NP: Array | None, train: bool) -> Array:
        """Tokens ``[B, N, D]`` of tokens, an embedding ``[B, D]``, and ``turns_2NP`` as ``Attention``'s."""
        modulation = Dense(6 * x_BND.shape[-1], kernel_init=_zeros, dtype=self.dtype, name="modulation")(emb_BD)
        scale_1, shift_1, gate_1, scale_2, shift_2, gate_2 = jnp.split(modulation, 6, axis=-1)
        attend = Attention(self.heads, self.qk_norm, self.dtype, name="attention")
        mlp = MLP(self.hidden, self.mlp, self.dropout, self.dtype, name="mlp")
        h_BND = attend(modulate(normalize(x_BND, self.norm), scale_1, shift_1), turns_2NP)
        x_BND = x_BND + gate_1[:, None] * nn.Dropout(self.dropout, deterministic=not train)(h_BND)
        return x_BND + gate_2[:, None] * mlp(modulate(normalize(x_BND, self.norm), scale_2, shift_2), train)


class Head(nn.Module):
    """From tokens to the pixels of their patches; zero at first."""

    features: int
    norm: str = "layer"
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BND: Array, emb_BD: Array) -> Array:
        """``[B, N, features]`` of tokens ``[B, N, D]`` and an embedding ``[B, D]``."""
        modulation = Dense(2 * x_BND.shape[-1], kernel_init=_zeros, dtype=self.dtype, name="modulation")(emb_BD)
        x_BND = modulate(normalize(x_BND, self.norm), *jnp.split(modulation, 2, axis=-1))
        return Dense(self.features, kernel_init=_zeros, dtype=self.dtype, name="out")(x_BND)


class NoiseEmbedding(nn.Module):
    """What all blocks are told: the noise level through two dense layers, plus what augmentation did."""

    features: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, noise_BK: Array, augment_BA: Array | None) -> Array:
        """``[B, features]`` of K numbers for each image and of augmentation labels, if there are any."""
        dense = partial(Dense, self.features, kernel_init=_normal, dtype=self.dtype)
        emb_BD = nn.silu(dense(name="dense_0")(noise_features(noise_BK, _FREQUENCIES)))
        emb_BD = dense(name="dense_1")(emb_BD)
        if augment_BA is not None:
            emb_BD = emb_BD + dense(use_bias=False, name="augment")(augment_BA)
        return emb_BD


def check_transformer(image_shape: tuple[int, int, int], patch: int, width: int, heads: int, **positive: int) -> None:
    """Raises ValueError unless the patches tile the image and the heads share the width evenly."""
    check_positive(patch=patch, width=width, heads=heads, **positive)
    height, breadth, _ = image_shape
    if height % patch or breadth % patch:
        raise ValueError(
            f"patch={patch} does not fit images of {height}x{breadth}; accepted: a divisor of height and width"
        )
    if width % (4 * heads):
        raise ValueError(f"width={width} does not fit heads={heads}; accepted: a multiple of {4 * heads}")


class DiT(nn.Module):
    """Diffusion transformer with adaLN-zero (Peebles & Xie 2023).

    Their sizes (table 1), each with ``patch`` 2, 4 or 8: S is ``depth=12, width=384, heads=6``; B 12, 768, 12;
    L 24, 1024, 16; XL 28, 1152, 16.

    Attributes:
      image_shape: (height, width, channels) of the result; the input may have more channels.
      num_classes: 0 for an unconditional network; otherwise label ``num_classes`` stands for "no label".
      patch: side of the blocks of pixels that make a token.
      depth: number of blocks.
      width: length of a token; a multiple of 4 for each head.
      heads: of the attention.
      mlp_ratio: hidden units of a block in units of ``width``.
      norm: "layer" or "rms"; neither has parameters, for the modulation that follows has them.
      mlp: "gelu", or "swiglu" with as many parameters.
      positions: "sincos" adds fixed positions to the tokens, "rope" turns queries and keys by them.
      qk_norm: whether queries and keys are normalised.
      dropout: rate on both branches of a block.
      remat: keep only what goes in and out of each block and compute the rest again in the backward pass: less memory
        for a third more time (Chen et al. 2016).
    """

    image_shape: tuple[int, int, int]
    num_classes: int = 0
    patch: int = 2
    depth: int = 12
    width: int = 384
    heads: int = 6
    mlp_ratio: float = 4.0
    norm: str = "layer"
    mlp: str = "gelu"
    positions: str = "sincos"
    qk_norm: bool = False
    dropout: float = 0.0
    remat: bool = False
    dtype: jnp.dtype | None = None

    def __post_init__(self):
        super().__post_init__()
        hidden = int(self.mlp_ratio * self.width)
        check_transformer(self.image_shape, self.patch, self.width, self.heads, depth=self.depth, mlp_hidden=hidden)
        check_choice(norm=(self.norm, NORMS), mlp=(self.mlp, MLPS), positions=(self.positions, POSITIONS))
        check_fraction(dropout=self.dropout)

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
          augment_BA: float32, what augmentation did to each image, 0 for nothing.
          train: whether dropout acts.
        """
        emb_BD = NoiseEmbedding(self.width, self.dtype, name="noise")(noise_BK, augment_BA)
        if self.num_classes:
            emb_BD = emb_BD + LabelEmbedding(self.num_classes, self.width, dtype=self.dtype, name="label")(label_B)
        emb_BD = nn.silu(emb_BD)
        x_BHWD = Dense(self.width, kernel_init=_xavier, dtype=self.dtype, name="embed")(
            space_to_depth(x_BHWC, self.patch)
        )
        B, H, W, D = x_BHWD.shape
        x_BND = x_BHWD.reshape(B, H * W, D)
        turns_2NP = jnp.asarray(rotary_grid(H, W, D // self.heads)) if self.positions == "rope" else None
        if self.positions == "sincos":
            x_BND = x_BND + jnp.asarray(sincos_grid(H, W, D), x_BND.dtype)
        rates = [self.dropout] * self.depth
        x_BND = apply_blocks(self, x_BND, emb_BD, turns_2NP, train, dict(enumerate(rates)))
        out_BNF = Head(self.patch**2 * self.image_shape[2], self.norm, self.dtype, name="head")(x_BND, emb_BD)
        return depth_to_space(out_BNF.reshape(B, H, W, -1), self.patch).astype(jnp.float32)


def apply_blocks(
    network, x_BND: Array, emb_BD: Array, turns_2NP: Array | None, train: bool, rates: Mapping[int, float]
) -> Array:
    """Some blocks of a transformer, with the settings of ``network`` and a dropout rate for each, one by one."""
    block = nn.remat(Block, static_argnums=(4,)) if network.remat else Block  # 4: train
    settings = {name: getattr(network, name) for name in ("norm", "mlp", "qk_norm", "dtype")}
    hidden = int(network.mlp_ratio * network.width)
    for i, rate in rates.items():
        apply = block(network.heads, hidden, dropout=rate, **settings, name=f"block_{i}")
        x_BND = apply(x_BND, emb_BD, turns_2NP, train)
    return x_BND
