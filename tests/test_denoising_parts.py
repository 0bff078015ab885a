"""What denoising networks are made of: normalisation, attention and embeddings, each against its definition."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from genjax.networks import dit as transformer
from genjax.networks.dense import Dense
from genjax.networks.embeddings import fourier, noise_features, positional, rotary_grid, rotate, sincos_grid
from genjax.ops.attention import attention
from genjax.ops.norm import group_norm

KEY = jax.random.key(0)


def normal(seed, *shape, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


# Parts: normalisation and attention.


def gradients(op, *arguments):
    def both(*arguments):
        out, pull = jax.vjp(op, *arguments)
        return out, *pull(jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape))

    return jax.jit(both)(*arguments)


def agree(ours, theirs, *arguments, tolerance=1e-10):
    """Whether values and all gradients agree."""
    pairs = zip(gradients(ours, *arguments), gradients(theirs, *arguments), strict=True)
    return all(a.shape == b.shape and np.allclose(a, b, rtol=0, atol=tolerance) for a, b in pairs)


def flax_norm(groups, eps=1e-6):
    module = nn.GroupNorm(groups, epsilon=eps, use_fast_variance=False, param_dtype=jnp.float64)
    return lambda x, scale, bias: module.apply({"params": {"scale": scale, "bias": bias}}, x)


@pytest.mark.parametrize("platform", ["cpu", "default"])
def test_group_norm_equals_flax(x64, platform, monkeypatch):
    monkeypatch.setattr(lax, "platform_dependent", lambda x, **branches: branches[platform](x))
    shapes = (3, 4, 5, 12), (12,), (12,)
    x, scale, bias = (normal(i, *shape, dtype=np.float64) for i, shape in enumerate(shapes))
    for groups in (1, 3, 12):
        ours = lambda x, s, b, groups=groups: group_norm(x, s, b, groups=groups)  # noqa: E731
        assert agree(ours, flax_norm(groups), 2 + x, scale, bias)
        assert not agree(ours, flax_norm(2), 2 + x, scale, bias)
        by_image = (jnp.broadcast_to(a, (3, 12)) for a in (scale, bias))
        np.testing.assert_allclose(ours(2 + x, *by_image), ours(2 + x, scale, bias), atol=1e-12)
    assert not agree(ours, flax_norm(12, eps=1e-5), 2 + x, scale, bias)
    with pytest.raises(ValueError, match="groups=5 does not divide 12 channels"):
        group_norm(x, scale, bias, groups=5)


def test_group_norm_in_half_precision_has_statistics_in_float32():
    x = 10 + normal(0, 2, 32, 32, 8, dtype=jnp.bfloat16)
    one, zero = jnp.ones(8), jnp.zeros(8)
    out = group_norm(x, one, zero, groups=2)
    exact = group_norm(x.astype(jnp.float32), one, zero, groups=2)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), exact, rtol=2**-7, atol=2**-7)


def test_layer_and_rms_norm_equal_flax(x64):
    x = 3 + normal(0, 2, 3, 8, dtype=np.float64)
    layer = lambda x: nn.LayerNorm(use_bias=False, use_scale=False, use_fast_variance=False).apply({}, x)  # noqa: E731
    rms = lambda x: nn.RMSNorm(use_scale=False).apply({}, x)  # noqa: E731
    ours = {kind: lambda x, kind=kind: transformer.normalize(x, kind) for kind in transformer.NORMS}
    assert agree(ours["layer"], layer, x) and agree(ours["rms"], rms, x)
    assert not agree(ours["layer"], rms, x) and not agree(ours["rms"], layer, x)
    assert transformer.normalize(x.astype(jnp.bfloat16), "layer").dtype == jnp.bfloat16


def attention_by_definition(q, k, v, scale=None):
    logits = jnp.einsum("bnhd,bmhd->bhnm", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return jnp.einsum("bhnm,bmhd->bnhd", jax.nn.softmax(logits), v)


def test_attention_is_its_definition(x64):
    q, k, v = (3 * normal(i, 2, n, 3, 4, dtype=np.float64) for i, n in enumerate((5, 6, 6)))
    assert agree(attention, attention_by_definition, q, k, v)
    assert not agree(attention, lambda q, k, v: attention_by_definition(q, k, v, scale=1.0), q, k, v)
    assert not agree(attention, lambda q, k, v: attention_by_definition(q, k, v[:, ::-1]), q, k, v)
    far = attention(1e4 * q, 1e4 * k, v)
    np.testing.assert_allclose(far, attention_by_definition(1e4 * q, 1e4 * k, v), atol=1e-10)
    with pytest.raises(ValueError, match="attention: needs q"):
        attention(q, k, v[:, :5])


def test_attention_in_half_precision_is_summed_in_float32():
    one = jnp.ones((1, 1024, 2, 4), jnp.bfloat16)  # a bfloat16 sum of ones stops at 256
    assert (attention(one, one, one) == 1).all() and attention(one, one, one).dtype == jnp.bfloat16


def test_a_dense_layer_of_many_axes_equals_flax(x64):
    x = normal(0, 2, 3, 4, 5, dtype=np.float64)
    ours, theirs = Dense(6, param_dtype=jnp.float64), nn.Dense(6, param_dtype=jnp.float64)
    params = ours.init(KEY, x)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, theirs.init(KEY, x))
    assert agree(lambda x, k: ours.apply({"params": {"kernel": k, "bias": params["params"]["bias"]}}, x),
                 lambda x, k: x @ k, x, params["params"]["kernel"])  # fmt: skip


# Parts: embeddings.


def test_positional_features_are_cosines_and_sines():
    x = np.array([[0.0, 0.5], [3.0, -20.0]], np.float32)
    for endpoint, lowest in ((True, 1e-4), (False, 1e-3)):
        frequencies = np.geomspace(1, lowest, 4)
        expected = np.concatenate([np.cos(x[..., None] * frequencies), np.sin(x[..., None] * frequencies)], -1)
        np.testing.assert_allclose(positional(jnp.asarray(x), 8, endpoint=endpoint), expected, atol=1e-5)
        assert not np.allclose(positional(jnp.asarray(x), 8, endpoint=not endpoint), expected, atol=1e-3)
    features = noise_features(jnp.asarray(x), 8)
    np.testing.assert_array_equal(features[:, 8:], noise_features(jnp.asarray(x[:, 1:]), 8))


def test_fourier_features_have_fixed_gaussian_frequencies():
    slope = jax.vmap(jax.jacobian(lambda x: fourier(x, 2000)))(jnp.zeros(1))[0, 1000:]  # d sin(2 pi f x) / dx at 0
    frequencies = np.asarray(slope) / (2 * np.pi)
    assert abs(frequencies.std() - 16) < 1 and abs(frequencies.mean()) < 2
    np.testing.assert_array_equal(fourier(jnp.ones(1), 16), fourier(jnp.ones(1), 16))
    assert fourier(jnp.ones(3), 16, scale=1.0).shape == (3, 16)


def test_positions_of_a_grid_are_all_different_and_tell_row_and_column():
    table = sincos_grid(3, 5, 8)
    assert table.shape == (15, 8) and table.dtype == np.float32
    grid = table.reshape(3, 5, 8)
    assert (grid[:, :, :4] == grid[:1, :, :4]).all() and (grid[:, :, 4:] == grid[:, :1, 4:]).all()
    waves = [wave(place * np.array([1.0, 0.01])) for place in (4, 2) for wave in (np.sin, np.cos)]
    np.testing.assert_allclose(grid[2, 4], np.concatenate(waves), atol=1e-6)
    assert len(np.unique(table.round(5), axis=0)) == 15


def products_depend_on_distance(turns):
    """Whether one query and key, turned to any two places of a 4x4 grid, have a product that is their offset's."""
    q, k = (jnp.broadcast_to(normal(i, 8), (1, 16, 1, 8)) for i in (0, 1))
    products = np.asarray(jnp.einsum("bnhd,bmhd->nm", rotate(q, turns), rotate(k, turns))).reshape(4, 4, 4, 4)
    right = np.allclose(products[:, :3, :, :3], products[:, 1:, :, 1:], atol=1e-4)
    down = np.allclose(products[:3, :, :3], products[1:, :, 1:], atol=1e-4)
    return right and down and not np.allclose(products[0, 0], products[0, 0, 0, 0], atol=1e-2)


