"""Two-dimensional convolutions whose gradients are fast wherever they run.

A convolution and its two gradients are three forms of one sum of products. XLA's CPU backend runs one fast only when
it is *written* as images [N, H, W, C] against a kernel [H, W, I, O]: other layouts are rewritten into that one in the
outermost computation but not in the body of a loop, and some dilated forms are slow everywhere. JAX writes both
gradients in other layouts. Inside ``lax.scan`` they then cost 5 to 100 times the forward pass, and the kernel
gradient of a transposed convolution does so anywhere. Here the tangent maps are written such that their *transposes*,
the gradients, come out in the fast form, or as one matrix product where what the taps see is little larger than the
images (few channels, or a stride near the size of the kernel). The price, on CPU only, is forward mode: a ``jvp`` is
slower than ``lax``'s, many times so inside ``lax.scan`` or in the kernel of a transposed convolution; and the second of
two backward passes is written by JAX as ever. On other platforms the tangent maps are the plain ones.
"""

import math
import operator
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from genjax.ops.grouped import Sides, depthwise, split, tap_slices
from genjax.ops.upsampling import overlap_add, sub_pixel

Padding = str | int | Sequence[tuple[int, int]]

_NHWC = ("NHWC", "HWIO", "NHWC")
_FEW_CHANNELS = 4  # of images as they come: grey, RGB
_FEW_COPIES = 3.0
_MAX_SPLIT = 32  # groups; more of them would make the program long


class _Window(NamedTuple):
    """What is static in a convolution, in the terms of ``lax.conv_general_dilated``."""

    stride: tuple[int, int]
    padding: Sides
    lhs_dilation: tuple[int, int]
    rhs_dilation: tuple[int, int]
    groups: int


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int | Sequence[int] = (1, 1),
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = (1, 1),
    groups: int = 1,
) -> jax.Array:
    """Convolves images with a kernel: y[b,i,j,f] = sum_{p,q,c} x[b, i*s+p-lo, j*s+q-lo, c] kernel[p,q,c,f].

    Same result as ``flax.linen.Conv``. Any composition of ``jvp``, ``vjp`` and ``vmap`` works.

    Args:
      x: [B, H, W, C_in], floating point; half precision is accumulated in float32.
      kernel: [kh, kw, C_in / groups, C_out], of the dtype of ``x``.
      stride: step of the window, at least 1.
      padding: "SAME", "VALID", one int for all four sides, or [(top, bottom), (left, right)].
      dilation: distance between the taps of the kernel, at least 1.
      groups: number of blocks of channels that do not see each other; divides C_in and C_out.

    Returns:
      [B, H_out, W_out, C_out], of the dtype of ``x``.

    Raises:
      ValueError: a shape, dtype, stride, padding, dilation or number of groups that does not fit.
    """
    _check_operands("conv", x, kernel, groups)
    stride, dilation = _pair("conv", "stride", stride), _pair("conv", "dilation", dilation)
    height, width = x.shape[1:3]
    spans = (kernel.shape[0] - 1) * dilation[0] + 1, (kernel.shape[1] - 1) * dilation[1] + 1
    pads = _explicit_padding("conv", padding)
    if isinstance(pads, str):
        pads = _pads(height, spans[0], stride[0], pads), _pads(width, spans[1], stride[1], pads)
    _check_fit("conv", (height, width), spans, pads)
    return _convolve(x, kernel, _Window(stride, pads, (1, 1), dilation, groups))


