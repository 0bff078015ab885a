"""What p(x|z) can be: distributions against scipy, and the way from bytes to data."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from genjax import rng
from genjax.families import likelihoods
from genjax.families.likelihoods import LIKELIHOODS
from genjax.objectives import elbo

GRID = 2.0 * np.arange(256) / 255.0 - 1.0
EVERY_BYTE = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1)


# Bernoulli.


def check_bernoulli(log_prob):
    x, logits = np.array([0.0, 1.0, 1.0, 0.0, 0.25]), np.array([0.3, -2.0, 5.0, 8.0, -1.0])
    p = special.expit(logits)
    expected = x * np.log(p) + (1.0 - x) * np.log1p(-p)
    np.testing.assert_allclose(log_prob(jnp.asarray(x), jnp.asarray(logits)), expected, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(expected[:4], stats.bernoulli.logpmf(x[:4], p[:4]), rtol=1e-9)
    extreme = jnp.array([-100.0, 100.0, 100.0, -100.0])
    np.testing.assert_allclose(log_prob(jnp.array([0.0, 1.0, 0.0, 1.0]), extreme), [0, 0, -100, -100], atol=1e-6)
    gradient = jax.grad(lambda l: log_prob(jnp.array([0.0, 1.0, 0.0, 1.0]), l).sum())(extreme)
    np.testing.assert_allclose(gradient, [0, 0, -1, 1], atol=1e-6)


def test_bernoulli_is_scipys_and_stable():
    check_bernoulli(elbo.bernoulli_log_prob)


@pytest.mark.parametrize(
    "broken",
    [
        lambda x, l: elbo.bernoulli_log_prob(1.0 - x, l),
        lambda x, l: x * l + jax.nn.softplus(l),
        lambda x, l: x * jnp.log(jax.nn.sigmoid(l)) + (1 - x) * jnp.log(1 - jax.nn.sigmoid(l)),  # overflows
        lambda x, l: x * jnp.log(jax.nn.sigmoid(l) + 1e-6) + (1 - x) * jnp.log(1 - jax.nn.sigmoid(l) + 1e-6),
    ],
    ids=["inverted", "sign", "unstable", "clipped"],
)
def test_the_bernoulli_check_rejects(broken):
    with pytest.raises(AssertionError):
        check_bernoulli(broken)


# Discretised logistic.

CASES = [(m, s) for m in (-1.7, -1.0, -0.35, 0.0, 0.501, 1.0, 2.5) for s in (-7.0, -4.0, -1.5, 0.0, 3.0, 9.0)]


def check_logistic(log_prob):
    means, log_scales = (np.array(column)[:, None] for column in zip(*CASES, strict=True))
    with jax.enable_x64(True):
        found = np.asarray(log_prob(*(jnp.asarray(v) for v in np.broadcast_arrays(GRID, means, log_scales))))
    cdf = stats.logistic(means, np.exp(log_scales)).cdf
    lower = np.where(GRID == -1.0, 0.0, cdf(GRID - 1 / 255))
    upper = np.where(GRID == 1.0, 1.0, cdf(GRID + 1 / 255))
    np.testing.assert_allclose(np.exp(found), upper - lower, atol=1e-12)  # the outermost bins hold the tails
    np.testing.assert_allclose(np.exp(found).sum(-1), 1.0, atol=1e-10)
    single = log_prob(*(jnp.asarray(v, jnp.float32) for v in np.broadcast_arrays(GRID, means, log_scales)))
    np.testing.assert_allclose(jnp.exp(single).sum(-1), 1.0, atol=2e-4)
    for argument in (1, 2):  # finite even where the probability underflows
        gradient = jax.grad(lambda *a: log_prob(*a).sum(), argument)(
            *(jnp.asarray(v, jnp.float32) for v in np.broadcast_arrays(GRID, means, log_scales))
        )
        assert jnp.isfinite(gradient).all()
        assert (jnp.abs(gradient[0, -1]) > 0.5).all()  # a far value still pulls


def test_discretized_logistic_is_a_distribution_over_the_256_values():
    check_logistic(elbo.discretized_logistic_log_prob)


def _without_tails(x, mean, log_scale):
    inverse = jnp.exp(-log_scale)
    u, l = inverse * (x - mean + 1 / 255), inverse * (x - mean - 1 / 255)
    return jnp.log(-jnp.expm1(l - u)) - jax.nn.softplus(-u) - jax.nn.softplus(l)


def _difference_of_sigmoids(x, mean, log_scale):
    inverse = jnp.exp(-log_scale)
    u = jnp.where(x > 0.999, 1.0, jax.nn.sigmoid(inverse * (x - mean + 1 / 255)))
    l = jnp.where(x < -0.999, 0.0, jax.nn.sigmoid(inverse * (x - mean - 1 / 255)))
    return jnp.log(jnp.maximum(u - l, 1e-12))


@pytest.mark.parametrize(
    "broken",
    [
        _without_tails,
        _difference_of_sigmoids,
        lambda x, m, s: elbo.discretized_logistic_log_prob(x, m, 0.5 * s),
        lambda x, m, s: elbo.discretized_logistic_log_prob(-x, m, s),
        lambda x, m, s: elbo.discretized_logistic_log_prob(x + 1 / 255, m, s),
    ],
    ids=["no_tails", "clipped_difference", "scale", "mirrored", "half_a_bin"],
)
def test_the_logistic_check_rejects(broken):
    with pytest.raises(AssertionError):
        check_logistic(broken)


def test_logistic_data_is_the_grid_and_its_outputs_are_bounded_below_in_scale():
    model = LIKELIHOODS["discretized_logistic"]
    x = model.data(rng.root(0), EVERY_BYTE)
    np.testing.assert_allclose(np.asarray(x).ravel(), GRID, atol=1e-7)
    assert (x.ravel()[0], x.ravel()[-1]) == (-1.0, 1.0)  # or the edge bins would not be found
    flat, flatter = (jnp.stack([x, jnp.full_like(x, s)], -1) for s in (-7.0, -300.0))
    np.testing.assert_array_equal(model.log_prob(x, flat), model.log_prob(x, flatter))
    assert jnp.isfinite(model.log_prob(-x, flatter)).all()
    assert float(model.bits_per_dim(jnp.array([-256 * math.log(256.0)]), 256)[0]) == pytest.approx(8.0)


# Gaussian.


def check_density(log_prob):
    for mean, logvar in [(0.0, 0.0), (1.2, -3.0), (-0.5, 2.0)]:
        scale = math.exp(0.5 * logvar)
        total, _ = integrate.fixed_quad(
            lambda x, m=mean, v=logvar: np.exp(np.asarray(log_prob(jnp.asarray(x), m, v), np.float64)),
            mean - 10 * scale, mean + 10 * scale, n=80,
        )  # fmt: skip
        assert total == pytest.approx(1.0, abs=1e-5)
        x = mean + scale * np.array([-2.0, 0.5])
        np.testing.assert_allclose(
            log_prob(jnp.asarray(x), mean, logvar), stats.norm.logpdf(x, mean, scale), rtol=1e-5, atol=1e-6
        )


def test_gaussian_is_a_density():
    check_density(elbo.gaussian_log_prob)
    model = LIKELIHOODS["gaussian"]
    outputs = jnp.array([0.4, -0.7])  # a logit of the mean and a log-deviation
    found = model.log_prob(jnp.array(0.3), outputs)
    assert float(found) == pytest.approx(stats.norm.logpdf(0.3, special.expit(0.4), np.exp(-0.7)), rel=1e-5)
    # A uniform density on [0, 1] is 8 bits for 256 values.
    assert float(model.bits_per_dim(jnp.zeros(1), 10)[0]) == pytest.approx(8.0)
    assert float(model.bits_per_dim(jnp.array([10 * math.log(2.0)]), 10)[0]) == pytest.approx(7.0)


@pytest.mark.parametrize(
    "broken",
    [
        lambda x, m, v: elbo.gaussian_log_prob(x, m, 2.0 * v),
        lambda x, m, v: elbo.gaussian_log_prob(x, m, v) + 0.5 * math.log(2 * math.pi),
        lambda x, m, v: elbo.gaussian_log_prob(x, m, v) + 0.5 * v,
    ],
    ids=["deviation", "no_pi", "no_scale"],
)
def test_the_density_check_rejects(broken):
    with pytest.raises(AssertionError):
        check_density(broken)


# From bytes to data.


def check_binarization(binarize):
    draws = np.asarray(jax.jit(jax.vmap(lambda k: binarize(k, EVERY_BYTE)))(jax.random.split(rng.root(0), 4000)))
    assert set(np.unique(draws)) == {0.0, 1.0}
    p = np.arange(256) / 255.0
    share = draws.reshape(4000, 256).mean(0)
    assert (np.abs(share - p) <= 4.5 * np.sqrt(p * (1 - p) / 4000) + 1e-7).all()  # exactly so at 0 and at 255
    # Pixels are independent: their sum varies as little as that of independent coins.
    assert draws.reshape(4000, 256).sum(1).var() == pytest.approx((p * (1 - p)).sum(), rel=0.15)
    first, again, other = (np.asarray(binarize(rng.root(seed), EVERY_BYTE)) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


def test_binarization_draws_each_pixel_anew():
    check_binarization(LIKELIHOODS["bernoulli"].data)


@pytest.mark.parametrize(
    "broken",
    [
        lambda key, image: (image > 127).astype(jnp.float32),
        lambda key, image: likelihoods._binarize(rng.root(0), image),
        lambda key, image: (jax.random.uniform(key, image.shape) * 256.0 < image).astype(jnp.float32),
        lambda key, image: image / 255.0,
        lambda key, image: (jax.random.uniform(key) * 255.0 < image).astype(jnp.float32),  # one draw for all pixels
    ],
    ids=["threshold", "fixed", "256", "grey", "shared"],
)
def test_the_binarization_check_rejects(broken):
    with pytest.raises(AssertionError):
        check_binarization(broken)


def stays_in_its_bin(dequantize, monkeypatch):
    """For every byte, also at the largest and smallest uniform number there are."""
    highest = np.nextafter(np.float32(1.0), np.float32(0.0))
    ok = True
    for noise in (None, 0.0, 0.5, float(highest)):
        with monkeypatch.context() as patch:
            if noise is not None:
                patch.setattr(likelihoods, "_uniform", lambda key, shape, u=noise: jnp.full(shape, u, jnp.float32))
            x = np.asarray(dequantize(rng.root(3), EVERY_BYTE), np.float64).ravel()
        ok &= bool((x >= np.arange(256) / 256).all() and (x < np.arange(1, 257) / 256).all())
    return ok


def test_dequantization_stays_in_its_bin(monkeypatch):
    dequantize = LIKELIHOODS["gaussian"].data
    assert stays_in_its_bin(dequantize, monkeypatch)
    inside = np.asarray(jax.vmap(lambda k: dequantize(k, EVERY_BYTE))(jax.random.split(rng.root(0), 400))) * 256.0
    inside = inside.reshape(400, 256) - np.arange(256)
    assert stats.kstest(inside.ravel(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    "broken",
    [
        lambda key, image: (image.astype(jnp.float32) + likelihoods._uniform(key, image.shape)) / 256.0,  # rounds up
        lambda key, image: (image.astype(jnp.float32) + likelihoods._uniform(key, image.shape)) / 255.0,
        lambda key, image: (image.astype(jnp.float32) + likelihoods._uniform(key, image.shape) - 0.5) / 256.0,
    ],
    ids=["rounded", "255", "centred"],
)
def test_the_dequantization_check_rejects(broken, monkeypatch):
    assert not stays_in_its_bin(broken, monkeypatch)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_data_with_a_key_an_example_does_not_depend_on_the_batch(name):
    model = LIKELIHOODS[name]
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8))
    keys = rng.example_keys(rng.root(0), jnp.arange(5))
    whole = model.data(keys, images)
    np.testing.assert_array_equal(whole[3:], model.data(keys[3:], images[3:]))
    seen = model.network_input(whole)
    assert seen.dtype == jnp.float32 and float(seen.min()) >= -1.0 and float(seen.max()) <= 1.0
    outputs = jnp.asarray(np.random.default_rng(1).normal(size=(*images.shape, model.outputs_per_value)) * 3)
    shown = model.mean(outputs)
    assert shown.shape == images.shape and float(shown.min()) >= 0.0 and float(shown.max()) <= 1.0
    assert model.log_prob(whole, outputs).shape == images.shape
