"""EfficientNet-Lite0, a small ImageNet classifier whose features compare images.

Tan & Le 2019, EfficientNet: Rethinking model scaling for convolutional neural networks. The Lite variant has no
squeeze-and-excite, ReLU6 for swish, and a stem and a head that do not scale.

A Fréchet or a perceptual distance of these features compares runs with each other. It is neither FID nor LPIPS as
published, and must not be called so.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from genjax.networks.cnn import global_mean
from genjax.networks.layers import Conv
from genjax.networks.pretrained import ConvReLU6, Weights, check_side, dense, folded, parameter_shapes, rgb
from genjax.ops.resize import resize
from genjax.types import Array

EPSILON = 1e-3  # of the batch norm
STAGES = (  # repeats, kernel, stride of the first, expansion, channels
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip


class EfficientNetFeatures(NamedTuple):
    """What EfficientNet-Lite0 says about images; a compiled program computes only what is used of it.

    stages   seven maps float32 ``[B, H / s, W / s, C]``, what each stage gives, with strides s = 2, 4, 8, 16, 16, 32,
             32 (sizes are rounded up) and C = 16, 24, 40, 80, 112, 192, 320; linear, so of either sign
    pooled   float32 ``[B, 1280]``, the mean over the grid of what the head gives, in [0, 6]
    logits   float32 ``[B, 1000]``, the classes of ImageNet in their usual order
    """

    stages: tuple[Array, ...]
    pooled: Array
    logits: Array


class InvertedBottleneck(nn.Module):
    """1x1 to wider, depthwise, 1x1 back without activation, and the input again where shapes agree (Sandler 2018)."""

    features: int
    kernel: int
    stride: int
    expansion: int

    @nn.compact
    def __call__(self, x_BHWC: Array) -> Array:
        channels = x_BHWC.shape[-1]
        wide, h_BHWC = channels * self.expansion, x_BHWC
        if self.expansion != 1:
            h_BHWC = ConvReLU6(wide, (1, 1), name="expand")(h_BHWC)
        window, strides = (self.kernel, self.kernel), (self.stride, self.stride)
        h_BHWC = ConvReLU6(wide, window, strides, groups=wide, name="depthwise")(h_BHWC)
        h_BHWC = Conv(self.features, (1, 1), name="project")(h_BHWC)
        return x_BHWC + h_BHWC if self.stride == 1 and channels == self.features else h_BHWC


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 for inference: batch norm is folded into the convolutions, so there is no training mode."""

    @nn.compact
    def __call__(self, x_BHWC: Array) -> EfficientNetFeatures:
        """Features of images float32 ``[B, H, W, 3]``, RGB in about [-1, 1] as ``efficientnet_input`` makes them.

        It was trained on 224x224; any size from 1x1 works. Sums are full float32 on every platform.

        Raises:
          ValueError: another shape.
        """
        check_side(x_BHWC, 1)
        with jax.default_matmul_precision("highest"):
            x_BHWC = ConvReLU6(32, (3, 3), (2, 2), name="stem")(x_BHWC.astype(jnp.float32))
            stages, number = [], 0
            for repeats, kernel, stride, expansion, features in STAGES:
                for i in range(repeats):
                    block = InvertedBottleneck(
                        features, kernel, stride if i == 0 else 1, expansion, name=f"block_{number}"
                    )
                    x_BHWC, number = block(x_BHWC), number + 1
                stages.append(x_BHWC)
            pooled_BD = global_mean(ConvReLU6(1280, (1, 1), name="head")(x_BHWC))
            return EfficientNetFeatures(tuple(stages), pooled_BD, nn.Dense(1000, name="fc")(pooled_BD))


def efficientnet_input(images: Array, size: int = 224) -> Array:
    """What EfficientNet-Lite0 takes, of images in [0, 255].

    Args:
      images: uint8 or float ``[B, H, W, 1 or 3]``, RGB in [0, 255]; a single channel is repeated.
      size: height and width of the result.

    Returns:
      float32 ``[B, size, size, 3]``: resized as ``PIL.Image.resize`` does bicubically, cut to [0, 255], and
      ``(x - 127) / 128``, which lies in [-0.9922, 1].

    Raises:
      ValueError: another shape.
    """
    resized = resize(rgb(images), (size, size), "pillow_bicubic")
    return (jnp.clip(resized, 0.0, 255.0) - 127.0) / 128.0


def load_efficientnet_lite0(weights: Weights, where: str = "weights of EfficientNet-Lite0") -> dict[str, Any]:
    """Variables of ``EfficientNetLite0`` from arrays under the names of the PyTorch port.

    Args:
      weights: ``_conv_stem.weight``, ``_bn0.*``, ``_blocks.<0 to 15>.*``, ``_conv_head.weight``, ``_bn1.*``, ``_fc.*``
        of any float type, as ``genjax.io.torch_weights.read_weights`` reads them; other names are left alone.
      where: what they came from, for the message.

    Returns:
      {"params": ...}, float32.

    Raises:
      UserError: an array is missing, of another shape, or not finite.
    """
    params = shapes()
    loaded: dict[str, Any] = {
        "stem": folded(weights, "_conv_stem", "_bn0", params["stem"], EPSILON, where),
        "head": folded(weights, "_conv_head", "_bn1", params["head"], EPSILON, where),
        "fc": dense(weights, "_fc", params["fc"]["kernel"].shape, where),
    }
    norms = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
    for number in range(sum(repeats for repeats, *_ in STAGES)):
        block, prefix = params[f"block_{number}"], f"_blocks.{number}."
        loaded[f"block_{number}"] = {
            layer: folded(weights, f"{prefix}_{layer}_conv", prefix + norms[layer], block[layer], EPSILON, where)
            for layer in block
        }
    return {"params": loaded}


shapes = functools.cache(functools.partial(parameter_shapes, EfficientNetLite0(), 32))
