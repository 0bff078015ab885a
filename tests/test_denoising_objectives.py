"""Denoising, MeanFlow and consistency: exact networks reach what the papers' equations say, broken ones do not."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.objectives.consistency import Consistency
from genjax.objectives.denoising import Denoising, Setting
from genjax.objectives.mean_flow import MeanFlow, identity
from genjax.processes import LEVELS, PATHS, PREDICTIONS, WEIGHTINGS
from genjax.processes.paths import EDM, expand, forward
from genjax.processes.predictions import EDMPrediction, Velocity
from genjax.samplers import FlowMapSteps

SHAPE = (2, 3, 1)
MEAN, DEVIATION = 0.3, 0.5  # of the Gaussian data


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


def draws(objective, setting, count=16, step=0):
    keys = jax.random.split(jax.random.key(0), count)
    return jax.vmap(lambda key: objective.draw(setting, key, SHAPE, jnp.asarray(step)))(keys)


def images(count=16):
    return jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (count, *SHAPE)))


def setting(path="linear", prediction="velocity", levels="uniform", weighting="velocity"):
    return Setting(PATHS[path](), PREDICTIONS[prediction](), LEVELS[levels](), WEIGHTINGS[weighting]())


# Pairs that go together everywhere on the path.
PAIRS = [
    (path, prediction)
    for path in PATHS
    for prediction in PREDICTIONS
    if path != "linear" or prediction not in ("eps", "score")
]


@pytest.mark.parametrize("path, prediction", PAIRS)
def test_the_target_has_no_loss_and_an_error_counts_by_the_weight_of_the_image(path, prediction):
    where = setting(path, prediction, "uniform", "x0")
    objective, x0 = Denoising(), images()
    drawn = draws(objective, where)
    t, eps = drawn["t"], drawn["eps"]
    target = where.prediction.target(where.path, x0, eps, t)
    loss, _ = objective.loss(where, lambda x, t: target, x0, drawn)
    np.testing.assert_allclose(loss, 0.0, atol=1e-18)

    wrong = target + 0.1
    loss, metrics = objective.loss(where, lambda x, t: wrong, x0, drawn)
    found = objective.denoised(where, lambda x, t: wrong, forward(where.path, x0, eps, t), t)
    error = np.square(found - x0).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(loss, error, rtol=1e-6)
    np.testing.assert_allclose(metrics["squared_error"], error, rtol=1e-6)


def test_parts_that_do_not_go_together_are_refused():
    good = setting()
    for objective, changed, message in [
        (Denoising(), good._replace(weighting=None), "weighting is missing"),
        (Denoising(), good._replace(levels=None), "levels is missing"),
        (MeanFlow(), good, "weighting is not read"),
        (MeanFlow(), good._replace(weighting=None, prediction=PREDICTIONS["x0"]()), "velocity"),
        (Consistency(total_steps=10), Setting(EDM(), Velocity(), None, None), "edm"),
        (Denoising(), good._replace(prediction=PREDICTIONS["eps"]()), "does not determine x_0"),
    ]:
        with pytest.raises(ValueError, match=message):
            objective.check(changed)


# MeanFlow on data N(MEAN, DEVIATION^2): every value keeps its place in units of the deviation.


def spread(t):
    return jnp.sqrt(jnp.square((1 - t) * DEVIATION) + jnp.square(t))


def exact_map(x, t, s):
    place = (x - expand((1 - t) * MEAN, x)) / expand(spread(t), x)
    return expand((1 - s) * MEAN, x) + expand(spread(s), x) * place


def exact_average(x, t, s):
    return (x - exact_map(x, t, s)) / expand(t - s, x)


def exact_velocity(x, t):
    place = (x - expand((1 - t) * MEAN, x)) / expand(spread(t), x)
    slope = (t - (1 - t) * DEVIATION**2) / spread(t)
    return -MEAN + expand(slope, x) * place


def times(count=16):
    generator = np.random.default_rng(2)
    t = jnp.asarray(generator.uniform(0.3, 0.95, count))
    return t, t * jnp.asarray(generator.uniform(0.1, 0.9, count))


def test_the_identity_holds_for_the_average_of_the_exact_velocity():
    x, (t, s) = images(), times()
    u, target = identity(exact_average, x, exact_velocity(x, t), t, s)
    np.testing.assert_allclose(u, target, atol=1e-10)


def test_the_derivative_along_the_flow_is_that_of_finite_differences():
    x, (t, s), h = images(), times(), 1e-6
    v = exact_velocity(x, t)
    ahead, behind = (exact_average(x + sign * h * v, t + sign * h, s) for sign in (1, -1))
    u, target = identity(exact_average, x, v, t, s)
    np.testing.assert_allclose((v - target) / expand(t - s, x), (ahead - behind) / (2 * h), atol=1e-7)
    np.testing.assert_allclose(u, v - expand(t - s, x) * (ahead - behind) / (2 * h), atol=1e-7)


@pytest.mark.parametrize(
    "broken",
    [
        lambda x, t, s: exact_average(x, t, 0.9 * s),
        lambda x, t, s: -exact_average(x, t, s),
        lambda x, t, s: exact_velocity(x, t),
    ],
    ids=["another time", "another sign", "the velocity itself"],
)
def test_another_field_breaks_the_identity(broken):
    x, (t, s) = images(), times()
    u, target = identity(broken, x, exact_velocity(x, t), t, s)
    assert np.abs(u - target).max() > 1e-2


def test_one_jump_along_the_exact_average_draws_the_data():
    where = setting()._replace(weighting=None)
    noise = jnp.asarray(np.random.default_rng(0).normal(size=(4000, *SHAPE)))
    jump = lambda x, t, s: MeanFlow().flow_map(where, exact_average, x, t, s)  # noqa: E731
    keys = jax.random.split(jax.random.key(0), len(noise))
    drawn = FlowMapSteps(1)(jump, where.path, jnp.ones(1), noise, keys)
    np.testing.assert_allclose(drawn, MEAN + DEVIATION * noise, atol=1e-9)


def test_mean_flow_s_adaptive_weight_and_share_of_pairs():
    where = setting()._replace(weighting=None)
    objective, x0 = MeanFlow(ratio=0.25, power=1.0, constant=1e-3), images(2000)
    drawn = draws(objective, where, 2000)
    assert (drawn["s"] <= drawn["t"]).all()
    assert abs(float((drawn["s"] < drawn["t"]).mean()) - 0.25) < 0.04
    network = lambda x, t, s: jnp.zeros_like(x)  # noqa: E731
    loss, metrics = objective.loss(where, network, x0, drawn)
    total = metrics["squared_error"] * math.prod(SHAPE)
    np.testing.assert_allclose(loss, total / (total + 1e-3), rtol=1e-9)
    plain, _ = dataclasses.replace(objective, power=0.0).loss(where, network, x0, drawn)
    np.testing.assert_allclose(plain, total, rtol=1e-9)


def test_with_s_at_t_mean_flow_is_flow_matching():
    where = setting()
    drawn = draws(Denoising(), where)
    network = lambda x, t, *s: 0.3 * x + expand(t, x)  # noqa: E731
    x0 = images()
    matched, _ = Denoising().loss(where, network, x0, drawn)
    average, _ = MeanFlow(power=0.0).loss(where._replace(weighting=None), network, x0, {**drawn, "s": drawn["t"]})
    np.testing.assert_allclose(average, matched * math.prod(SHAPE), rtol=1e-9)


# Consistency training.

ONE = Setting(EDM(), EDMPrediction(), None, None)


def network_of(function):
    """The raw output F for which the consistency function is ``function``."""

    def network(x, t):
        past, variance = t - ONE.path.t_min, ONE.prediction.sigma_data**2
        skip = variance / (jnp.square(past) + variance)
        out = ONE.prediction.sigma_data * past / jnp.sqrt(variance + jnp.square(t))
        return (function(x, t) - expand(skip, x) * x) / expand(jnp.maximum(out, 1e-12), x)

    return network


def test_the_consistency_function_is_the_identity_at_the_smallest_level():
    objective, x = Consistency(total_steps=100), images()
    found = objective.denoised(ONE, lambda x, t: 7.0 * x, x, jnp.full(16, ONE.path.t_min))
    np.testing.assert_allclose(found, x, atol=1e-12)


@pytest.mark.parametrize("shift, fits", [(0.0, True), (0.1, False)])
def test_the_trajectories_of_a_single_image_are_consistent(shift, fits):
    """Data is one image m: x_t = m + t eps, and the trajectory's end is m + t_min eps."""
    objective, image = Consistency(total_steps=100), images(1)
    drawn = draws(objective, ONE)
    exact = lambda x, t: image + (x - image) * expand(ONE.path.t_min / t ** (1 + shift), x)  # noqa: E731
    loss, _ = objective.loss(ONE, network_of(exact), jnp.broadcast_to(image, (16, *SHAPE)), drawn)
    assert (np.abs(loss).max() < 1e-6) == fits, loss


