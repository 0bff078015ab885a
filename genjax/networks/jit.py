"""Just image transformers (Li & He 2025): a plain transformer on large patches of pixels, meant to predict x_0."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from genjax.networks.dense import Dense
from genjax.networks.dit import Head, NoiseEmbedding, apply_blocks, check_transformer
from genjax.networks.embeddings import LabelEmbedding, rotary_grid, sincos_grid
from genjax.ops.resample import depth_to_space, space_to_depth
from genjax.types import Array, check_fraction


class JiT(nn.Module):
    """Transformer on pixels with a bottleneck before the first block (Li & He 2025, sections 4 and 5).

    Blocks as in DiT with the paper's choices: RMS normalisation, SwiGLU, rotary besides fixed positions, normalised
    queries and keys. What it gives should be taken as x_0 (prediction "x0"): with patches of more values than tokens
    have, noise does not fit through. JiT-B/16 of the paper is ``patch=16, depth=12, width=768, heads=12,
    bottleneck=128, context=32, context_start=4``; L is 24, 1024, 16, 128, 32, 8 and H 32, 1280, 16, 256, 32, 10.

    Attributes:
      image_shape: (height, width, channels) of the result; the input may have more channels.
      num_classes: 0 for an unconditional network; otherwise label ``num_classes`` stands for "no label".
      patch: side of the blocks of pixels that make a token.
      depth: number of blocks.
      width: length of a token; a multiple of 4 for each head.
      heads: of the attention.
      bottleneck: numbers that a patch is first mapped to, without bias; 0 to map it to a token at once.
      mlp_ratio: hidden units of a block in units of ``width``, before SwiGLU takes 2/3 of them.
      context: class tokens that are put before the image's, when there are classes; 0 for none.
      context_start: block before which they come.
      dropout: rate on both branches of the blocks in the middle half.
      remat: keep only what goes in and out of each block and compute the rest again in the backward pass: less memory
        for a third more time (Chen et al. 2016).
    """

    image_shape: tuple[int, int, int]
    num_classes: int = 0
    patch: int = 4
    depth: int = 12
    width: int = 384
    heads: int = 6
    bottleneck: int = 32
    mlp_ratio: float = 4.0
    context: int = 8
    context_start: int = 4
    dropout: float = 0.0
    remat: bool = False
    dtype: jnp.dtype | None = None

    norm = "rms"
    mlp = "swiglu"
    qk_norm = True

    def __post_init__(self):
        super().__post_init__()
        hidden = 2 * int(self.mlp_ratio * self.width) // 3
        check_transformer(self.image_shape, self.patch, self.width, self.heads, depth=self.depth, mlp_hidden=hidden)
        check_fraction(dropout=self.dropout)
        for name in ("bottleneck", "context"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is out of range; accepted: at least 0")
        if self.num_classes and self.context and not 0 <= self.context_start < self.depth:
            raise ValueError(f"context_start={self.context_start} names no block; accepted: 0 to {self.depth - 1}")

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
        """The prediction, float32 ``[B, *image_shape]``; arguments as ``DiT``'s."""
        emb_BD = NoiseEmbedding(self.width, self.dtype, name="noise")(noise_BK, augment_BA)
        label_BD = None
        if self.num_classes:
            label_BD = LabelEmbedding(self.num_classes, self.width, dtype=self.dtype, name="label")(label_B)
            emb_BD = emb_BD + label_BD
        emb_BD = nn.silu(emb_BD)
        x_BHWD = self._embed(x_BHWC)
        B, H, W, D = x_BHWD.shape
        x_BND = x_BHWD.reshape(B, H * W, D) + jnp.asarray(sincos_grid(H, W, D), x_BHWD.dtype)
        context = self.context if self.num_classes else 0
        start = self.context_start if context else self.depth
        middle = range(self.depth // 4, self.depth // 4 * 3)
        rates = {i: self.dropout if i in middle else 0.0 for i in range(self.depth)}
        before, after = ({i: rates[i] for i in part} for part in (range(start), range(start, self.depth)))

        turns = partial(rotary_grid, H, W, D // self.heads)
        x_BND = apply_blocks(self, x_BND, emb_BD, jnp.asarray(turns()), train, before)
        if label_BD is not None and context:
            place_KD = self.param("context", nn.initializers.normal(0.02), (context, D))
            tokens_BKD = label_BD[:, None] + place_KD.astype(x_BND.dtype)
            x_BND = jnp.concatenate([tokens_BKD, x_BND], axis=1)
            # Class tokens lie nowhere in the image and are not turned.
            x_BND = apply_blocks(self, x_BND, emb_BD, jnp.asarray(turns(before=context)), train, after)
            x_BND = x_BND[:, context:]
        out_BNF = Head(self.patch**2 * self.image_shape[2], self.norm, self.dtype, name="head")(x_BND, emb_BD)
        return depth_to_space(out_BNF.reshape(B, H, W, -1), self.patch).astype(jnp.float32)

    def _embed(self, x_BHWC: Array) -> Array:
        """Tokens ``[B, H / patch, W / patch, width]``."""
        dense = partial(Dense, kernel_init=nn.initializers.xavier_uniform(), dtype=self.dtype)
        x_BHWF = space_to_depth(x_BHWC, self.patch)
        if self.bottleneck:
            x_BHWF = dense(self.bottleneck, use_bias=False, name="bottleneck")(x_BHWF)
        return dense(self.width, name="embed")(x_BHWF)