def conv_transpose(
    x: jax.Array, kernel: jax.Array, *, stride: int | Sequence[int] = (1, 1), padding: Padding = "SAME"
) -> jax.Array:
    """Convolves images spread out by ``stride`` with zeros between the pixels: the up-sampling convolution.

    Same result as ``flax.linen.ConvTranspose`` and ``lax.conv_transpose`` with ``transpose_kernel=False``. Any
    composition of ``jvp``, ``vjp`` and ``vmap`` works.

    Args:
      x: [B, H, W, C_in], floating point; half precision is accumulated in float32.
      kernel: [kh, kw, C_in, C_out], of the dtype of ``x``.
      stride: factor of up-sampling, at least 1.
      padding: "SAME" gives [stride * H, stride * W]; "VALID" keeps every pixel that a product reaches, at least
        ``stride`` times the size; an int or [(top, bottom), (left, right)] pads the spread-out images themselves.

    Returns:
      [B, H_out, W_out, C_out], of the dtype of ``x``.

    Raises:
      ValueError: a shape, dtype, stride or padding that does not fit.
    """
    _check_operands("conv_transpose", x, kernel, groups=1)
    stride = _pair("conv_transpose", "stride", stride)
    taps = kernel.shape[0], kernel.shape[1]
    pads = _explicit_padding("conv_transpose", padding)
    if isinstance(pads, str):
        pads = _transpose_pads(taps[0], stride[0], pads), _transpose_pads(taps[1], stride[1], pads)
    spread = (x.shape[1] - 1) * stride[0] + 1, (x.shape[2] - 1) * stride[1] + 1
    _check_fit("conv_transpose", spread, taps, pads)
    return _convolve(x, kernel, _Window((1, 1), pads, stride, (1, 1), 1))


def _pads(size: int, span: int, stride: int, mode: str) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + span - size, 0) if mode == "SAME" else 0
    return total // 2, total - total // 2


def _transpose_pads(taps: int, stride: int, mode: str) -> tuple[int, int]:
    if mode == "SAME":
        total = taps + stride - 2
        low = taps - 1 if stride > taps - 1 else -(-total // 2)
    else:
        total = taps + stride - 2 + max(taps - stride, 0)
        low = taps - 1
    return low, total - low


def _lax_conv(lhs: jax.Array, rhs: jax.Array, window: _Window, layout: tuple[str, str, str] = _NHWC) -> jax.Array:
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window.stride,
        window.padding,
        window.lhs_dilation,
        window.rhs_dilation,
        dimension_numbers=layout,
        feature_group_count=window.groups,
    )


def _convolve(x_BHWC: jax.Array, kernel_HWIO: jax.Array, window: _Window) -> jax.Array:
    groups = window.groups
    if groups == 1:
        return _single_group(x_BHWC, kernel_HWIO, window)
    if groups == x_BHWC.shape[3]:
        cpu = lambda x, k: depthwise(x, k, window.stride, window.padding, window.rhs_dilation)  # noqa: E731
    elif groups <= _MAX_SPLIT:
        cpu = lambda x, k: split(x, k, groups, lambda a, b: _single_group(a, b, window._replace(groups=1)))  # noqa: E731
    else:
        return _lax_conv(x_BHWC, kernel_HWIO, window)
    return lax.platform_dependent(x_BHWC, kernel_HWIO, cpu=cpu, default=lambda x, k: _lax_conv(x, k, window))


# custom_jvp, not custom_vjp: the rule below is made of linear maps that JAX transposes itself, so forward mode, reverse
# mode and every nesting of them remain available.
def _single_group_primal(x: jax.Array, kernel: jax.Array, window: _Window) -> jax.Array:
    native = lambda x, kernel: _lax_conv(x, kernel, window)  # noqa: E731
    cpu = _forward_on_cpu(kernel.shape, window)
    return native(x, kernel) if cpu is None else lax.platform_dependent(x, kernel, cpu=cpu, default=native)


def _forward_on_cpu(kernel: Sequence[int], window: _Window) -> Any:
    """What is faster than the native operation on a CPU, by shape; None where nothing is.

    Grey and RGB images have too few channels for the native convolution's inner loop, whichever side they are on.
    """
    if window.lhs_dilation == (1, 1):
        return partial(_patches_product, window=window) if kernel[2] <= _FEW_CHANNELS else None
    if window.rhs_dilation != (1, 1) or window.stride != (1, 1):
        return None  # only arises when this operation is itself a derivative
    form = overlap_add if kernel[3] <= _FEW_CHANNELS else sub_pixel
    return lambda x, kernel: form(x, kernel, window.lhs_dilation, window.padding)


_single_group = jax.custom_jvp(_single_group_primal, nondiff_argnums=(2,))


