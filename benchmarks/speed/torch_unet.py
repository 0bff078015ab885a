"""The U-Net as a PyTorch user writes it: images ``[B, C, H, W]``, the parameters and names of genjax's."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.speed import workload
from benchmarks.speed.workload import CHANNELS, CLASSES, UNET_PATCH, UNET_SKIP, UNET_WIDTH

EMBEDDING = 4 * UNET_WIDTH
PATCHES = CHANNELS * UNET_PATCH**2  # channels of the image's blocks of pixels


def norm(channels: int) -> nn.GroupNorm:
    """At most 32 groups of at least 4 channels."""
    groups = next(n for n in range(min(32, channels // 4), 0, -1) if channels % n == 0)
    return nn.GroupNorm(groups, channels, eps=1e-6)


def noise_features(t: Tensor) -> Tensor:
    """Cosines and sines of 1000 t, ``[B, UNET_WIDTH]``."""
    half = UNET_WIDTH // 2
    exponents = torch.arange(half, device=t.device) / (half - 1)
    angles = 1000.0 * t[:, None] * torch.exp(-math.log(10000.0) * exponents)
    return torch.cat([angles.cos(), angles.sin()], 1)


class Block(nn.Module):
    """Residual block whose second normalisation is scaled and shifted by the embedding."""

    def __init__(self, spec: workload.Block):
        super().__init__()
        self.resample, c = spec.resample, spec.c_out
        self.norm_in, self.norm_out = norm(spec.c_in), norm(c)
        self.conv_in, self.conv_out = nn.Conv2d(spec.c_in, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1)
        self.emb = nn.Linear(EMBEDDING, 2 * c)
        self.skip = nn.Conv2d(spec.c_in, c, 1) if spec.projects else nn.Identity()
        self.attends = spec.attends
        if spec.attends:
            self.norm_attention, self.qkv, self.attention_out = norm(c), nn.Conv2d(c, 3 * c, 1), nn.Conv2d(c, c, 1)

    def resize(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.resample == "up" else x

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv_in(self.resize(F.silu(self.norm_in(x))))
        scale, shift = self.emb(emb)[:, :, None, None].chunk(2, 1)
        h = self.conv_out(F.silu(torch.addcmul(shift, self.norm_out(h), 1 + scale)))
        # A pointwise convolution and a resampling commute: the convolution comes on the smaller grid.
        x = self.resize(self.skip(x)) if self.resample == "up" else self.skip(self.resize(x))
        x = (x + h) * UNET_SKIP
        return (x + self.attend(x)) * UNET_SKIP if self.attends else x

    def attend(self, x: Tensor) -> Tensor:
        """Attention of one head over all pixels."""
        qkv = self.qkv(self.norm_attention(x)).flatten(2).transpose(1, 2)
        q, k, v = (part[:, None] for part in qkv.chunk(3, 2))
        out = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return self.attention_out(out.transpose(1, 2).unflatten(2, x.shape[2:]))


class UNet(nn.Module):
    """Noisy images ``[B, 1, 28, 28]``, t ``[B]`` in [0, 1] and labels to the velocity at t; label 10 for none."""

    def __init__(self):
        super().__init__()
        self.label = nn.Embedding(CLASSES + 1, UNET_WIDTH)
        self.emb_0, self.emb_1 = nn.Linear(UNET_WIDTH, EMBEDDING), nn.Linear(EMBEDDING, EMBEDDING)
        self.stem = nn.Conv2d(PATCHES, UNET_WIDTH, 3, padding=1)
        self.blocks = nn.ModuleDict({spec.name: Block(spec) for spec in workload.unet_blocks()})
        self.norm_head, self.head = norm(UNET_WIDTH), nn.Conv2d(UNET_WIDTH, PATCHES, 3, padding=1)
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
                if name.endswith(("conv_out", "attention_out", "head")):
                    nn.init.zeros_(module.weight)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        emb = F.silu(self.emb_0(noise_features(t) + self.label(label)))
        emb = F.silu(self.emb_1(emb))
        x = self.stem(F.pixel_unshuffle(x, UNET_PATCH))
        left = [x]
        for name, block in self.blocks.items():
            if name.startswith("decoder") and block.resample != "up":
                x = torch.cat([x, left.pop()], 1)
            x = block(x, emb)
            if name.startswith("encoder"):
                left.append(x)
        return F.pixel_shuffle(self.head(F.silu(self.norm_head(x))), UNET_PATCH)