def test_rotary_products_depend_on_the_distance_alone():
    turns = jnp.asarray(rotary_grid(4, 4, 8))
    assert products_depend_on_distance(turns)
    assert not products_depend_on_distance(jnp.stack([turns[0], turns[0]]))
    assert not products_depend_on_distance(turns**2)
    assert not products_depend_on_distance(jnp.ones_like(turns) * jnp.array([1.0, 0.0])[:, None, None])  # no turns
    before = rotary_grid(4, 4, 8, before=2)
    np.testing.assert_array_equal(before[:, 2:], turns)
    np.testing.assert_array_equal(before[:, :2], np.broadcast_to([[[1.0]], [[0.0]]], (2, 2, 4)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: positional(jnp.ones(1), 5), "channels=5 must be even and at least 4"),
        (lambda: fourier(jnp.ones(1), 0), "channels=0 is too small"),
        (lambda: noise_features(jnp.ones(2), 4), r"must have the shape \[B, K\]"),
        (lambda: noise_features(jnp.ones((2, 1)), 4, "learned"), "accepted: positional, fourier"),
        (lambda: sincos_grid(2, 2, 6), "divisible by 4, got 6"),
        (lambda: rotary_grid(2, 2, 6), "divisible by 4, got 6"),
    ],
)  # fmt: skip
def test_embeddings_that_do_not_fit_raise_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()
