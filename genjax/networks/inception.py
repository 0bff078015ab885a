"""Inception-v3 as the FID and the Inception score use it.

Szegedy et al. 2016, Rethinking the Inception architecture for computer vision, in the form of the TensorFlow graph
``inception-2015-12-05`` with which Heusel et al. 2017 (GANs trained by a two time-scale update rule) define the FID. It
differs from the published network in two places: average pools do not count the zeros outside the image, and the last
block has a maximum where the others have a mean. Its weights are in the PyTorch file
``pt_inception-2015-12-05-6726825d.pth``; the digits at the end begin the SHA-256 of that file.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from genjax.networks.cnn import global_mean
from genjax.networks.pretrained import ConvReLU, Weights, check_side, dense, folded, rgb
from genjax.ops.resize import resize
from genjax.types import Array

EPSILON = 1e-3  # of the batch norm
SIDE = 299
RESIZES = {"legacy": "tensorflow1", "torch": "torch_bilinear", "clean": "pillow_bicubic"}


class InceptionFeatures(NamedTuple):
    """What Inception-v3 says about images; a compiled program computes only what is used of it.

    stages           three maps float32, none negative: ``[B, 73, 73, 64]``, ``[B, 35, 35, 192]`` and
                     ``[B, 17, 17, 768]`` of 299x299 images. Their means over the grid are the "64", "192" and "768"
                     features of torch-fidelity and pytorch-fid
    pooled           float32 ``[B, 2048]``, none negative: the features of FID, KID and precision/recall
    logits           float32 ``[B, 1008]``
    logits_unbiased  the same without the bias of the last layer. The code of Salimans et al. 2016, and torch-fidelity
                     after it, computes the Inception score of these; other code uses ``logits``: say which
    """

    stages: tuple[Array, ...]
    pooled: Array
    logits: Array
    logits_unbiased: Array


def average_pool(x_BHWC: Array) -> Array:
    """Mean over the part of each 3x3 window that lies inside the image, ``[B, H, W, C]``."""
    return nn.avg_pool(x_BHWC, (3, 3), padding="SAME", count_include_pad=False)


def max_pool(x_BHWC: Array, stride: int) -> Array:
    """Maximum over 3x3 windows; with a stride of 2 over those wholly inside the image."""
    return nn.max_pool(x_BHWC, (3, 3), (stride, stride), "SAME" if stride == 1 else "VALID")


def tower(x_BHWC: Array, *layers: tuple) -> Array:
    """Convolutions one after the other: (name, features, kernel size, stride), the last two 1 where left out.

    Those of stride 2 see only what lies inside the image, the others keep its size.
    """
    for name, features, *rest in layers:
        kernel, stride = (*rest, 1, 1)[:2]
        window = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = "SAME" if stride == 1 else "VALID"
        x_BHWC = ConvReLU(features, window, (stride, stride), padding, name=name)(x_BHWC)
    return x_BHWC


class Mixed5(nn.Module):
    """On the 35x35 grid: 1x1, 5x5, two 3x3, and a pool."""

    pool_features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """``[B, H, W, C]`` to ``[B, H, W, 224 + pool_features]``."""
        branches = (
            tower(x, ("branch1x1", 64)),
            tower(x, ("branch5x5_1", 48), ("branch5x5_2", 64, 5)),
            tower(x, ("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)),
            tower(average_pool(x), ("branch_pool", self.pool_features)),
        )
        return jnp.concatenate(branches, axis=-1)


class Mixed6a(nn.Module):
    """From the 35x35 to the 17x17 grid."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """``[B, H, W, C]`` to ``[B, (H - 1) // 2, (W - 1) // 2, 480 + C]``."""
        branches = (
            tower(x, ("branch3x3", 384, 3, 2)),
            tower(x, ("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)),
            max_pool(x, 2),
        )
        return jnp.concatenate(branches, axis=-1)


class Mixed6(nn.Module):
    """On the 17x17 grid: 1x1, one and two 7x7 as rows and columns, and a pool."""

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """``[B, H, W, C]`` to ``[B, H, W, 768]``."""
        width, row, column = self.width, (1, 7), (7, 1)
        once = ("branch7x7_1", width), ("branch7x7_2", width, row), ("branch7x7_3", 192, column)
        twice = (
            ("branch7x7dbl_1", width),
            ("branch7x7dbl_2", width, column),
            ("branch7x7dbl_3", width, row),
            ("branch7x7dbl_4", width, column),
            ("branch7x7dbl_5", 192, row),
        )
        pooled = tower(average_pool(x), ("branch_pool", 192))
        return jnp.concatenate((tower(x, ("branch1x1", 192)), tower(x, *once), tower(x, *twice), pooled), axis=-1)


class Mixed7a(nn.Module):
    """From the 17x17 to the 8x8 grid."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """``[B, H, W, C]`` to ``[B, (H - 1) // 2, (W - 1) // 2, 512 + C]``."""
        seven = ("branch7x7x3_1", 192), ("branch7x7x3_2", 192, (1, 7)), ("branch7x7x3_3", 192, (7, 1))
        branches = (
            tower(x, ("branch3x3_1", 192), ("branch3x3_2", 320, 3, 2)),
            tower(x, *seven, ("branch7x7x3_4", 192, 3, 2)),
            max_pool(x, 2),
        )
        return jnp.concatenate(branches, axis=-1)


class Mixed7(nn.Module):
    """On the 8x8 grid: 1x1, two branches that end in a row beside a column, and a pool, "mean" or "max"."""

    pool: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """``[B, H, W, C]`` to ``[B, H, W, 2048]``."""
        three = tower(x, ("branch3x3_1", 384))
        twice = tower(x, ("branch3x3dbl_1", 448), ("branch3x3dbl_2", 384, 3))
        branches = (
            tower(x, ("branch1x1", 320)),
            tower(three, ("branch3x3_2a", 384, (1, 3))),
            tower(three, ("branch3x3_2b", 384, (3, 1))),
            tower(twice, ("branch3x3dbl_3a", 384, (1, 3))),
            tower(twice, ("branch3x3dbl_3b", 384, (3, 1))),
            tower(average_pool(x) if self.pool == "mean" else max_pool(x, 1), ("branch_pool", 192)),
        )
        return jnp.concatenate(branches, axis=-1)


class InceptionV3(nn.Module):
    """Inception-v3 for inference: batch norm is folded into the convolutions, so there is no training mode."""

    @nn.compact
    def __call__(self, x_BHWC: Array) -> InceptionFeatures:
        """Features of images float32 ``[B, H, W, 3]``, RGB in [-1, 1] as ``inception_input`` makes them.

        The FID's are 299x299; any size from 75x75 works. Sums are full float32 on every platform.

        Raises:
          ValueError: another shape.
        """
        check_side(x_BHWC, 75)
        with jax.default_matmul_precision("highest"):
            x_BHWC = ConvReLU(32, (3, 3), (2, 2), "VALID", name="Conv2d_1a_3x3")(x_BHWC.astype(jnp.float32))
            x_BHWC = ConvReLU(32, (3, 3), padding="VALID", name="Conv2d_2a_3x3")(x_BHWC)
            stages = [max_pool(ConvReLU(64, (3, 3), name="Conv2d_2b_3x3")(x_BHWC), 2)]
            x_BHWC = ConvReLU(80, (1, 1), name="Conv2d_3b_1x1")(stages[-1])
            stages += [max_pool(ConvReLU(192, (3, 3), padding="VALID", name="Conv2d_4a_3x3")(x_BHWC), 2)]
            x_BHWC = stages[-1]
            for name, features in (("5b", 32), ("5c", 64), ("5d", 64)):
                x_BHWC = Mixed5(features, name=f"Mixed_{name}")(x_BHWC)
            x_BHWC = Mixed6a(name="Mixed_6a")(x_BHWC)
            for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
                x_BHWC = Mixed6(width, name=f"Mixed_{name}")(x_BHWC)
            stages += [x_BHWC]
            x_BHWC = Mixed7a(name="Mixed_7a")(x_BHWC)
            x_BHWC = Mixed7("max", name="Mixed_7c")(Mixed7("mean", name="Mixed_7b")(x_BHWC))
            pooled_BD = global_mean(x_BHWC)
            kernel = self.param("fc_kernel", nn.initializers.lecun_normal(), (2048, 1008))
            bias = self.param("fc_bias", nn.initializers.zeros, (1008,))
            unbiased = pooled_BD @ kernel
            return InceptionFeatures(tuple(stages), pooled_BD, unbiased + bias, unbiased)


def inception_input(images: Array, mode: str) -> Array:
    """What Inception-v3 takes, of images in [0, 255], resized to 299x299 by the rule of one reference implementation.

    Args:
      images: uint8 or float ``[B, H, W, 1 or 3]``, RGB in [0, 255]; a single channel is repeated.
      mode: "legacy": bilinear as in TensorFlow 1, which moves the image up and left and does not antialias, then
        ``(x - 128) / 128``: the original graph, and torch-fidelity, which takes uint8.
        "torch": bilinear as in PyTorch, without antialias, of x / 255, then ``2 x - 1``: pytorch-fid, which takes
        [0, 1].
        "clean": bicubic with antialias as in Pillow, of floats, cut to [0, 255], then ``(x - 128) / 128``: the mode
        "clean" of clean-fid (Parmar et al. 2022), which takes uint8.

    Returns:
      float32 ``[B, 299, 299, 3]``, in [-1, 0.9922] ("torch": in [-1, 1]).

    Raises:
      ValueError: no such mode, or another shape.
    """
    if mode not in RESIZES:
        raise ValueError(f"mode={mode!r} is unknown; accepted: {', '.join(sorted(RESIZES))}")
    x = resize(rgb(images), (SIDE, SIDE), RESIZES[mode])
    if mode == "torch":
        return x * (2.0 / 255.0) - 1.0
    return (jnp.clip(x, 0.0, 255.0) - 128.0) / 128.0


def load_inception_v3(weights: Weights, where: str = "weights of Inception-v3") -> dict[str, Any]:
    """Variables of ``InceptionV3`` from arrays under the names of ``pt_inception-2015-12-05-6726825d.pth``.

    Args:
      weights: ``Conv2d_1a_3x3.conv.weight``, ``Conv2d_1a_3x3.bn.*``, ``Mixed_5b.branch1x1.conv.weight`` and so on, and
        ``fc.*``, of any float type, as ``genjax.io.torch_weights.read_weights`` reads them; other names are left alone.
      where: what they came from, for the message.

    Returns:
      {"params": ...}, float32.

    Raises:
      UserError: an array is missing, of another shape, or not finite.
    """
    params = shapes()

    def load(name: str, part: Any) -> dict[str, Any]:
        if "kernel" in part:
            return folded(weights, f"{name}.conv", f"{name}.bn", part, EPSILON, where)
        return {key: load(f"{name}.{key}", layer) for key, layer in part.items()}

    last = dense(weights, "fc", params["fc_kernel"].shape, where)
    loaded = {name: load(name, part) for name, part in params.items() if not name.startswith("fc_")}
    return {"params": {**loaded, "fc_kernel": last["kernel"], "fc_bias": last["bias"]}}


@functools.cache
def shapes() -> dict[str, Any]:
    """The parameters as ``jax.ShapeDtypeStruct``, without computing any; for reading only."""
    images = jax.ShapeDtypeStruct((1, 75, 75, 3), jnp.float32)
    return jax.eval_shape(InceptionV3().init, jax.random.key(0), images)["params"]