def _single_group_jvp(window: _Window, primals: tuple, tangents: tuple) -> tuple[jax.Array, Any]:
    x, kernel = primals
    x_dot, kernel_dot = tangents
    terms = []
    # A tangent that is known to be zero costs nothing: the first layer of a network pays for no image gradient.
    if not isinstance(x_dot, SymbolicZero):
        terms.append(_by_platform(_image_tangent, x_dot, kernel, window))
    if not isinstance(kernel_dot, SymbolicZero):
        terms.append(_by_platform(_kernel_tangent_of(kernel.shape, window), x, kernel_dot, window))
    y = _single_group(x, kernel, window)
    return y, sum(terms[1:], terms[0]) if terms else jnp.zeros_like(y)


_single_group.defjvp(_single_group_jvp, symbolic_zeros=True)


def _by_platform(cpu_tangent: Any, x: jax.Array, kernel: jax.Array, window: _Window) -> jax.Array:
    # The checkpoint makes the arguments themselves the residuals, in place of permuted copies of them made in the
    # forward pass. Both branches then need the same ones: the branch not taken keeps nothing alive.
    fast = jax.checkpoint(lambda x, kernel: cpu_tangent(x, kernel, window), prevent_cse=False)
    return lax.platform_dependent(x, kernel, cpu=fast, default=lambda x, kernel: _lax_conv(x, kernel, window))


def _image_tangent(x: jax.Array, kernel: jax.Array, window: _Window) -> jax.Array:
    """The convolution as a linear map of x: a kernel [H, W, O, I] here is one [H, W, I, O] in the transpose."""
    return _lax_conv(x, kernel.transpose(0, 1, 3, 2), window, ("NHWC", "HWOI", "NHWC"))


def _kernel_tangent_of(kernel: Sequence[int], window: _Window) -> Any:
    """The fastest form by the shape of the kernel: what the taps see must not be many times the images."""
    # On a CPU what each tap sees is copied, of images or of the cotangent: the one with fewer channels shall be.
    narrows = kernel[2] > kernel[3] > _FEW_CHANNELS and window.stride == window.rhs_dilation == (1, 1)
    if window.lhs_dilation != (1, 1) or narrows:
        return _kernel_tangent_over_cotangent
    copies = math.prod(kernel[:2]) / math.prod(window.stride)  # of the images, in all taps
    if kernel[2] <= _FEW_CHANNELS or (copies <= _FEW_COPIES and window.stride != (1, 1)):
        return _patches_product
    return _kernel_tangent


def _patches_product(x: jax.Array, kernel: jax.Array, window: _Window) -> jax.Array:
    """The convolution as a matrix product of the kernel with what each tap sees of the images.

    Linear in both arguments. The transpose in the kernel is one matrix product over all pixels, in which the batch
    needs not become channels.
    """
    kh, kw, c, f = kernel.shape
    # The barrier keeps XLA from testing in every tap and for every pixel whether it lies in the padding.
    padded = lax.optimization_barrier(jnp.pad(x, ((0, 0), *window.padding, (0, 0))))
    seen = tap_slices(padded, (kh, kw), window.stride, window.rhs_dilation)
    grid = (x.shape[0], *seen[0].shape[1:3], f)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    # Two-dimensional products: XLA would copy an operand to bring several contracted axes together.
    if c <= _FEW_CHANNELS:  # taps first, so that whole rows of pixels stay together
        by_tap = jnp.stack(seen).reshape(kh * kw, -1, c)
        parts = [(by_tap[:, :, i].T, kernel[:, :, i].reshape(kh * kw, f)) for i in range(c)]
    else:
        parts = [(jnp.concatenate(seen, axis=3).reshape(-1, kh * kw * c), kernel.reshape(-1, f))]
    products = [jnp.matmul(*part, preferred_element_type=wide) for part in parts]
    return sum(products[1:], products[0]).astype(x.dtype).reshape(grid)


