"""Paths from data to noise: against automatic differentiation, the papers' formulas and float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from genjax import build
from genjax.processes import PATHS, paths
from genjax.types import UserError

ALL = {
    **{name: constructor() for name, constructor in PATHS.items()},
    "vp_linear_flat": PATHS["vp_linear"](beta_min=0.5, beta_max=3.0, t_min=1e-5),
    "vp_cosine_whole": PATHS["vp_cosine"](s=0.1, t_min=1e-4, t_max=1.0),
    "ve_wide": PATHS["ve"](sigma_min=0.001, sigma_max=1000.0),
    "linear_open": PATHS["linear"](t_min=1e-5, t_max=0.999),
}
EVERY_PATH = pytest.mark.parametrize("path", ALL.values(), ids=ALL)
FUNCTIONS = ("alpha", "sigma", "d_alpha", "d_sigma", "noise_level", "log_snr")


pytestmark = pytest.mark.usefixtures("x64")


def inside(path, num=41, dtype=jnp.float64):
    """Values of t in the open range, dense at both ends."""
    low, high = path.t_min, path.t_max
    fraction = np.concatenate([np.geomspace(1e-4, 0.5, num // 2), 1.0 - np.geomspace(0.5, 1e-4, num // 2)[1:]])
    return jnp.asarray(low + (high - low) * fraction, dtype)


# The functions of t.


def check_derivatives(path):
    t = inside(path)
    for value, derivative in [(path.alpha, path.d_alpha), (path.sigma, path.d_sigma)]:
        np.testing.assert_allclose(derivative(t), jax.vmap(jax.grad(value))(t), rtol=1e-9, atol=1e-12)


@EVERY_PATH
def test_derivatives_are_those_of_the_functions(path):
    check_derivatives(path)


def check_noise_level(path):
    t = inside(path)
    r = path.noise_level(t)
    np.testing.assert_allclose(r, path.sigma(t) / path.alpha(t), rtol=1e-11)
    np.testing.assert_allclose(path.log_snr(t), 2.0 * np.log(path.alpha(t) / path.sigma(t)), rtol=1e-9, atol=1e-10)
    assert (np.diff(r) > 0).all() and (np.diff(path.log_snr(t)) < 0).all() and (path.alpha(t) > 0).all()
    np.testing.assert_allclose(path.t_of_noise_level(r), t, rtol=1e-9)


@EVERY_PATH
def test_noise_level_is_the_ratio_and_has_its_inverse(path):
    check_noise_level(path)


def other(path, **methods):
    """``path`` with methods replaced, each ``(path, argument) -> value``."""
    return type("Other", (type(path),), methods)(
        **{f.name: getattr(path, f.name) for f in dataclasses.fields(path) if f.init}
    )


@pytest.mark.parametrize(
    "broken",
    [
        other(ALL["vp_linear"], d_alpha=lambda p, t: -p.beta(t) * p.alpha(t)),
        other(ALL["vp_linear"], integral=lambda p, t: p.beta(t) * t),
        other(ALL["sub_vp"], d_sigma=lambda p, t: paths.VPLinear.d_sigma(p, t)),
        other(ALL["vp_cosine"], d_sigma=lambda p, t: -p.d_alpha(t)),
        other(ALL["ve"], d_sigma=lambda p, t: p.sigma(t)),
        other(ALL["linear"], d_alpha=lambda p, t: jnp.ones_like(t)),
    ],
    ids=["no_half", "no_integral", "vp_slope", "linear_slope", "no_logarithm", "sign"],
)
def test_the_derivatives_reject_others(broken):
    with pytest.raises(AssertionError):
        check_derivatives(broken)


@pytest.mark.parametrize(
    "broken",
    [
        other(ALL["vp_linear"], t_of_noise_level=lambda p, r: p.t_of_integral(jnp.log1p(r))),
        other(ALL["vp_linear"], noise_level=lambda p, t: p.sigma(t)),
        other(ALL["sub_vp"], t_of_noise_level=lambda p, r: paths.VPLinear.t_of_noise_level(p, r)),
        other(ALL["vp_cosine"], t_of_noise_level=lambda p, r: jnp.arctan(r) / p._rate),
        other(ALL["ve"], t_of_noise_level=lambda p, r: jnp.log(r / p.sigma_min)),
        other(ALL["linear"], t_of_noise_level=lambda p, r: r),
        other(ALL["linear"], log_snr=lambda p, t: -jnp.log(p.noise_level(t))),
    ],
    ids=["no_square", "sigma", "vp", "no_offset", "no_rate", "edm", "lambda"],
)
def test_the_noise_level_rejects_others(broken):
    with pytest.raises(AssertionError):
        check_noise_level(broken)


def test_vp_linear_is_the_integral_of_beta_and_the_limit_of_ddpm():
    path = PATHS["vp_linear"]()
    for t in (0.01, 0.3, 1.0):
        integral, _ = integrate.quad(lambda s: 0.1 + 19.9 * s, 0.0, t)
        assert float(path.alpha(t)) == pytest.approx(np.exp(-0.5 * integral), rel=1e-12)
        assert float(path.beta(t)) == pytest.approx(0.1 + 19.9 * t, rel=1e-12)
    # Ho et al. 2020: alpha_bar = prod (1 - beta_i), with N beta_i from 0.1 to 20.
    gaps = []
    for steps in (1000, 2000):
        beta = np.linspace(0.1, 20.0, steps) / steps
        alpha_bar = np.cumprod(1.0 - beta)[steps // 2 - 1]
        gaps.append(abs(alpha_bar - float(path.alpha(0.5)) ** 2))
    assert gaps[0] < 1e-3 and gaps[1] < 0.55 * gaps[0]


@pytest.mark.parametrize("name", ["vp_linear", "vp_linear_flat", "vp_cosine", "vp_cosine_whole"])
def test_variance_is_preserved(name):
    t = inside(ALL[name])
    np.testing.assert_allclose(ALL[name].alpha(t) ** 2 + ALL[name].sigma(t) ** 2, 1.0, rtol=1e-12)


def test_paths_are_the_papers():
    t = np.linspace(0.0, 1.0, 11)
    cosine, s = PATHS["vp_cosine"](t_max=1.0), 0.008
    paper = np.cos((t + s) / (1 + s) * np.pi / 2) ** 2 / np.cos(s / (1 + s) * np.pi / 2) ** 2
    np.testing.assert_allclose(cosine.alpha(t) ** 2, paper, rtol=1e-12, atol=1e-15)
    sub, vp = PATHS["sub_vp"](), PATHS["vp_linear"]()
    np.testing.assert_allclose(sub.alpha(t), vp.alpha(t))
    np.testing.assert_allclose(sub.sigma(t), vp.sigma(t) ** 2, rtol=1e-12)
    ve = PATHS["ve"](sigma_min=0.1, sigma_max=10.0)
    np.testing.assert_allclose(ve.sigma(np.array([0.0, 0.5, 1.0])), [0.1, 1.0, 10.0], rtol=1e-12)
    edm = PATHS["edm"](sigma_min=0.01, sigma_max=3.0)
    assert (edm.t_min, edm.t_max) == (0.01, 3.0)
    np.testing.assert_array_equal(edm.sigma(t), t)
    np.testing.assert_array_equal(edm.alpha(t), np.ones(11))
    linear = PATHS["linear"]()
    np.testing.assert_allclose(linear.alpha(t) + linear.sigma(t), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(linear.sigma(t), t)


def check_single_precision(path):
    """float32 in, float32 out, and as exact as a float32 argument allows, also compiled and mapped."""
    t = inside(path, dtype=jnp.float32)
    exact = np.asarray(t, np.float64)
    for name in FUNCTIONS:
        function = getattr(path, name)
        value = function(t)
        assert value.dtype == jnp.float32 and value.shape == t.shape
        np.testing.assert_allclose(value, function(exact), rtol=2e-5, atol=1e-6 if name == "log_snr" else 0.0)
        np.testing.assert_allclose(jax.jit(jax.vmap(function))(t), value, rtol=2e-5, atol=1e-6)
    back = path.t_of_noise_level(path.noise_level(t))
    assert back.dtype == jnp.float32
    np.testing.assert_allclose(back, t, rtol=1e-5, atol=1e-7 if path.exploding else 0.0)


@EVERY_PATH
def test_single_precision_loses_nothing(path):
    check_single_precision(path)


@pytest.mark.parametrize(
    "broken",
    [
        other(ALL["vp_linear"], sigma=lambda p, t: jnp.sqrt(1.0 - p.alpha(t) ** 2)),
        other(ALL["sub_vp"], sigma=lambda p, t: 1.0 - p.alpha(t) ** 2),
        other(ALL["vp_cosine_whole"], alpha=lambda p, t: jnp.cos(p._rate * (t + p.s)) / np.cos(p._start).item()),
        other(
            ALL["vp_cosine"],
            t_of_noise_level=lambda p, r: jnp.arccos(jnp.cos(p._start) / jnp.hypot(1.0, r)) / p._rate - p.s,
        ),
        other(ALL["vp_linear_flat"], t_of_integral=lambda p, b: (jnp.sqrt(0.25 + 5.0 * b) - 0.5) / 2.5),
        other(ALL["linear"], sigma=lambda p, t: jnp.asarray(t, jnp.float64)),
    ],
    ids=["vp", "sub_vp", "cosine", "arccos", "parabola", "float64"],
)
def test_single_precision_rejects_cancellation(broken):
    with pytest.raises(AssertionError):
        check_single_precision(broken)


@EVERY_PATH
def test_nothing_is_undefined_at_the_ends(path):
    for dtype in (jnp.float32, jnp.float64):
        t = jnp.array([0.0, path.t_min, path.t_max, 1.0], dtype)
        for name in FUNCTIONS:
            assert not np.isnan(getattr(path, name)(t)).any(), name
        assert (path.alpha(t) >= 0).all() and float(path.alpha(0.0)) == pytest.approx(1.0, abs=1e-7)
        assert not np.isnan(path.t_of_noise_level(jnp.array([0.0, jnp.inf], dtype))).any()


@pytest.mark.parametrize("name", ["linear", "vp_cosine_whole"])
def test_where_no_data_is_left_alpha_is_exactly_zero(name):
    for dtype in (jnp.float32, jnp.float64):
        one = jnp.ones((), dtype)
        path = ALL[name]
        assert float(path.alpha(one)) == 0.0 and float(path.noise_level(one)) == np.inf
        assert float(path.t_of_noise_level(path.noise_level(one))) == pytest.approx(1.0, abs=1e-7)


# Images on a path.

RNG = np.random.default_rng(0)
X0, EPS = (RNG.normal(size=(5, 2, 3, 1)) for _ in range(2))


def some(path, dtype=jnp.float64):
    """[5] values of t, the last t_max."""
    return jnp.asarray(path.t_min + (path.t_max - path.t_min) * np.array([0.0, 0.02, 0.3, 0.7, 1.0]), dtype)


def check_forward(forward, velocity):
    path, t = ALL["vp_linear"], some(ALL["vp_linear"])
    x = forward(path, X0, EPS, t)
    for i in range(5):
        np.testing.assert_allclose(x[i], path.alpha(t[i]) * X0[i] + path.sigma(t[i]) * EPS[i], rtol=1e-12)
        np.testing.assert_allclose(forward(path, X0[i], EPS[i], t[i]), x[i], rtol=1e-12)  # a scalar t
    for path in ALL.values():
        t = inside(path)[5:10]
        _, moved = jax.jvp(lambda t, path=path: forward(path, X0, EPS, t), (t,), (jnp.ones_like(t),))
        np.testing.assert_allclose(velocity(path, X0, EPS, t), moved, rtol=1e-9)


def test_velocity_is_the_derivative_of_the_forward_process():
    check_forward(paths.forward, paths.velocity)
    np.testing.assert_allclose(paths.velocity(ALL["linear"], X0, EPS, some(ALL["linear"])), EPS - X0)


@pytest.mark.parametrize(
    "forward, velocity",
    [
        (lambda p, x0, eps, t: paths.forward(p, eps, x0, t), paths.velocity),
        (paths.forward, lambda p, x0, eps, t: -paths.velocity(p, x0, eps, t)),
        (paths.forward, lambda p, x0, eps, t: eps - x0),
        (lambda p, x0, eps, t: paths.forward(p, x0, eps, t[::-1] if t.ndim else t), paths.velocity),
    ],
    ids=["swapped", "turned", "linear_everywhere", "order"],
)
def test_the_forward_check_rejects_others(forward, velocity):
    with pytest.raises(AssertionError):
        check_forward(forward, velocity)


# Settings.


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("vp_linear", {"beta_min": 0.0}, "0 < beta_min < beta_max"),
        ("vp_linear", {"beta_min": 30.0}, "0 < beta_min < beta_max"),
        ("sub_vp", {"t_min": 1.0}, "0 < t_min < t_max <= 1"),
        ("sub_vp", {"t_min": 0.0}, "0 < t_min < t_max <= 1"),
        ("vp_cosine", {"s": 0.0}, "above 0 and below 1"),
        ("vp_cosine", {"t_max": 1.5}, "0 < t_min < t_max <= 1"),
        ("ve", {"sigma_min": 50.0}, "0 < sigma_min < sigma_max"),
        ("edm", {"sigma_max": float("inf")}, "0 < sigma_min < sigma_max"),
        ("edm", {"sigma_min": float("nan")}, "0 < sigma_min < sigma_max"),
        ("edm", {"t_min": 0.1}, "t_min is no setting"),
        ("linear", {"t_min": -0.1}, "0 < t_min < t_max <= 1"),
    ],
)
def test_settings_out_of_range_are_one_line_for_the_user(name, settings, message):
    with pytest.raises(UserError, match=message) as raised:
        build.named("model.path", PATHS, {"name": name, **settings})
    assert "\n" not in str(raised.value) and str(raised.value).startswith("model.path")


def test_settings_make_equal_objects_that_programs_can_be_cached_by():
    for name, constructor in PATHS.items():
        assert build.named("model.path", PATHS, {"name": name}) == constructor()
        assert hash(constructor()) == hash(constructor())
    assert build.named("model.path", PATHS, {"name": "ve", "sigma_max": 90}) != PATHS["ve"]()
