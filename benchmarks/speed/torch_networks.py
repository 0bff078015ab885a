"""All networks but the U-Net as a PyTorch user writes them: images ``[B, C, H, W]``, the parameters of genjax's.

A 3x3 convolution of stride 2 pads one pixel on every side, where "SAME" pads below and right only: on mirrored images
with mirrored kernels it is the same function, and PyTorch is spared a separate padding.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.speed import workload
from benchmarks.speed.workload import CHANNELS, CLASSES, CNN_FEATURES, CNN_STRIDES, GRID, LATENT, SLOPE


def up(c_in: int, c_out: int, bias: bool = True) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1, bias=bias)


class CNN(nn.Module):
    """Images in [-1, 1] to logits ``[B, 10]``."""

    def __init__(self):
        super().__init__()
        widths = (CHANNELS, *CNN_FEATURES)
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 3, stride, padding=1)
            for c_in, c_out, stride in zip(widths[:-1], widths[1:], CNN_STRIDES, strict=True)
        )
        self.dense = nn.Linear(GRID * GRID * widths[-1], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.dense(x.flatten(1))


class Generator(nn.Module):
    """Latents ``[B, 100]`` to images in [-1, 1]."""

    def __init__(self, width: int = workload.GAN_WIDTH):
        super().__init__()
        self.dense = nn.Linear(LATENT, GRID * GRID * 2 * width, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(2 * width), nn.BatchNorm2d(width)])
        self.ups = nn.ModuleList([up(2 * width, width, bias=False), up(width, CHANNELS)])
        for module in (self.dense, *self.ups):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, z: Tensor) -> Tensor:
        x = self.dense(z).unflatten(1, (-1, GRID, GRID))
        for norm, layer in zip(self.norms, self.ups, strict=True):
            x = layer(F.leaky_relu(norm(x), SLOPE))
        return torch.tanh(x)


class Discriminator(nn.Module):
    """Images in [-1, 1] to logits ``[B]``."""

    def __init__(self, width: int = workload.GAN_WIDTH):
        super().__init__()
        widths = (CHANNELS, width, 2 * width)
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 4, stride=2, padding=1) for c_in, c_out in itertools.pairwise(widths)
        )
        self.dense = nn.Linear(GRID * GRID * widths[-1], 1)
        for module in (*self.convs, self.dense):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.dropout(F.leaky_relu(conv(x), SLOPE), workload.DROPOUT, self.training)
        return self.dense(x.flatten(1))[:, 0]


class VAE(nn.Module):
    """Encoder and decoder; the decoder gives one Bernoulli logit for each pixel."""

    def __init__(self, width: int = workload.VAE_WIDTH):
        super().__init__()
        self.down = nn.ModuleList(
            [nn.Conv2d(CHANNELS, width, 3, 2, padding=1), nn.Conv2d(width, 2 * width, 3, 2, padding=1)]
        )
        self.to_latent = nn.Linear(GRID * GRID * 2 * width, 2 * LATENT)
        self.from_latent = nn.Linear(LATENT, GRID * GRID * 2 * width)
        self.up = nn.ModuleList([up(2 * width, width), up(width, CHANNELS)])

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each ``[B, 100]``."""
        for layer in self.down:
            x = F.leaky_relu(layer(x), SLOPE)
        mean, logvar = self.to_latent(x.flatten(1)).chunk(2, dim=1)
        return mean, logvar

    def decode(self, z: Tensor) -> Tensor:
        x = F.leaky_relu(self.from_latent(z), SLOPE).unflatten(1, (-1, GRID, GRID))
        first, last = self.up
        return last(F.leaky_relu(first(x), SLOPE))
