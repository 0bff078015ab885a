"""Convolution layers: the parameters and results of Flax's own, computed by ``genjax.ops``."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer

from genjax.ops.conv import Padding, conv, conv_transpose

_default_kernel_init = nn.initializers.lecun_normal()


def with_label(x_BD: jax.Array, label_B: jax.Array | None, num_classes: int) -> jax.Array:
    """``x_BD`` with the label behind it as a one-hot vector, ``[B, D + num_classes]``; as it is for 0 classes."""
    if not num_classes:
        return x_BD
    assert label_B is not None
    return jnp.concatenate([x_BD, jax.nn.one_hot(label_B, num_classes, dtype=x_BD.dtype)], axis=-1)


class Conv(nn.Module):
    """``flax.linen.Conv`` for images: same parameters ("kernel", "bias"), same result.

    Attributes:
      features: channels of the result.
      kernel_size: taps along height and width.
      strides: step of the window.
      padding: "SAME", "VALID", an int, or [(top, bottom), (left, right)].
      dilation: distance between the taps (``kernel_dilation`` in Flax).
      groups: blocks of channels that do not see each other (``feature_group_count`` in Flax).
      use_bias: whether to add a bias of one number per channel.
      dtype: dtype of the computation; None takes the one that the input and float32 parameters promote to.
      kernel_init: initializer of "kernel", [kh, kw, C_in / groups, features], float32.
      bias_init: initializer of "bias", [features], float32.
    """

    features: int
    kernel_size: Sequence[int] = (3, 3)
    strides: int | Sequence[int] = (1, 1)
    padding: Padding = "SAME"
    dilation: int | Sequence[int] = (1, 1)
    groups: int = 1
    use_bias: bool = True
    dtype: Dtype | None = None
    kernel_init: Initializer = _default_kernel_init
    bias_init: Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """Maps images [B, H, W, C_in] to [B, H_out, W_out, features]; raises ValueError where ``ops.conv`` does."""
        if x_BHWC.ndim != 4 or x_BHWC.shape[3] % self.groups:
            raise ValueError(f"Conv: needs images [B, H, W, C] with C divisible by {self.groups}, got {x_BHWC.shape}")
        shape = (*self.kernel_size, x_BHWC.shape[3] // self.groups, self.features)
        x_BHWC, kernel, bias = _operands(self, x_BHWC, shape)
        y_BHWC = conv(
            x_BHWC, kernel, stride=self.strides, padding=self.padding, dilation=self.dilation, groups=self.groups
        )
        return y_BHWC if bias is None else y_BHWC + bias


class ConvTranspose(nn.Module):
    """``flax.linen.ConvTranspose`` for images: same parameters ("kernel", "bias"), same result.

    Attributes:
      features: channels of the result.
      kernel_size: taps along height and width.
      strides: factor of up-sampling.
      padding: "SAME", "VALID", an int, or [(top, bottom), (left, right)] of the spread-out images.
      use_bias: whether to add a bias of one number per channel.
      dtype: dtype of the computation; None takes the one that the input and float32 parameters promote to.
      kernel_init: initializer of "kernel", [kh, kw, C_in, features], float32.
      bias_init: initializer of "bias", [features], float32.
    """

    features: int
    kernel_size: Sequence[int] = (3, 3)
    strides: int | Sequence[int] = (1, 1)
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: Dtype | None = None
    kernel_init: Initializer = _default_kernel_init
    bias_init: Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """Maps images [B, H, W, C_in] to [B, H_out, W_out, features]; raises ValueError as ``ops.conv_transpose``."""
        if x_BHWC.ndim != 4:
            raise ValueError(f"ConvTranspose: needs images [B, H, W, C], got {x_BHWC.shape}")
        shape = (*self.kernel_size, x_BHWC.shape[3], self.features)
        x_BHWC, kernel, bias = _operands(self, x_BHWC, shape)
        y_BHWC = conv_transpose(x_BHWC, kernel, stride=self.strides, padding=self.padding)
        return y_BHWC if bias is None else y_BHWC + bias


def _operands(layer: Conv | ConvTranspose, x: jax.Array, kernel_shape: tuple[int, ...]) -> tuple:
    """Declares the parameters and brings them and the images to the compute dtype; the bias is None without one."""
    if len(kernel_shape) != 4 or min(kernel_shape) < 1:
        sizes = f"kernel_size={layer.kernel_size} and features={layer.features}"
        raise ValueError(f"{type(layer).__name__}: {sizes} must be two positive ints and one")
    kernel = layer.param("kernel", layer.kernel_init, kernel_shape)
    bias = layer.param("bias", layer.bias_init, (layer.features,)) if layer.use_bias else None
    return tuple(promote_dtype(x, kernel, bias, dtype=layer.dtype))
