"""Convolutions: against ``lax`` and the definition, with all derivatives, and the layers against Flax's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from genjax.networks import layers
from genjax.ops import conv, conv_transpose

DIMS = ("NHWC", "HWIO", "NHWC")
FEW = settings(max_examples=8, deadline=None, derandomize=True)


def lax_conv(x, kernel, *, stride=(1, 1), padding="SAME", dilation=(1, 1), groups=1):
    padding = [(padding, padding)] * 2 if isinstance(padding, int) else padding
    return lax.conv_general_dilated(
        x, kernel, stride, padding, rhs_dilation=dilation, dimension_numbers=DIMS, feature_group_count=groups
    )


def lax_conv_transpose(x, kernel, *, stride=(1, 1), padding="SAME"):
    padding = [(padding, padding)] * 2 if isinstance(padding, int) else padding
    return lax.conv_transpose(x, kernel, stride, padding)


def normal(seed, *shape, dtype=np.float64):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def loss(op, x, kernel):
    return jnp.sum(jnp.sin(op(x, kernel)))


def first_derivatives(op, x, kernel):
    """Value and both gradients."""
    return op(x, kernel), jax.grad(loss, (1, 2))(op, x, kernel)


def all_derivatives(op, x, kernel):
    """Also a directional derivative, and both gradients of the squared norm of both gradients."""

    def penalty(x, kernel):
        return sum(jnp.sum(g**2) for g in jax.grad(loss, (1, 2))(op, x, kernel))

    directional = jax.jvp(op, (x, kernel), (jnp.cos(3 * x), jnp.sin(2 * kernel)))[1]
    return *first_derivatives(op, x, kernel), directional, jax.grad(penalty, (0, 1))(x, kernel)


def assert_same(ours, theirs, rtol=1e-9):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        scale = max(float(jnp.abs(b).max(initial=0)), 1e-30)
        np.testing.assert_allclose(np.asarray(a) / scale, np.asarray(b) / scale, rtol=0, atol=rtol)


sides = st.tuples(st.integers(0, 3), st.integers(0, 3))
paddings = st.one_of(st.sampled_from(["SAME", "VALID"]), st.integers(0, 2), st.tuples(sides, sides).map(list))


@st.composite
def cases(draw):
    size = draw(st.tuples(st.integers(5, 8), st.integers(5, 8)))
    taps = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    channels = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    return (2, *size, channels[0]), (*taps, *channels), stride, draw(paddings)


def check(derivatives, ours, theirs, x_shape, kernel_shape, **arguments):
    with jax.enable_x64(True):
        x, kernel = normal(0, *x_shape), normal(1, *kernel_shape)
        results = [
            jax.jit(functools.partial(derivatives, functools.partial(op, **arguments)))(x, kernel)
            for op in (ours, theirs)
        ]
        assert_same(*results)


@FEW
@given(cases())
def test_conv_and_its_gradients_equal_lax(case):
    x_shape, kernel_shape, stride, padding = case
    check(first_derivatives, conv, lax_conv, x_shape, kernel_shape, stride=stride, padding=padding)


@FEW
@given(cases())
def test_conv_transpose_and_its_gradients_equal_lax(case):
    x_shape, kernel_shape, stride, padding = case
    check(first_derivatives, conv_transpose, lax_conv_transpose, x_shape, kernel_shape, stride=stride, padding=padding)


@pytest.mark.parametrize(
    ("stride", "dilation", "groups"),
    [((1, 1), (2, 3), 1), ((2, 1), (2, 2), 1), ((2, 2), (1, 2), 2), ((2, 1), (1, 2), 4), ((1, 1), (1, 1), 2)],
)
def test_dilation_and_groups_equal_lax(stride, dilation, groups):
    shapes = (2, 9, 8, 4), (3, 2, 4 // groups, 8)
    check(all_derivatives, conv, lax_conv, *shapes, stride=stride, dilation=dilation, groups=groups)


@st.composite
def grouped_cases(draw):
    groups, inside, outside = draw(st.tuples(st.integers(2, 5), st.integers(1, 2), st.integers(1, 2)))
    x_shape, kernel_shape, stride, padding = draw(cases())
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    x_shape, kernel_shape = (2, 11, 10, groups * inside), (*kernel_shape[:2], inside, groups * outside)
    return x_shape, kernel_shape, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


@FEW
@given(grouped_cases())
def test_groups_and_depthwise_equal_lax(case):
    x_shape, kernel_shape, arguments = case
    check(first_derivatives, conv, lax_conv, x_shape, kernel_shape, **arguments)


def test_more_groups_than_are_split_equal_lax():
    check(first_derivatives, conv, lax_conv, (1, 5, 5, 66), (3, 3, 2, 33), groups=33)


def test_a_depthwise_sum_in_half_precision_is_made_in_float32():
    x, kernel = jnp.ones((1, 32, 32, 2), jnp.bfloat16), jnp.ones((17, 17, 1, 2), jnp.bfloat16)
    out = conv(x, kernel, padding="VALID", groups=2)
    assert out.dtype == jnp.bfloat16 and (out == jnp.bfloat16(17 * 17)).all()  # a bfloat16 sum of ones stops at 256


@pytest.mark.parametrize(("ours", "theirs"), [(conv, lax_conv), (conv_transpose, lax_conv_transpose)])
@pytest.mark.parametrize(("taps", "stride", "padding"), [(4, 2, "SAME"), (3, 1, "VALID"), (1, 3, [(0, 1), (2, 0)])])
def test_directional_and_second_derivatives_equal_lax(ours, theirs, taps, stride, padding):
    shapes = (2, 7, 6, 3), (taps, taps, 3, 2)
    check(all_derivatives, ours, theirs, *shapes, stride=(stride, stride), padding=padding)


@pytest.mark.parametrize(("ours", "theirs"), [(conv, lax_conv), (conv_transpose, lax_conv_transpose)])
@pytest.mark.parametrize("axes", [(None, 0), (0, None), (0, 0), (1, 4)])
def test_vmap_of_value_and_gradients_equals_a_loop(x64, ours, theirs, axes):
    shapes = [(2, 5, 6, 2), (3, 2, 2, 3)]
    operands = [
        normal(i, *(shape if a is None else (*shape[:a], 3, *shape[a:])))
        for i, (shape, a) in enumerate(zip(shapes, axes, strict=True))
    ]

    def derivatives(op, x, k):
        out, pull = jax.vjp(lambda x, k: op(x, k, stride=(2, 2)), x, k)
        return out, pull(jnp.cos(out))

    mapped = jax.jit(jax.vmap(lambda x, k: derivatives(ours, x, k), axes))(*operands)
    for i in range(3):
        x, k = (o if a is None else jnp.take(o, i, axis=a) for o, a in zip(operands, axes, strict=True))
        assert_same(
            jax.tree.map(lambda leaf, i=i: leaf[i], mapped), jax.jit(derivatives, static_argnums=0)(theirs, x, k)
        )


def test_gradients_inside_scan_and_checkpoint_equal_the_plain_ones(x64):
    x, kernels = normal(0, 2, 6, 6, 3), normal(1, 2, 3, 3, 3, 3)

    def scanned(kernels, remat):
        def layer(y, k):
            return conv_transpose(conv(jnp.tanh(y), k, stride=(2, 2)), k, stride=(2, 2)), None

        return jnp.sum(lax.scan(jax.checkpoint(layer) if remat else layer, x, kernels)[0] ** 2)

    def unrolled(kernels):
        y = x
        for k in kernels:
            y = lax_conv_transpose(lax_conv(jnp.tanh(y), k, stride=(2, 2)), k, stride=(2, 2))
        return jnp.sum(y**2)

    expected = jax.jit(jax.grad(unrolled))(kernels)
    for remat in (False, True):
        assert_same(jax.jit(jax.grad(lambda k, remat=remat: scanned(k, remat)))(kernels), expected)


@pytest.mark.parametrize("op", [conv, conv_transpose])
def test_half_precision_is_accumulated_in_float32(op):
    # 512 products of ones per output and 8192 per kernel gradient: a bfloat16 sum of ones stops at 256.
    x, kernel = jnp.ones((2, 64, 64, 512), jnp.bfloat16), jnp.ones((1, 1, 512, 4), jnp.bfloat16)
    out, pull = jax.vjp(op, x, kernel)
    dx, dk = pull(jnp.ones_like(out))
    assert out.dtype == dx.dtype == dk.dtype == jnp.bfloat16
    assert (out == 512).all() and (dx == 4).all() and (dk == 8192).all()


# The definition, written out: y(i,j) = sum_p sum_q x(i+p-1, j+q-1) k(p,q), with zero outside the image.
def by_definition(x, kernel):
    B, H, W, _ = x.shape
    y = np.zeros((B, H, W, kernel.shape[3]))
    for b in range(B):
        for i in range(H):
            for j in range(W):
                for p in range(3):
                    for q in range(3):
                        if 0 <= i + p - 1 < H and 0 <= j + q - 1 < W:
                            y[b, i, j] += x[b, i + p - 1, j + q - 1] @ kernel[p, q]
    return y


def conv_flipped(x, kernel):
    return conv(x, kernel[::-1, ::-1])


def conv_shifted(x, kernel):
    return conv(x, kernel, padding=[(0, 2), (1, 1)])


def conv_transposed_kernel(x, kernel):
    return conv(x, kernel.swapaxes(0, 1))


def differs_from_definition(op):
    x, kernel = normal(0, 2, 5, 4, 2), normal(1, 3, 3, 2, 3)
    return not np.allclose(op(x, kernel), by_definition(np.asarray(x), np.asarray(kernel)), rtol=0, atol=1e-10)


def test_conv_is_its_definition(x64):
    assert not differs_from_definition(conv)


@pytest.mark.parametrize("broken", [conv_flipped, conv_shifted, conv_transposed_kernel])
def test_the_definition_rejects_broken_convolutions(x64, broken):
    assert differs_from_definition(broken)


def transpose_flipped(x, kernel, **arguments):
    return conv_transpose(x, kernel[::-1, ::-1], **arguments)


def transpose_shifted(x, kernel, **arguments):
    return jnp.roll(conv_transpose(x, kernel, **arguments), 1, axis=1)


@jax.custom_jvp
def gradient_shifted(x, kernel):
    return conv_transpose(x, kernel, stride=(2, 2))


@gradient_shifted.defjvp
def _gradient_shifted_jvp(primals, tangents):
    (x, kernel), (x_dot, kernel_dot) = primals, tangents
    moved = conv_transpose(x, jnp.roll(kernel_dot, 1, axis=0), stride=(2, 2))
    return gradient_shifted(x, kernel), conv_transpose(x_dot, kernel, stride=(2, 2)) + moved


@pytest.mark.parametrize("broken", [transpose_flipped, transpose_shifted, lambda x, k, stride: gradient_shifted(x, k)])
def test_the_comparison_rejects_broken_transposed_convolutions(broken):
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check(first_derivatives, broken, lax_conv_transpose, (1, 4, 5, 2), (3, 4, 2, 2), stride=(2, 2))


@pytest.mark.parametrize(
    "arguments",
    [{}, {"strides": (2, 2), "use_bias": False}, {"padding": "VALID", "dilation": (2, 1)}, {"groups": 2, "padding": 1},
     {"dtype": jnp.bfloat16, "kernel_size": (4, 4), "strides": (2, 2)}],
)  # fmt: skip
def test_conv_layer_is_interchangeable_with_flax(arguments):
    names = {"dilation": "kernel_dilation", "groups": "feature_group_count"}
    theirs = nn.Conv(6, **{"kernel_size": (3, 3)} | {names.get(k, k): v for k, v in arguments.items()})
    assert_layers_interchangeable(layers.Conv(6, **arguments), theirs)


@pytest.mark.parametrize(
    "arguments", [{}, {"strides": (2, 2), "kernel_size": (4, 4)}, {"padding": "VALID", "strides": (3, 2)},
                  {"padding": [(2, 1), (1, 2)], "use_bias": False}, {"dtype": jnp.bfloat16, "strides": (2, 2)}],
)  # fmt: skip
def test_conv_transpose_layer_is_interchangeable_with_flax(arguments):
    theirs = nn.ConvTranspose(6, **{"kernel_size": (3, 3)} | arguments)
    assert_layers_interchangeable(layers.ConvTranspose(6, **arguments), theirs)


def assert_layers_interchangeable(ours, theirs):
    x = normal(0, 2, 7, 8, 4, dtype=np.float32)
    params, their_params = (jax.jit(layer.init)(jax.random.key(3), x) for layer in (ours, theirs))
    assert_same(params, their_params, rtol=0)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    out, expected = (jax.jit(layer.apply)(params, x) for layer in (ours, theirs))
    assert_same(out.astype(jnp.float32), expected.astype(jnp.float32), rtol=1e-6 if ours.dtype is None else 2**-7)
    assert out.dtype == expected.dtype


@pytest.mark.parametrize(
    ("op", "x_shape", "kernel_shape", "arguments", "message"),
    [
        (conv, (4, 4, 1), (3, 3, 1, 1), {}, r"needs x \[B, H, W, C_in\]"),
        (conv, (1, 4, 4, 2), (3, 3, 1, 1), {}, "do not fit together"),
        (conv, (1, 4, 4, 3), (3, 3, 1, 3), {"groups": 2}, "groups=2"),
        (conv, (1, 4, 4, 1), (3, 3, 1, 1), {"stride": 0}, "stride must be"),
        (conv, (1, 4, 4, 1), (3, 3, 1, 1), {"stride": (1, 1.5)}, "stride must be"),
        (conv, (1, 4, 4, 1), (3, 3, 1, 1), {"dilation": (1, 1, 1)}, "dilation must be"),
        (conv, (1, 4, 4, 1), (3, 3, 1, 1), {"padding": "same"}, "padding must be"),
        (conv, (1, 4, 4, 1), (3, 3, 1, 1), {"padding": [(0, -1), (0, 0)]}, "padding must be"),
        (conv, (1, 2, 4, 1), (3, 3, 1, 1), {"padding": "VALID"}, "does not fit"),
        (conv, (1, 4, 4, 1), (3, 3, 1, 0), {}, "at least one"),
        (conv_transpose, (1, 4, 4, 1), (3, 3, 2, 1), {}, "do not fit together"),
        (conv_transpose, (1, 4, 4, 1), (3, 3, 1, 1), {"stride": (2,)}, "stride must be"),
        (conv_transpose, (1, 1, 1, 1), (3, 3, 1, 1), {"padding": 0}, "does not fit"),
    ],
)  # fmt: skip
def test_bad_arguments_raise_one_clear_line(op, x_shape, kernel_shape, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        op(jnp.zeros(x_shape), jnp.zeros(kernel_shape), **arguments)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(op.__name__)


def test_dtypes_must_be_one_floating_point_type():
    x = jnp.zeros((1, 4, 4, 1))
    for kernel in (jnp.zeros((3, 3, 1, 1), jnp.bfloat16), jnp.zeros((3, 3, 1, 1), jnp.int32)):
        with pytest.raises(ValueError, match="one floating-point dtype"):
            conv(x, kernel)


@pytest.mark.parametrize("layer", [layers.Conv, layers.ConvTranspose])
def test_layers_reject_a_bad_kernel_size_or_image(layer):
    with pytest.raises(ValueError, match="kernel_size=.* must be two positive ints"):
        layer(4, kernel_size=(3,)).init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    with pytest.raises(ValueError, match=r"needs images \[B, H, W, C\]"):
        layer(4).init(jax.random.key(0), jnp.zeros((4, 4, 1)))
