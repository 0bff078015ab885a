"""Samplers: against exact flows and distributions, with their orders of convergence."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from genjax.processes import PATHS
from genjax.samplers import SAMPLERS, base, deterministic, multistep, stochastic
from tests.mixtures import FIXED, Mixture, draw, function_for, grid, keys_of, make

DATA = Mixture()


pytestmark = pytest.mark.usefixtures("x64")


# Deterministic samplers: the exact flow, and how fast they come near it.

ORDERS = {"ddim": 1, "euler": 1, "heun": 2, "edm_churn": 2, "dpmpp_2m": 2, "dpmpp_2s": 2, "unipc": 3}
SPANS = {"vp_linear": (1.0, 1e-2), "linear": (1.0, 0.05)}


def errors(name, path, span, nums):
    """The largest error at the end of the span, for each number of points."""
    x = np.array([[-1.3], [-0.2], [0.4], [1.1]]) * float(path.sigma(span[0]))
    exact = DATA.flow(path, *span, x)
    found = []
    for num in nums:
        sampler = make(name, num)
        t = grid(path, *span, num)
        ends = draw(sampler, function_for(sampler, path), path, t, x, keys_of(4), final=False)
        found.append(np.abs(ends - exact).max())
    return np.array(found)


def check_order(name, path_name, expected=None):
    found = errors(name, PATHS[path_name](), SPANS[path_name], (65, 129))
    expected = expected or ORDERS[name]
    assert found[-1] < 2.0 * 0.1 ** (1.5 * expected)
    assert abs(math.log2(found[0] / found[1]) - expected) < 0.25


@pytest.mark.parametrize(
    "name, path_name",
    [
        *((name, "vp_linear") for name in ORDERS),
        *((name, "linear") for name in ("heun", "dpmpp_2m", "dpmpp_2s", "unipc")),
    ],
)
def test_deterministic_samplers_converge_to_the_flow_with_their_order(name, path_name):
    check_order(name, path_name)


def without_change(node):
    steps = exponential(node)
    return steps._replace(change=jnp.zeros_like(steps.change))


exponential, transfer, slope, nodes = multistep.exponential, base.transfer, base.slope, base.nodes
two_stages = deterministic.two_stages
BROKEN_ORDERS = {
    "change_left_out": ("dpmpp_2m", "multistep.exponential", without_change),
    "change_not_halved": (
        "dpmpp_2m",
        "multistep.exponential",
        lambda node: exponential(node)._replace(change=2.0 * exponential(node).change),
    ),
    "unipc_without_change": ("unipc", "multistep.exponential", without_change),
    "phi_swapped": ("unipc", "multistep.ratios_of_phi", lambda h: (jnp.full_like(h, 0.5), jnp.full_like(h, 0.5))),
    "alpha_missing_in_euler": (
        "euler",
        "deterministic.slope",
        lambda path, t: (slope(path, t)[0], path.d_alpha(t) - slope(path, t)[0]),
    ),
    "alpha_missing_in_heun": (
        "heun",
        "deterministic.slope",
        lambda path, t: (slope(path, t)[0], path.d_alpha(t) - slope(path, t)[0]),
    ),
    "slope_of_the_sde": ("heun", "deterministic.slope", lambda path, t: tuple(2.0 * v for v in slope(path, t))),
    "alpha_missing_in_ddim": (
        "ddim",
        "stochastic.transfer",
        lambda a, s, a_next, s_next: (transfer(a, s, a_next, s_next)[0], a_next),
    ),
    "next_point_for_this": (
        "dpmpp_2m",
        "multistep.nodes",
        lambda path, t: nodes(path, jnp.append(t[1:], t[-1:])),
    ),
    "second_stage_at_the_start": (
        "heun",
        "deterministic.two_stages",
        lambda num: (two_stages(num)[0], two_stages(num)[1] & False),
    ),
}


@pytest.mark.parametrize("broken", BROKEN_ORDERS)
def test_the_flow_rejects_broken_samplers(broken, monkeypatch):
    name, target, value = BROKEN_ORDERS[broken]
    monkeypatch.setattr(f"genjax.samplers.{target}", value)
    with pytest.raises(AssertionError):
        check_order(name, "vp_linear")


@pytest.mark.parametrize("path_name", PATHS)
def test_every_path_is_followed(path_name):
    path = PATHS[path_name]()
    span = {"edm": (20.0, 0.05), "ve": (0.9, 0.2)}.get(path_name, (0.98, 0.03))
    assert errors("unipc", path, span, (33,))[0] < 5e-3


def test_adaptive_steps_keep_to_their_tolerance():
    path, span = PATHS["vp_linear"](), SPANS["vp_linear"]
    x = np.array([[-1.3], [-0.2], [0.4], [1.1]])
    exact = DATA.flow(path, *span, x)

    def error(**settings):
        sampler = SAMPLERS["adaptive"](**settings)
        ends = draw(sampler, DATA.denoiser(path), path, np.array(span), x, keys_of(4), final=False)
        return np.abs(ends - exact).max()

    for method in ("tsit5", "dopri5"):
        assert error(method=method, rtol=1e-7, atol=1e-7) < 3e-6
    assert 3e-6 < error(rtol=1e-3, atol=1e-3) < 3e-2


def test_an_image_that_needs_too_many_steps_is_nan_and_the_others_are_not():
    def denoise(x, t):  # wild where x is positive, and constant elsewhere
        return jnp.where(x > 0, 0.5 + 0.4 * jnp.sin(100.0 * x), -0.5)

    path, x = PATHS["vp_linear"](), jnp.array([[0.4], [-0.4]])

    def ends(max_steps):
        sampler = SAMPLERS["adaptive"](max_steps=max_steps)
        return draw(sampler, denoise, path, np.array([1.0, 1e-2]), x, keys_of(2), final=False)

    few, many = ends(40), ends(1000)
    assert np.isnan(few[0, 0]) and few[1, 0] == many[1, 0]
    assert np.isfinite(many).all()


def test_an_exact_flow_map_needs_one_step():
    path, x = PATHS["linear"](), jnp.linspace(-2.0, 2.0, 5)[:, None]
    flow_map = function_for(SAMPLERS["flow_map"], path)
    samples = [
        draw(make("flow_map", num), flow_map, path, np.linspace(1.0, 0.1, num), x, keys_of(5)) for num in (1, 3, 8)
    ]
    np.testing.assert_allclose(samples[0], 0.3 + 0.4 * x, atol=1e-12)
    for sample in samples[1:]:
        np.testing.assert_allclose(sample, samples[0], atol=1e-12)
    with pytest.raises(AssertionError):  # a map that is not told where to go
        t = np.linspace(1.0, 0.1, 3)
        stuck = draw(make("flow_map", 3), lambda x, t, s: flow_map(x, t, t), path, t, x, keys_of(5))
        np.testing.assert_allclose(stuck, samples[0], atol=1e-12)


# The last step is the denoiser's.


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in ("flow_map", "unipc")])
def test_the_last_step_is_the_denoised_image(name):
    path = PATHS["vp_linear"]()
    sampler, denoise = make(name, 4), DATA.denoiser(path)
    t = grid(path, 0.9, 0.2, sampler.points)
    x = jax.random.normal(jax.random.key(1), (3, 2))

    @jax.jit
    def both(x, keys):
        before = sampler(denoise, path, t, x, keys, final=False)
        return before, denoise(before, jnp.full(3, t[-1])), sampler(denoise, path, t, x, keys)

    before, denoised, after = both(x, keys_of(3))
    np.testing.assert_allclose(after, denoised, atol=1e-12)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(after, before, atol=1e-2)


@pytest.mark.parametrize("name", [name for name in FIXED if name != "flow_map"])
def test_one_step_is_the_denoiser(name):
    path, x = PATHS["vp_linear"](), jax.random.normal(jax.random.key(1), (3, 2))
    sampler, denoise = make(name, 1), DATA.denoiser(path)
    np.testing.assert_allclose(
        draw(sampler, denoise, path, jnp.array([0.4]), x, keys_of(3)), denoise(x, jnp.full(3, 0.4)), rtol=1e-12
    )


# Stochastic samplers: what a step does to a point and to its noise, and the distribution at the end.


def one_step(name, path, t, s, monkeypatch, **settings):
    """(keep, pull, push) of x' = keep x + pull D + push z between two points, read off the sampler itself."""

    sampler = make(name, 2, **settings)

    @jax.jit
    def probe(x, clean, z):
        for module in ("base", "deterministic", "stochastic"):
            monkeypatch.setattr(f"genjax.samplers.{module}.step_noise", lambda keys, step, like: jnp.full_like(like, z))
        x = jnp.full((1, 1), x)
        return sampler(lambda x, t: jnp.full_like(x, clean), path, jnp.array([t, s]), x, keys_of(1), final=False)[0, 0]

    return float(probe(1.0, 0.0, 0.0)), float(probe(0.0, 1.0, 0.0)), float(probe(0.0, 0.0, 1.0))


