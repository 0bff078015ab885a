"""What every framework computes: the networks in numbers, their data, and the arithmetic that one step needs.

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
RATE = {"cnn": 1e-3, "gan": 2e-4, "vae": 1e-3, "unet": 1e-3}
GAN_B1 = 0.5
EPSILON = 1e-8  # of Adam
SAMPLES = {"gan": 256, "vae": 256, "unet": 64}  # images drawn at a time
EVALUATIONS = {"gan": 1, "vae": 1, "unet": 20}  # of the network for each of them: the U-Net takes Euler's steps
NETWORKS = {
    "cnn": "CNN classifier",
    "gan": "DCGAN",
    "vae": "convolutional VAE",
    "unet": "flow-matching U-Net",
}
UNET_WIDTH, UNET_MULTIPLIERS, UNET_PATCH, UNET_ATTENTION = 48, (1, 2), 2, 7
UNET_SKIP = 0.5**0.5  # factor of every sum of two branches
LABEL_DROPOUT = 0.1  # share of the labels that the U-Net is not told
T_MIN = 1e-3  # t runs from data at 0 to noise at 1; this is the least that is trained
AVERAGE_LENGTH, AVERAGE_EXPONENT = 0.05, 16.97  # of the U-Net's average: after t steps, step s weighs ~ s^16.97
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


@dataclasses.dataclass(frozen=True)
class Block:
    """A residual block of the U-Net.

    Attributes:
      name: as in genjax's network; encoders leave their result for the decoders, which take the latest one left.
      c_in, c_out: channels of input and result.
      grid: height and width of the result.
      resample: "" to stay on the grid, "down" or "up" to halve or double it.
      attends: whether attention over all pixels follows.
    """

    name: str
    c_in: int
    c_out: int
    grid: int
    resample: str = ""
    attends: bool = False

    @property
    def projects(self) -> bool:
        """Whether a pointwise convolution brings the input to the result's channels."""
        return bool(self.resample) or self.c_in != self.c_out

    def multiply_adds(self) -> int:
        """For one image; a convolution of repeated pixels counts in full, though it could be had for less."""
        small = self.grid // 2 if self.resample == "up" else self.grid
        convolutions = sum(convolution(3, self.grid, c, self.c_out) for c in (self.c_in, self.c_out))
        embedding = 4 * UNET_WIDTH * 2 * self.c_out
        projection = convolution(1, small, self.c_in, self.c_out) if self.projects else 0
        # Queries, keys, values and what is made of the result; the products of all pairs, twice.
        attention = 4 * self.grid**2 * self.c_out**2 + 2 * self.grid**4 * self.c_out if self.attends else 0
        return convolutions + embedding + projection + attention


def unet_blocks(width: int = UNET_WIDTH, fine: int = SIZE // UNET_PATCH) -> tuple[Block, ...]:
    """Two levels of two blocks, the first on a grid of 14 and the second, with twice the channels, on one of 7."""
    wide, coarse = 2 * width, fine // 2
    return (
        Block("encoder_0_0", width, width, fine),
        Block("encoder_0_1", width, width, fine),
        Block("encoder_1_down", width, width, coarse, "down"),
        Block("encoder_1_0", width, wide, coarse, attends=True),
        Block("encoder_1_1", wide, wide, coarse, attends=True),
        Block("middle_0", wide, wide, coarse, attends=True),
        Block("middle_1", wide, wide, coarse),
        Block("decoder_1_0", wide + wide, wide, coarse),
        Block("decoder_1_1", wide + wide, wide, coarse),
        Block("decoder_1_2", wide + width, wide, coarse, attends=True),
        Block("decoder_0_up", wide, wide, fine, "up"),
        Block("decoder_0_0", wide + width, width, fine),
        Block("decoder_0_1", width + width, width, fine),
        Block("decoder_0_2", width + width, width, fine),
    )


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
UNET = (
    convolution(3, SIZE // UNET_PATCH, CHANNELS * UNET_PATCH**2, UNET_WIDTH),
    UNET_WIDTH * 4 * UNET_WIDTH + (4 * UNET_WIDTH) ** 2,  # noise level and class
    *(block.multiply_adds() for block in unet_blocks()),
    convolution(3, SIZE // UNET_PATCH, UNET_WIDTH, CHANNELS * UNET_PATCH**2),
)


def gradient(layers: tuple[int, ...]) -> int:
    """Multiply-adds of forward pass, gradient in the weights, and gradient in the input of all layers but the first."""
    return 3 * sum(layers) - layers[0]


def training_flops(network: str, batch: int) -> int:
    """Operations of convolutions, dense layers and attention in one training step, two to a multiply-add."""
    if network == "gan":
        discriminator_update = sum(GENERATOR) + 2 * gradient(DISCRIMINATOR)
        # The generator's gradient goes through the discriminator, whose weights need none.
        multiply_adds = discriminator_update + gradient(GENERATOR) + 2 * sum(DISCRIMINATOR)
    else:
        multiply_adds = gradient({"cnn": CNN, "vae": VAE, "unet": UNET}[network])
    return 2 * batch * multiply_adds


def average_weight(step: int) -> float:
    """How far the averaged weights of the U-Net move in step 1, 2, ... (Karras et al. 2024, section 3.1)."""
    return 1.0 - (1.0 - 1.0 / step) ** (AVERAGE_EXPONENT + 1.0)
