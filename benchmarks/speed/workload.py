"""What every framework computes: the three networks in numbers, their data, and the arithmetic that one step needs.

The sizes are those of genjax's configs for 28x28 images. Nothing here needs more than NumPy: all workers import it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

SIZE, CHANNELS, CLASSES = 28, 1, 10
GRID = SIZE // 4  # where both generator and decoder start
LATENT = 100
CNN_FEATURES, CNN_STRIDES = (32, 64, 128), (1, 2, 2)
GAN_WIDTH, VAE_WIDTH = 64, 32
SLOPE = 0.2  # of every leaky ReLU
DROPOUT = 0.3  # of the discriminator
RATE = {"cnn": 1e-3, "gan": 2e-4, "vae": 1e-3}
GAN_B1 = 0.5
EPSILON = 1e-8  # of Adam
SAMPLES = 256  # images drawn at a time
NETWORKS = {
    "cnn": "CNN classifier",
    "gan": "DCGAN",
    "vae": "convolutional VAE",
}
MATRIX = {"cpu": 2048, "gpu": 8192}  # size of the square matrices whose product is the machine's limit


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a worker is told.

    Attributes:
      network: one of NETWORKS.
      device: "cpu" or "gpu".
      batch: images in one optimizer update.
      examples: images in the training set.
      threads: CPU cores to use.
      options: the framework's own, see ``frameworks.py``.
    """

    network: str
    device: str
    batch: int
    examples: int
    threads: int
    options: dict[str, Any]


def examples(count: int) -> tuple[Any, Any]:
    """Images uint8 ``[count, 28, 28, 1]`` and labels int32 ``[count]``, the same for everyone."""
    import numpy as np

    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, SIZE, SIZE, CHANNELS), np.uint8)
    return images, generator.integers(0, CLASSES, count, np.int32)


def convolution(taps: int, grid: int, c_in: int, c_out: int) -> int:
    """Multiply-adds for one image: ``grid`` is the output's of a convolution, the input's of a transposed one.

    Products with the zeros of the padding count, as in every implementation by matrix products.
    """
    return taps * taps * grid * grid * c_in * c_out


# Multiply-adds of every layer for one image, in order.
CNN = (
    convolution(3, SIZE, CHANNELS, 32),
    convolution(3, SIZE // 2, 32, 64),
    convolution(3, GRID, 64, 128),
    GRID * GRID * 128 * CLASSES,
)
GENERATOR = (
    LATENT * GRID * GRID * 2 * GAN_WIDTH,
    convolution(4, GRID, 2 * GAN_WIDTH, GAN_WIDTH),
    convolution(4, SIZE // 2, GAN_WIDTH, CHANNELS),
)
DISCRIMINATOR = (
    convolution(4, SIZE // 2, CHANNELS, GAN_WIDTH),
    convolution(4, GRID, GAN_WIDTH, 2 * GAN_WIDTH),
    GRID * GRID * 2 * GAN_WIDTH,
)
VAE = (
    convolution(3, SIZE // 2, CHANNELS, VAE_WIDTH),
    convolution(3, GRID, VAE_WIDTH, 2 * VAE_WIDTH),
    GRID * GRID * 2 * VAE_WIDTH * 2 * LATENT,
    LATENT * GRID * GRID * 2 * VAE_WIDTH,
    convolution(4, GRID, 2 * VAE_WIDTH, VAE_WIDTH),
    convolution(4, SIZE // 2, VAE_WIDTH, CHANNELS),
)


def gradient(layers: tuple[int, ...]) -> int:
    """Multiply-adds of forward pass, gradient in the weights, and gradient in the input of all layers but the first."""
    return 3 * sum(layers) - layers[0]


def training_flops(network: str, batch: int) -> int:
    """Floating-point operations of the convolutions and dense layers in one training step, two to a multiply-add."""
    if network == "gan":
        discriminator_update = sum(GENERATOR) + 2 * gradient(DISCRIMINATOR)
        # The generator's gradient goes through the discriminator, whose weights need none.
        multiply_adds = discriminator_update + gradient(GENERATOR) + 2 * sum(DISCRIMINATOR)
    else:
        multiply_adds = gradient({"cnn": CNN, "vae": VAE}[network])
    return 2 * batch * multiply_adds