def check_marginal(name, path, t, s, monkeypatch, **settings):
    """If the data is a point, x_t ~ N(alpha c, sigma^2) has to become x_s with its own alpha and sigma, exactly."""
    keep, pull, push = one_step(name, path, t, s, monkeypatch, **settings)
    np.testing.assert_allclose(keep * path.alpha(t) + pull, path.alpha(s), rtol=1e-10)
    np.testing.assert_allclose(math.hypot(keep * float(path.sigma(t)), push), path.sigma(s), rtol=1e-10)
    return push


@pytest.mark.parametrize("path_name", PATHS)
@pytest.mark.parametrize(
    "name, settings",
    [("ddim", {}), ("ddim", {"eta": 0.4}), ("ddim", {"eta": 1.0}), ("ancestral", {}), ("multistep_consistency", {})],
    ids=["ddim", "ddim_eta", "ddim_1", "ancestral", "consistency"],
)
def test_a_step_keeps_the_marginals_of_a_point(path_name, name, settings, monkeypatch):
    path = PATHS[path_name]()
    middle = 0.3 * path.t_max
    push = check_marginal(name, path, path.t_max, middle, monkeypatch, **settings)
    check_marginal(name, path, middle, 0.1 * middle, monkeypatch, **settings)
    assert (push > 0.0) == (settings != {} or name != "ddim")