def _kernel_tangent(x: jax.Array, kernel: jax.Array, window: _Window) -> jax.Array:
    """The convolution as a linear map of the kernel, for images that are not dilated.

    Its transpose convolves x, the channels as batch and the batch as channels, with the cotangent as the kernel.
    """
    x_CHWB, kernel_IHWO = x.transpose(3, 1, 2, 0), kernel.transpose(2, 0, 1, 3)
    y_HWBC = _lax_conv(x_CHWB, kernel_IHWO, window, ("CHWN", "IHWO", "HWNC"))
    return y_HWBC.transpose(2, 0, 1, 3)


def _kernel_tangent_over_cotangent(x: jax.Array, kernel: jax.Array, window: _Window) -> jax.Array:
    """The convolution as a linear map of the kernel, with stride and kernel dilation 1; images may be dilated.

    Here the kernel is the image and the flipped x the kernel. The transpose then slides x over the cotangent, as the
    kernel gradient of a strided convolution does, and where images are dilated no operand is filled up with zeros.
    """
    x_HWBC = lax.rev(x.transpose(1, 2, 0, 3), (0, 1))
    kernel_OHWI = lax.rev(kernel.transpose(3, 0, 1, 2), (1, 2))
    padding = []
    for n, k, s, (low, high) in zip(x.shape[1:3], kernel.shape[:2], window.lhs_dilation, window.padding, strict=True):
        # Both orders must produce the same outputs: pad the kernel so that it meets the whole of x, then crop alike.
        reach = (n - 1) * s
        padding.append((reach + low - (k - 1), reach + high - (k - 1)))
    swapped = _Window((1, 1), (padding[0], padding[1]), (1, 1), window.lhs_dilation, 1)
    y_CHWB = _lax_conv(kernel_OHWI, x_HWBC, swapped, ("NHWC", "HWOI", "NHWC"))
    return y_CHWB.transpose(3, 1, 2, 0)


def _check_operands(name: str, x: jax.Array, kernel: jax.Array, groups: int) -> None:
    if jnp.ndim(x) != 4 or jnp.ndim(kernel) != 4:
        shapes = f"{jnp.shape(x)} and {jnp.shape(kernel)}"
        raise ValueError(f"{name}: needs x [B, H, W, C_in] and kernel [kh, kw, C_in, C_out], got {shapes}")
    if x.dtype != kernel.dtype or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name}: x and kernel need one floating-point dtype, got {x.dtype} and {kernel.dtype}")
    if not isinstance(groups, int) or groups < 1 or kernel.shape[3] % groups or x.shape[3] != kernel.shape[2] * groups:
        raise ValueError(f"{name}: x {x.shape} and kernel {kernel.shape} do not fit together with groups={groups}")
    if math.prod(kernel.shape) == 0 or math.prod(x.shape[1:]) == 0:
        raise ValueError(f"{name}: x {x.shape} and kernel {kernel.shape} need at least one pixel, tap and channel")


def _check_fit(name: str, size: tuple[int, int], spans: tuple[int, int], pads: Sides) -> None:
    for n, span, (low, high) in zip(size, spans, pads, strict=True):
        if n + low + high < span:
            raise ValueError(f"{name}: a kernel that spans {spans} does not fit in images {size} padded by {pads}")


def _pair(name: str, what: str, value: int | Sequence[int]) -> tuple[int, int]:
    try:
        first, second = map(operator.index, (value, value) if isinstance(value, int) else value)
    except (TypeError, ValueError):
        first = second = 0
    if min(first, second) < 1:
        raise ValueError(f"{name}: {what} must be a positive int or two of them, got {value!r}")
    return first, second


def _explicit_padding(name: str, padding: Padding) -> str | Sides:
    if isinstance(padding, str) and padding in ("SAME", "VALID"):
        return padding
    sides = (-1,) * 4
    try:
        if isinstance(padding, int):
            sides = (padding,) * 4
        elif not isinstance(padding, str):
            (top, bottom), (left, right) = padding
            sides = tuple(map(operator.index, (top, bottom, left, right)))
    except (TypeError, ValueError):
        pass
    if min(sides) < 0:
        raise ValueError(
            f'{name}: padding must be "SAME", "VALID", an int >= 0 or [(top, bottom), (left, right)], got {padding!r}'
        )
    return (sides[0], sides[1]), (sides[2], sides[3])
