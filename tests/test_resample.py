"""Resampling: against ``jax.image``, ``lax`` and the definitions, with gradients in float64; what does not fit."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from genjax.ops import conv
from genjax.ops.resample import (
    avg_pool,
    bilinear_downsample,
    bilinear_upsample,
    depth_to_space,
    fir_downsample,
    fir_upsample,
    nearest_conv,
    nearest_upsample,
    space_to_depth,
)

DIMS = ("NHWC", "HWIO", "NHWC")


def normal(seed, *shape, dtype=np.float64):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def same(ours, theirs, x, tolerance=1e-12):
    """Whether value and gradient agree."""

    def both(op):
        y, pull = jax.vjp(op, x)
        return y, *pull(jnp.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    pairs = list(zip(jax.jit(both, static_argnums=0)(ours), jax.jit(both, static_argnums=0)(theirs), strict=True))
    return all(a.shape == b.shape and np.allclose(a, b, rtol=0, atol=tolerance) for a, b in pairs)


# Means, repeats, interpolation.


def mean_of_windows(x, factor):
    summed = lax.reduce_window(x, 0.0, lax.add, (1, factor, factor, 1), (1, factor, factor, 1), "VALID")
    return summed / factor**2


def resized(x, factor, method):
    shape = (x.shape[0], round(x.shape[1] * factor), round(x.shape[2] * factor), x.shape[3])
    return jax.image.resize(x, shape, method)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_means_and_repeats_equal_the_library_s(x64, factor):
    x = normal(0, 2, 2 * factor, 3 * factor, 3)
    assert same(lambda x: avg_pool(x, factor), lambda x: mean_of_windows(x, factor), x)
    assert same(lambda x: nearest_upsample(x, factor), lambda x: resized(x, factor, "nearest"), x)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("grid", [(1, 2), (4, 3)])
def test_bilinear_resampling_equals_the_library_s_at_the_edges_too(x64, factor, grid):
    x = normal(0, 2, *grid, 2)
    assert same(lambda x: bilinear_upsample(x, factor), lambda x: resized(x, factor, "bilinear"), x)
    big = normal(0, 2, grid[0] * factor, grid[1] * factor, 2)
    assert same(lambda x: bilinear_downsample(x, factor), lambda x: resized(x, 1 / factor, "bilinear"), big)


def test_a_mean_of_a_repeat_is_the_image(x64):
    x = normal(0, 2, 3, 5, 2)
    for up in (nearest_upsample, functools.partial(fir_upsample, taps=(1, 1))):
        np.testing.assert_allclose(avg_pool(up(x)), x, atol=1e-14)


# Filters.


def by_definition(x, taps, factor, up):
    """Two-dimensional filter through ``lax``, the images spread out with zeros or the result thinned out."""
    taps = np.asarray(taps) / np.sum(taps)
    channels, side = x.shape[3], (len(taps) - factor) // 2
    kernel = jnp.broadcast_to(jnp.asarray(np.outer(taps, taps))[..., None, None], (len(taps),) * 2 + (1, channels))
    if up:
        pads = [(len(taps) - 1 - side,) * 2] * 2
        arguments = {"window_strides": (1, 1), "lhs_dilation": (factor, factor)}
        kernel = kernel[::-1, ::-1] * factor**2
    else:
        pads = [(side, side)] * 2
        arguments = {"window_strides": (factor, factor)}
    return lax.conv_general_dilated(
        x, kernel, padding=pads, dimension_numbers=DIMS, feature_group_count=channels, **arguments
    )


FILTERS = [((1, 3, 3, 1), 2), ((1, 1), 2), ((1, 2, 5), 1), ((3, 1, 4, 1, 5), 3), ((1, 2, 3, 4, 5, 6), 2), ((1,), 1)]


@pytest.mark.parametrize(("taps", "factor"), FILTERS)
def test_filters_equal_their_definition(x64, taps, factor):
    small, big = normal(0, 2, 3, 2, 2), normal(0, 2, 3 * factor, 2 * factor, 2)
    assert same(lambda x: fir_upsample(x, taps, factor), lambda x: by_definition(x, taps, factor, True), small)
    assert same(lambda x: fir_downsample(x, taps, factor), lambda x: by_definition(x, taps, factor, False), big)


def test_up_is_the_transpose_of_down(x64):
    x, y = normal(0, 1, 6, 8, 2), normal(1, 1, 3, 4, 2)
    for taps in ((1, 3, 3, 1), (1, 2, 3, 4)):
        left = jnp.sum(fir_downsample(x, taps) * y)
        np.testing.assert_allclose(4 * left, jnp.sum(x * fir_upsample(y, taps)), rtol=1e-12)


def test_filters_keep_a_constant_inside(x64):
    x = jnp.full((1, 8, 8, 1), 3.0)
    np.testing.assert_allclose(fir_downsample(x)[:, 1:-1, 1:-1], 3.0)
    np.testing.assert_allclose(fir_upsample(x)[:, 1:-1, 1:-1], 3.0)
    for whole in (bilinear_downsample(x), bilinear_upsample(x), avg_pool(x), nearest_upsample(x)):
        np.testing.assert_allclose(whole, 3.0)


# Broken variants.


def shifted(op):
    return lambda x: jnp.roll(op(x), 1, axis=1)


def flipped_axes(op):
    return lambda x: op(x.swapaxes(1, 2)).swapaxes(1, 2)[:, ::-1]


@jax.custom_jvp
def wrong_gradient(x):
    return nearest_upsample(x)


@wrong_gradient.defjvp
def _wrong_gradient_jvp(primals, tangents):
    return nearest_upsample(*primals), 0.25 * nearest_upsample(*tangents)


def test_the_comparisons_reject_what_is_broken(x64):
    x, library = normal(0, 2, 4, 6, 2), lambda x: resized(x, 2, "nearest")
    assert same(nearest_upsample, library, x)
    assert not same(shifted(nearest_upsample), library, x)
    assert not same(flipped_axes(nearest_upsample), library, x)
    assert not same(wrong_gradient, library, x)
    assert not same(fir_upsample, lambda x: resized(x, 2, "bilinear"), x)  # zeros around the images are no edges
    asymmetric = (1, 2, 3, 4)
    assert not same(lambda x: fir_upsample(x, asymmetric[::-1]), lambda x: by_definition(x, asymmetric, 2, True), x)
    assert not same(lambda x: fir_downsample(x, asymmetric[::-1]), lambda x: by_definition(x, asymmetric, 2, False), x)


# Convolution of repeated pixels.


def test_the_convolution_of_repeated_pixels_needs_no_repeats(x64):
    x, kernel = normal(0, 2, 3, 4, 2), normal(1, 3, 3, 2, 5)
    plain = lambda x, k: conv(nearest_upsample(x), k)  # noqa: E731
    for first, second in ((nearest_conv, plain), (jax.grad(total(nearest_conv)), jax.grad(total(plain)))):
        np.testing.assert_allclose(first(x, kernel), second(x, kernel), atol=1e-12)
    gradients = [jax.grad(total(op), 1)(x, kernel) for op in (nearest_conv, plain)]
    np.testing.assert_allclose(*gradients, atol=1e-11)
    assert not np.allclose(nearest_conv(x, kernel[::-1]), plain(x, kernel))
    assert not np.allclose(nearest_conv(x, kernel.swapaxes(0, 1)), plain(x, kernel))


def total(op):
    return lambda x, kernel: jnp.sum(jnp.sin(op(x, kernel)))


# Blocks as channels.


def test_blocks_become_channels_and_back(x64):
    x = jnp.arange(2 * 4 * 6 * 3, dtype=jnp.float64).reshape(2, 4, 6, 3)
    deep = space_to_depth(x, 2)
    assert deep.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(deep[1, 1, 2], x[1, 2:4, 4:6].reshape(-1))
    np.testing.assert_array_equal(depth_to_space(deep, 2), x)
    np.testing.assert_array_equal(space_to_depth(x, 1), x)


# Half precision and arguments that do not fit.


EVERY = [avg_pool, nearest_upsample, bilinear_downsample, bilinear_upsample, fir_downsample, fir_upsample]


@pytest.mark.parametrize("op", EVERY)
def test_half_precision_is_summed_in_float32(op):
    x = normal(0, 2, 8, 8, 3, dtype=jnp.bfloat16)
    out = op(x)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, op(x.astype(jnp.float32)).astype(jnp.bfloat16))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: avg_pool(x, 2), "avg_pool: factor=2 does not divide images of 3x4"),
        (lambda x: bilinear_downsample(x, 3), "factor=3 does not divide"),
        (lambda x: space_to_depth(x, 4), "factor=4 does not divide"),
        (lambda x: depth_to_space(x, 2), "needs channels divisible by 4, got 3"),
        (lambda x: nearest_upsample(x, 0), "factor=0 is out of range; accepted: a positive int"),
        (lambda x: avg_pool(x, 1.5), "factor=1.5 is out of range"),
        (lambda x: avg_pool(x[0]), r"needs floating-point images \[B, H, W, C\]"),
        (lambda x: fir_upsample(x.astype(jnp.int32)), "needs floating-point images"),
        (lambda x: fir_upsample(x, (1, 2, 1)), r"taps=\(1, 2, 1\) do not fit factor=2; accepted: 2 of them or an even"),
        (lambda x: fir_upsample(x, (1,)), "do not fit factor=2"),
        (lambda x: fir_upsample(x, (1, -1)), "with a sum other than zero"),
        (lambda x: nearest_conv(x, jnp.ones((2, 2, 3, 1))), r"needs a kernel \[3, 3, 3, C_out\]"),
    ],
)
def test_bad_arguments_raise_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(jnp.zeros((1, 3, 4, 3)))
    assert "\n" not in str(caught.value)