def test_the_marginals_reject_other_steps(monkeypatch):
    path = PATHS["vp_linear"]()
    with pytest.raises(AssertionError):
        check_marginal("ancestral", path, 1.0, 0.3, monkeypatch, variance="forward")
    with pytest.raises(AssertionError):
        check_marginal("euler", path, 0.6, 0.3, monkeypatch)
    for broken in (lambda node: jnp.sqrt(lost(node)), lambda node: 0.5 * lost(node)):
        monkeypatch.setattr(stochastic, "lost", broken)
        with pytest.raises(AssertionError):
            check_marginal("ancestral", path, 0.6, 0.3, monkeypatch)


lost = stochastic.lost


def test_ancestral_sampling_is_ddim_with_eta_one(monkeypatch):
    for path_name in PATHS:
        path = PATHS[path_name]()
        steps = [
            one_step(name, path, path.t_max, 0.3 * path.t_max, monkeypatch, **settings)
            for name, settings in (("ancestral", {}), ("ddim", {"eta": 1.0}))
        ]
        np.testing.assert_allclose(steps[0], steps[1], rtol=1e-10)


def samples_of(name, num_steps, path, data=DATA, function=None, seed=0, **settings):
    """8192 values drawn from the exact distribution at the first point of a grid."""
    # The last step makes means of what x_t may have been, so the lowest level is far below the data's finest scale.
    t = grid(path, 0.995 * path.t_max, float(path.t_of_noise_level(0.01)), num_steps)
    key_noise, key_data, key_part = jax.random.split(jax.random.key(seed), 3)
    part = jax.random.choice(key_part, len(data.weights), (512, 16), p=jnp.array(data.weights))
    x0 = jnp.array(data.means)[part] + jnp.array(data.scales)[part] * jax.random.normal(key_data, (512, 16))
    x = path.alpha(t[0]) * x0 + path.sigma(t[0]) * jax.random.normal(key_noise, (512, 16))
    sampler = make(name, num_steps, **settings)
    return draw(sampler, function or data.denoiser(path), path, t, x, keys_of(512, seed)).ravel()