def test_neighbours_come_with_the_mass_of_the_log_normal_between_them():
    objective, path = Consistency(total_steps=100, start_points=10), ONE.path
    drawn = draws(objective, ONE, 20000)
    rho = 7.0
    grid = (
        path.t_min ** (1 / rho) + np.linspace(0, 1, 11) * (path.t_max ** (1 / rho) - path.t_min ** (1 / rho))
    ) ** rho
    place = np.searchsorted(grid, np.asarray(drawn["s"]) * 1.0001) - 1
    np.testing.assert_allclose(grid[place], drawn["s"], rtol=1e-6)
    np.testing.assert_allclose(grid[place + 1], drawn["t"], rtol=1e-6)
    reach = np.array([math.erf((math.log(value) + 1.1) / (math.sqrt(2) * 2.0)) for value in grid])
    expected = np.diff(reach) / (reach[-1] - reach[0])
    shares = np.bincount(place, minlength=10) / len(place)
    np.testing.assert_allclose(shares, expected, atol=0.015)


def test_the_grid_doubles_its_intervals():
    objective = Consistency(total_steps=800, start_points=10, end_points=1280)
    found = [float(objective.points(jnp.asarray(step, jnp.float32))) for step in (0, 99, 100, 250, 699, 700, 799)]
    assert found == [10, 10, 20, 40, 640, 1280, 1280]
