"""The log-likelihood of the probability-flow ODE against the densities of mixtures, its estimator against traces."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.processes import PATHS
from genjax.processes.paths import Linear
from genjax.samplers import likelihood
from genjax.samplers.likelihood import bits_per_dim, log_likelihood
from tests.mixtures import Mixture, keys_of

DATA = Mixture()
# alpha is 0 at its end, so the prior is exact there.
LINEAR = Linear(t_min=0.05)
X = np.array([[[-1.0, 0.3], [0.5, -0.4]], [[0.9, 0.6], [-0.7, 0.1]], [[0.2, 1.4], [0.0, -1.5]]])
GRID = np.linspace(0.05, 1.0, 41)


pytestmark = pytest.mark.usefixtures("x64")


def value(path=LINEAR, grid=GRID, x=X, denoise=None, **settings):
    settings, denoise = {"divergence": "exact", **settings}, denoise or DATA.denoiser(path)
    run = jax.jit(lambda t, x, keys: log_likelihood(denoise, path, t, x, keys, **settings))
    return np.asarray(run(grid, x, keys_of(len(x))))


def check_density(value, tolerance=1e-5):
    np.testing.assert_allclose(value, DATA.log_density(LINEAR, 0.05, X), atol=tolerance)


@pytest.mark.parametrize("method", ["rk4", "tsit5", "dopri5"])
def test_the_ode_gives_the_density(method):
    check_density(value(method=method, rtol=1e-7, atol=1e-7))


def test_values_of_one_image_add_up_and_images_are_independent():
    whole = value()
    for i in range(len(X)):
        np.testing.assert_allclose(value(x=X[i : i + 1]), whole[i], atol=1e-9)


@pytest.mark.parametrize("method", ["rk4", "tsit5"])
def test_the_density_may_be_another_for_each_image(method):
    by = np.array([0.0, 0.4, -0.2])[:, None, None]  # as a label moves it

    def moved(x, t):
        return DATA.denoiser(LINEAR)(x - LINEAR.alpha(t)[:, None, None] * by, t) + by

    check_density(value(x=X + LINEAR.alpha(0.05) * by, denoise=moved, method=method, rtol=1e-7, atol=1e-7))


@pytest.mark.parametrize("method, order", [("heun", 2), ("rk4", 4)])
def test_fixed_steps_converge_with_their_order(method, order):
    exact = DATA.log_density(LINEAR, 0.05, X)
    # Points that are dense where the noise is low, a smooth map of equally spaced ones.
    grids = [0.05 * 20.0 ** np.linspace(0.0, 1.0, num) for num in (21, 41)]
    coarse, fine = (np.abs(value(grid=grid, method=method) - exact).max() for grid in grids)
    assert abs(math.log2(coarse / fine) - order) < 0.4


def test_other_paths_are_off_by_what_is_left_of_the_data():
    for name, end, tolerance in (("vp_linear", 1.0, 1e-2), ("edm", 200.0, 1e-2), ("edm", 5000.0, 1e-3)):
        path = PATHS[name]()
        start = float(path.t_of_noise_level(0.05))
        found = value(path, np.array([start, end]), method="tsit5", rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(found, DATA.log_density(path, start, X), atol=tolerance)


BROKEN = {
    "time_shifted": {"denoise": lambda x, t: DATA.denoiser(LINEAR)(x, jnp.minimum(t + 0.02, 1.0))},
    "alpha_missing": {"denoise": lambda x, t: DATA.denoiser(PATHS["edm"]())(x, t)},
    "short_of_the_prior": {"grid": np.linspace(0.05, 0.9, 41)},
    "data_at_another_t": {"grid": np.linspace(0.1, 1.0, 41)},
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_density_rejects_other_models(broken):
    with pytest.raises(AssertionError):
        check_density(value(**BROKEN[broken]), 1e-2)


@pytest.mark.parametrize(
    "target, replacement",
    [
        ("slope", lambda path, t: (lambda p, q: (p, path.d_alpha(t) - p))(*slope(path, t))),
        ("value_and_trace", lambda *args: (lambda v, trace: (v, -trace))(*value_and_trace(*args))),
        ("sum_of", lambda values: jnp.mean(values.reshape(values.shape[0], -1), axis=-1)),
    ],
    ids=["alpha_missing", "divergence_turned", "mean_for_sum"],
)
def test_the_density_rejects_broken_integrals(target, replacement, monkeypatch):
    monkeypatch.setattr(likelihood, target, replacement)
    with pytest.raises(AssertionError):
        check_density(value(), 1e-2)


slope, value_and_trace = likelihood.slope, likelihood.value_and_trace


def test_probes_estimate_the_trace_without_bias():
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(6, 6)))
    x, keys = jnp.ones((4000, 6)), keys_of(4000)

    def estimate(num_probes):
        along = likelihood.directions(keys, x, "hutchinson", num_probes)
        return np.asarray(likelihood.value_and_trace(lambda x, t: x @ matrix.T, x, jnp.array(0.5), along)[1])

    one, four = estimate(1), estimate(4)
    trace = float(jnp.trace(matrix))
    # 2 |symmetric part off the diagonal|^2 is the variance of one Rademacher probe.
    symmetric = 0.5 * (matrix + matrix.T)
    deviation = float(jnp.sqrt(2.0 * (jnp.sum(symmetric**2) - jnp.sum(jnp.diag(symmetric) ** 2))))
    assert one.std() == pytest.approx(deviation, rel=0.1) and four.std() == pytest.approx(deviation / 2, rel=0.1)
    assert one.mean() == pytest.approx(trace, abs=4 * deviation / math.sqrt(4000))
    assert four.mean() == pytest.approx(trace, abs=2 * deviation / math.sqrt(4000))


def test_probes_give_the_likelihood_in_the_mean():
    def mixing(x, t):
        """A denoiser whose Jacobian is not diagonal: the data is Gaussian with correlated values."""
        turn = jnp.array([[0.8, 0.6], [-0.6, 0.8]])
        variance = jnp.array([0.5, 0.05])
        alpha, sigma = LINEAR.alpha(t)[:, None], LINEAR.sigma(t)[:, None]
        gain = alpha * variance / (jnp.square(alpha) * variance + jnp.square(sigma))
        return (gain * (x @ turn.T)) @ turn

    x = np.repeat([[0.4, -0.7]], 1000, axis=0)
    exact = value(denoise=mixing, x=x[:1])[0]
    one = value(denoise=mixing, x=x, divergence="hutchinson")
    four = value(denoise=mixing, x=x, divergence="hutchinson", num_probes=4)
    assert one.std() > 1.7 * four.std() > 0.05
    assert one.mean() == pytest.approx(exact, abs=4 * one.std() / math.sqrt(1000))
    assert four.mean() == pytest.approx(exact, abs=4 * four.std() / math.sqrt(1000))
    adaptive = value(denoise=mixing, x=x[:5], divergence="hutchinson", method="tsit5", num_probes=4)
    np.testing.assert_allclose(adaptive, four[:5], atol=1e-3)  # the same probes


def test_bits_per_dim_of_a_uniform_density_are_eight():
    pixels = 12
    log_prob = jnp.full(3, -pixels * math.log(2.0))  # uniform on [-1, 1]
    np.testing.assert_allclose(bits_per_dim(log_prob, pixels), 8.0, rtol=1e-12)
    # A density that is uniform over one cell knows the byte.
    np.testing.assert_allclose(bits_per_dim(jnp.full(3, pixels * math.log(128.0)), pixels), 0.0, atol=1e-12)
    np.testing.assert_allclose(bits_per_dim(log_prob, pixels, bin_width=2 / 255), math.log2(255), rtol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {"divergence": "none"},
        {"method": "euler"},
        {"num_probes": 0},
        {"method": "tsit5", "rtol": 0.0},
        {"grid": np.array([0.5])},
    ],
)
def test_wrong_settings_are_named_with_what_is_accepted(settings):
    with pytest.raises(ValueError, match=r"accepted: "):
        value(**settings)


def test_float32_and_jit():
    compiled = jax.jit(lambda t, x: log_likelihood(DATA.denoiser(LINEAR), LINEAR, t, x, keys_of(3), num_probes=2))
    found = compiled(jnp.asarray(GRID, jnp.float32), jnp.asarray(X, jnp.float32))
    assert found.dtype == jnp.float32
    # The mixture's Jacobian is diagonal, where a Rademacher probe is exact.
    np.testing.assert_allclose(found, value(), atol=2e-3)