def check_distribution(samples, data=DATA):
    mean, deviation = data.moments()
    assert abs(samples.mean() - mean) < 4 * deviation / math.sqrt(samples.size)
    assert abs(samples.std() / deviation - 1.0) < 0.03

    def cdf(x):
        return sum(w * stats.norm.cdf(x, m, s) for w, m, s in zip(data.weights, data.means, data.scales, strict=True))

    assert stats.kstest(samples, cdf).statistic < 0.02


@pytest.mark.parametrize(
    "name, num_steps, settings",
    [
        ("ancestral", 200, {}),
        ("ancestral", 400, {"variance": "forward"}),
        ("ddim", 200, {"eta": 0.7}),
        ("edm_churn", 40, {"s_churn": 10.0, "s_max": 20.0}),
        ("predictor_corrector", 400, {"snr": 0.03}),  # its steps are not corrected for their size
        ("adaptive", 2, {}),
        ("unipc", 30, {}),
    ],
    ids=["ancestral", "ancestral_forward", "ddim", "edm_churn", "predictor_corrector", "adaptive", "unipc"],
)
def test_samples_have_the_distribution_of_the_data(name, num_steps, settings):
    path = PATHS["edm" if name == "edm_churn" else "vp_linear"]()
    check_distribution(samples_of(name, num_steps, path, **settings))


def test_the_distribution_rejects_noise_that_is_too_small_or_from_the_same_key(monkeypatch):
    path, step_noise = PATHS["vp_linear"](), base.step_noise
    for broken in (
        lambda keys, step, like: 0.9 * step_noise(keys, step, like),
        lambda keys, step, like: step_noise(keys, 0, like),
        lambda keys, step, like: step_noise(jnp.broadcast_to(keys[:1], keys.shape), step, like),
    ):
        monkeypatch.setattr(base, "step_noise", broken)
        with pytest.raises(AssertionError):
            check_distribution(samples_of("ancestral", 200, path))


def test_consistency_sampling_keeps_the_distribution_at_any_number_of_steps():
    data, path = Mixture((1.0,), (0.3,), (0.4,)), PATHS["edm"]()

    def ends(x, t):
        """Where the trajectories of a Gaussian end."""
        t = t[:, None]
        return 0.3 + 0.4 * (x - 0.3 * path.alpha(t)) / jnp.hypot(0.4 * path.alpha(t), path.sigma(t))

    for num_steps in (1, 2, 5):
        check_distribution(samples_of("multistep_consistency", num_steps, path, data, ends), data)
    with pytest.raises(AssertionError):  # a denoiser gives means, not members, of what x_t may have been
        check_distribution(samples_of("multistep_consistency", 2, path, data), data)


# UniPC's coefficients.


def test_ratios_of_phi_are_the_integrals():
    def integral(k, z):  # phi_k(z), the integral over [0, 1] of e^((1 - u) z) u^(k - 1) / (k - 1)!
        return integrate.quad(
            lambda u: math.exp((1 - u) * z) * u ** (k - 1) / math.factorial(k - 1), 0, 1, epsabs=1e-14
        )[0]

    def check(ratios, dtype, tolerance):
        h = np.array([1e-6, 1e-3, 0.1, 0.7, 0.999, 1.0, 1.001, 3.0, 20.0])
        one, two, three = (np.array([integral(k, -step) for step in h]) for k in (1, 2, 3))
        found = ratios(jnp.asarray(h, dtype))
        np.testing.assert_allclose(found[0], two / one, rtol=tolerance)
        np.testing.assert_allclose(found[1], 2 * three / one, rtol=tolerance)

    check(multistep.ratios_of_phi, jnp.float64, 1e-12)
    check(multistep.ratios_of_phi, jnp.float32, 2e-6)
    for limit, value in ((0.0, (1 / 2, 1 / 3)), (jnp.inf, (1.0, 1.0))):
        np.testing.assert_allclose(jnp.array(multistep.ratios_of_phi(jnp.full(1, limit)))[:, 0], value, rtol=1e-12)

    def by_definition(h):
        one = -jnp.expm1(-h) / h
        two = (1 - one) / h
        return two / one, 2 * (0.5 - two) / h / one

    with pytest.raises(AssertionError):  # the definition has no digits left at small steps
        check(by_definition, jnp.float32, 2e-6)
