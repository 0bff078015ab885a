"""Guidance: its arithmetic, its interval, and what it does to Gaussians, for which it is exact."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.processes import PATHS
from genjax.samplers import SAMPLERS
from genjax.samplers.guidance import guide, guided
from tests.mixtures import Mixture, keys_of

PATH = PATHS["edm"]()
STRONG, WEAK = (Mixture((1.0,), (mean,), (0.5,)).denoiser(PATH) for mean in (0.4, -0.1))
X = jnp.linspace(-1.0, 1.0, 4)[:, None]
LEVELS = jnp.array([0.1, 1.0, 2.0, 30.0])


def test_guidance_is_an_extrapolation_from_the_weak_to_the_strong():
    strong, weak = STRONG(X, LEVELS), WEAK(X, LEVELS)
    for scale in (0.0, 1.0, 2.5):
        expected = np.asarray(weak) + scale * (np.asarray(strong) - np.asarray(weak))
        np.testing.assert_allclose(guided(STRONG, WEAK, scale, PATH)(X, LEVELS), expected, atol=1e-6)
        np.testing.assert_allclose(guide(strong, weak, scale, LEVELS), expected, atol=1e-6)
    scales = jnp.arange(4.0)
    each = jnp.stack([guide(strong, weak, s, LEVELS)[i] for i, s in enumerate(scales)])
    np.testing.assert_allclose(guide(strong, weak, scales, LEVELS), each, atol=1e-6)


def test_only_noise_levels_in_the_interval_are_guided():
    denoise = guided(STRONG, WEAK, 3.0, PATH, (0.1, 2.0))  # the lower end does not belong to it, the upper one does
    moved = np.asarray(denoise(X, LEVELS) != STRONG(X, LEVELS))[:, 0]
    assert moved.tolist() == [False, True, True, False]


def test_the_weak_denoiser_is_left_out_where_nobody_needs_it():
    asked = []

    def weak(x, t):
        jax.debug.callback(lambda t: asked.append(float(t[0])), t)
        return WEAK(x, t)

    denoise = jax.jit(guided(STRONG, weak, 3.0, PATH, (0.5, 5.0)))
    for level in (0.1, 1.0, 10.0):
        denoise(X, jnp.full(4, level)).block_until_ready()
    jax.effects_barrier()
    assert asked == [1.0]


def guided_mean(denoise, scale, interval=(0.0, math.inf)):
    """The mean of samples from the guided denoiser, on a grid that ends at small noise."""
    x = 80.0 * jax.random.normal(jax.random.key(0), (4096, 1))
    t = jnp.geomspace(80.0, 0.01, 40)
    run = jax.jit(
        lambda scale, x: SAMPLERS["dpmpp_2m"](num_steps=40)(denoise(scale, interval), PATH, t, x, keys_of(4096))
    )
    samples = run(scale, x)
    assert float(jnp.std(samples)) == pytest.approx(0.5, abs=0.03)
    return float(jnp.mean(samples))


def check_gaussian(denoise):
    # Denoisers of Gaussians with one variance are linear in the mean, so the guided one belongs to the moved mean.
    for scale in (0.0, 1.0, 3.0):
        assert guided_mean(denoise, scale) == pytest.approx(-0.1 + scale * 0.5, abs=0.05)
    assert guided_mean(denoise, 3.0, (0.0, 1e-3)) == pytest.approx(0.4, abs=0.05)


def test_guided_samples_of_gaussians_have_the_moved_mean():
    check_gaussian(lambda scale, interval: guided(STRONG, WEAK, scale, PATH, interval))


@pytest.mark.parametrize(
    "broken",
    [
        lambda scale, interval: guided(WEAK, STRONG, scale, PATH, interval),
        lambda scale, interval: guided(STRONG, WEAK, -scale, PATH, interval),
        lambda scale, interval: guided(STRONG, WEAK, 1.0 + scale, PATH, interval),
        lambda scale, interval: guided(STRONG, WEAK, scale, PATH),
    ],
    ids=["exchanged", "sign_turned", "one_too_many", "no_interval"],
)
def test_gaussians_reject_other_guidance(broken):
    with pytest.raises(AssertionError):
        check_gaussian(broken)


@pytest.mark.parametrize("interval", [(2.0, 1.0), (-1.0, 1.0), (1.0,), (math.nan, 1.0)])
def test_an_interval_is_two_levels(interval):
    with pytest.raises(ValueError, match="interval=.*accepted: two noise levels"):
        guided(STRONG, WEAK, 1.0, PATH, interval)
