"""Predictions: estimates against targets, the exact posterior of Gaussian data, and the papers' preconditioning."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import build
from genjax.processes import PATHS, PREDICTIONS, paths, predictions
from genjax.types import UserError

ALL = {
    **{name: constructor() for name, constructor in PATHS.items()},
    "vp_cosine_whole": PATHS["vp_cosine"](s=0.1, t_min=1e-4, t_max=1.0),
    "ve_wide": PATHS["ve"](sigma_min=0.001, sigma_max=1000.0),
    "linear_open": PATHS["linear"](t_min=1e-5, t_max=0.999),
}
EVERY_PATH = pytest.mark.parametrize("path", ALL.values(), ids=ALL)
EVERY_PREDICTION = pytest.mark.parametrize("prediction", [c() for c in PREDICTIONS.values()], ids=list(PREDICTIONS))
RNG = np.random.default_rng(0)
X0, EPS = (RNG.normal(size=(5, 2, 3, 1)) for _ in range(2))


pytestmark = pytest.mark.usefixtures("x64")


def some(path, last=1.0):
    """[5] values of t, the last at this fraction of the range."""
    return jnp.asarray(path.t_min + (path.t_max - path.t_min) * np.array([0.0, 0.02, 0.3, 0.7, last]))


def check_inverse(prediction, path):
    t = some(path)
    x = paths.forward(path, X0, EPS, t)
    output = prediction.target(path, X0, EPS, t)
    gone, here = np.asarray(path.alpha(t)) == 0, slice(None)
    if gone.any() and isinstance(prediction, predictions.Eps | predictions.Score):
        assert (np.asarray(prediction.denoised(path, output, x, t))[gone] == 0).all()
        here = ~gone
    np.testing.assert_allclose(prediction.denoised(path, output, x, t)[here], X0[here], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(prediction.noise(path, output, x, t), EPS, rtol=1e-7, atol=1e-7)


@EVERY_PATH
@EVERY_PREDICTION
def test_estimates_invert_the_target(prediction, path):
    check_inverse(prediction, path)


def check_weight(prediction, path):
    """c_out by moving the output by 1: the estimate is linear in it."""
    t = some(path, last=0.999)
    x = paths.forward(path, X0, EPS, t)
    moved = prediction.denoised(path, jnp.ones_like(x), x, t) - prediction.denoised(path, jnp.zeros_like(x), x, t)
    weight = prediction.output_weight(path, t)
    assert weight.shape == t.shape
    np.testing.assert_allclose(weight, 1.0 / np.square(moved[:, 0, 0, 0]), rtol=1e-6)


@EVERY_PATH
@EVERY_PREDICTION
def test_output_weight_is_the_inverse_square_of_the_outputs_factor(prediction, path):
    check_weight(prediction, path)


def wrong(name, **methods):
    return type("Wrong", (PREDICTIONS[name],), methods)()


BROKEN_ESTIMATES = {
    "score_sign": ("vp_linear", wrong("score", target=lambda s, p, x0, e, t: e / paths.expand(p.sigma(t), e))),
    "v_of_vp": (
        "linear",
        wrong("v", denoised=lambda s, p, f, x, t: paths.expand(p.alpha(t), x) * x - paths.expand(p.sigma(t), x) * f),
    ),
    "velocity_of_linear": (
        "vp_cosine",
        wrong("velocity", denoised=lambda s, p, f, x, t: x - paths.expand(t, x) * f),
    ),
    "velocity_turned": ("linear", wrong("velocity", target=lambda s, p, x0, e, t: x0 - e)),
    "edm_without_alpha": (
        "vp_linear",
        wrong("edm", denoised=lambda s, p, f, x, t: PREDICTIONS["edm"]().denoised(PATHS["edm"](), f, x, p.sigma(t))),
    ),
    "eps_without_alpha": ("linear", wrong("eps", denoised=lambda s, p, f, x, t: x - paths.expand(p.sigma(t), x) * f)),
    "edm_sigma_data": (
        "edm",
        wrong("edm", target=lambda s, p, x0, e, t: PREDICTIONS["edm"](sigma_data=1.0).target(p, x0, e, t)),
    ),
}


@pytest.mark.parametrize("path, prediction", BROKEN_ESTIMATES.values(), ids=BROKEN_ESTIMATES)
def test_the_inverse_rejects_others(path, prediction):
    with pytest.raises(AssertionError):
        check_inverse(prediction, ALL[path])


@pytest.mark.parametrize("factor", [lambda p, t: p.alpha(t), lambda p, t: p.sigma(t)], ids=["alpha", "sigma"])
@EVERY_PREDICTION
def test_the_weight_rejects_others(prediction, factor):
    weight = lambda self, p, t: factor(p, t) * prediction.output_weight(p, t)  # noqa: E731
    with pytest.raises(AssertionError):
        check_weight(type("Wrong", (type(prediction),), {"output_weight": weight})(), ALL["vp_linear"])


KINDS = [name for name in PREDICTIONS if name != "edm"]


def check_conversion(convert):
    for path, (source, target) in itertools.product(ALL.values(), itertools.product(KINDS, KINDS)):
        t = some(path, last=0.9)
        x = paths.forward(path, X0, EPS, t)
        value, wanted = (PREDICTIONS[kind]().target(path, X0, EPS, t) for kind in (source, target))
        size = float(jnp.abs(wanted).max())
        got = convert(path, value, x, t, source, target)
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-9 * size, err_msg=f"{path} {source} {target}")
        # of a value that is no target of anything: there and back
        value = jnp.cos(jnp.arange(x.size)).reshape(x.shape)
        back = convert(path, convert(path, value, x, t, source, target), x, t, target, source)
        np.testing.assert_allclose(back, value, rtol=1e-6, atol=1e-6)


def test_conversions_agree_with_the_targets_and_go_there_and_back():
    check_conversion(predictions.convert)


@pytest.mark.parametrize(
    "broken",
    [
        lambda p, v, x, t, a, b: v,
        lambda p, v, x, t, a, b: predictions.convert(p, v, x, t, b, a),
        lambda p, v, x, t, a, b: (-1.0 if b == "score" else 1.0) * predictions.convert(p, v, x, t, a, b),
    ],
    ids=["nothing", "backwards", "score_sign"],
)
def test_the_conversion_check_rejects_others(broken):
    with pytest.raises(AssertionError):
        check_conversion(broken)


def test_a_conversion_keeps_what_alpha_zero_leaves():
    path, t = ALL["linear"], jnp.ones(5)
    score = predictions.convert(path, EPS, EPS, t, "eps", "score")
    np.testing.assert_allclose(score, -EPS)
    np.testing.assert_allclose(predictions.convert(path, score, EPS, t, "score", "eps"), EPS)
    with pytest.raises(ValueError, match="'epsilon' is unknown; accepted: eps, x0, v, velocity, score"):
        predictions.convert(path, EPS, EPS, t, "epsilon", "x0")


@EVERY_PREDICTION
def test_a_prediction_of_the_noise_alone_needs_a_path_that_keeps_some_data(prediction):
    assert prediction.needs_data == (type(prediction) in (predictions.Eps, predictions.Score))
    for path in ALL.values():
        if prediction.needs_data and float(path.alpha(path.t_max)) == 0:
            with pytest.raises(ValueError, match="does not determine x_0 at t = 1.0; accepted: t_max below 1"):
                prediction.check(path)
        else:
            prediction.check(path)


# Gaussian data x_0 ~ N(m, s^2), where posterior mean and score have closed forms.

MEAN, STD = 0.3, 0.6
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(8)


def check_score(prediction, path):
    """The mean of the target given x_t is the best output; from it come the exact posterior mean and score."""
    t = some(path)[:4]
    alpha, sigma = (np.asarray(f(t))[:, None] for f in (path.alpha, path.sigma))
    variance = (alpha * STD) ** 2 + sigma**2
    x = alpha * MEAN + np.sqrt(variance) * np.array([-1.5, 0.0, 2.0])
    mean = MEAN + alpha * STD**2 / variance * (x - alpha * MEAN)
    deviation = STD * sigma / np.sqrt(variance)
    output = 0.0
    for node, weight in zip(NODES, WEIGHTS / WEIGHTS.sum(), strict=True):
        x0 = mean + deviation * node
        output += weight * prediction.target(path, jnp.asarray(x0), jnp.asarray((x - alpha * x0) / sigma), t)
    x = jnp.asarray(x)
    denoised = prediction.denoised(path, output, x, t)
    np.testing.assert_allclose(denoised, mean, rtol=1e-7, atol=1e-9)
    score = -(x - alpha * MEAN) / variance
    eps = prediction.noise(path, output, x, t)
    np.testing.assert_allclose(-eps / sigma, score, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(predictions.convert(path, denoised, x, t, "x0", "score"), score, rtol=1e-4, atol=1e-4)


@EVERY_PATH
@EVERY_PREDICTION
def test_the_best_output_gives_the_exact_score(prediction, path):
    check_score(prediction, path)


@pytest.mark.parametrize("path, prediction", BROKEN_ESTIMATES.values(), ids=BROKEN_ESTIMATES)
def test_the_exact_score_rejects_others(path, prediction):
    with pytest.raises(AssertionError):
        check_score(prediction, ALL[path])


# Preconditioning.


def check_edm(prediction):
    path, sd = PATHS["edm"](), 0.5
    sigma = np.geomspace(0.002, 80.0, 9)
    t, one, zero = jnp.asarray(sigma), jnp.ones(9), jnp.zeros(9)
    np.testing.assert_allclose(prediction.denoised(path, zero, one, t), sd**2 / (sigma**2 + sd**2), rtol=1e-12)
    np.testing.assert_allclose(
        prediction.denoised(path, one, zero, t), sigma * sd / np.sqrt(sigma**2 + sd**2), rtol=1e-12
    )
    np.testing.assert_allclose(prediction.input_scale(path, t), 1.0 / np.sqrt(sigma**2 + sd**2), rtol=1e-12)
    np.testing.assert_allclose(prediction.noise_input(path, t), np.log(sigma) / 4.0, rtol=1e-12)
    np.testing.assert_allclose(prediction.output_weight(path, t), (sigma**2 + sd**2) / (sigma * sd) ** 2, rtol=1e-12)


def test_edm_is_table_1():
    check_edm(PREDICTIONS["edm"]())


@pytest.mark.parametrize(
    "broken",
    [PREDICTIONS["edm"](sigma_data=1.0), PREDICTIONS["edm"](scale_input=False), PREDICTIONS["v"](scale_input=True)],
    ids=["sigma_data", "scale", "v"],
)
def test_table_1_rejects_others(broken):
    with pytest.raises(AssertionError):
        check_edm(broken)


@EVERY_PATH
def test_edm_inputs_and_targets_have_variance_one_on_every_path(path):
    prediction, t = PREDICTIONS["edm"](sigma_data=0.7), some(path)
    one, zero = jnp.ones(5), jnp.zeros(5)
    by_x0, by_eps = prediction.target(path, one, zero, t), prediction.target(path, zero, one, t)
    np.testing.assert_allclose(0.49 * by_x0**2 + by_eps**2, 1.0, rtol=1e-10)
    scale = prediction.input_scale(path, t)
    np.testing.assert_allclose(scale**2 * (0.49 * path.alpha(t) ** 2 + path.sigma(t) ** 2), 1.0, rtol=1e-10)


@pytest.mark.parametrize("name", KINDS)
def test_the_input_is_scaled_if_asked(name):
    path, t = ALL["linear"], some(ALL["linear"])
    np.testing.assert_array_equal(PREDICTIONS[name]().input_scale(path, t), np.ones(5))
    scaled = PREDICTIONS[name](scale_input=True, sigma_data=0.5).input_scale(path, t)
    np.testing.assert_allclose(scaled, 1.0 / np.sqrt(0.25 * (1.0 - t) ** 2 + t**2), rtol=1e-12)


def check_embedding(prediction, path):
    t = some(path)
    if isinstance(path, paths.EDM | paths.VE) or isinstance(prediction, predictions.EDMPrediction):
        wanted = 0.25 * np.log(np.clip(path.noise_level(t), 1e-6, 1e4))
    else:
        wanted = 1000.0 * np.asarray(t)
    np.testing.assert_allclose(prediction.noise_input(path, t), wanted, rtol=1e-12)
    assert np.isfinite(prediction.noise_input(path, jnp.array([0.0, 1.0], jnp.float32))).all()


@EVERY_PATH
@EVERY_PREDICTION
def test_the_embedding_is_told_the_noise(prediction, path):
    check_embedding(prediction, path)


@pytest.mark.parametrize(
    "noise_input",
    [
        lambda s, p, t: t,
        lambda s, p, t: jnp.log(p.noise_level(t)),
        lambda s, p, t: 0.25 * jnp.log(p.noise_level(t)),
    ],
    ids=["not_scaled", "no_quarter", "infinite"],
)
def test_the_embedding_rejects_others(noise_input):
    with pytest.raises(AssertionError):
        check_embedding(wrong("edm", noise_input=noise_input), ALL["linear"])


@EVERY_PATH
@EVERY_PREDICTION
def test_single_precision_loses_nothing(prediction, path):
    t = some(path, last=0.99)
    exact = np.asarray(t.astype(jnp.float32), np.float64)
    single = [jnp.asarray(v, jnp.float32) for v in (X0, EPS, t)]
    x0, eps = (np.asarray(v, np.float64) for v in single[:2])
    target, wanted = prediction.target(path, *single), prediction.target(path, x0, eps, exact)
    assert target.dtype == jnp.float32
    scale = np.abs(wanted).max(axis=(1, 2, 3), keepdims=True)
    assert (np.abs(target - wanted) < 1e-5 * scale).all()
    for function in (prediction.output_weight, prediction.input_scale, prediction.noise_input):
        assert function(path, single[2]).dtype == jnp.float32
        np.testing.assert_allclose(function(path, single[2]), function(path, exact), rtol=2e-5, atol=1e-6)


@EVERY_PATH
@EVERY_PREDICTION
def test_estimates_are_finite_with_their_gradients_at_the_ends(prediction, path):
    """A network gives anything at any t: also where alpha or sigma is 0."""
    t = jnp.array([0.0, path.t_min, 0.1, 0.9 * path.t_max, path.t_max], jnp.float32)
    x, output = (jnp.asarray(v, jnp.float32) for v in (X0, EPS))
    for estimate in (prediction.denoised, prediction.noise):
        value = estimate(path, output, x, t)
        assert value.dtype == jnp.float32 and np.isfinite(value).all()
        slopes = jax.grad(lambda f, x, e=estimate: e(path, f, x, t).sum(), argnums=(0, 1))(output, x)
        assert all(np.isfinite(slope).all() for slope in slopes)
    mapped = jax.jit(jax.vmap(prediction.denoised, in_axes=(None, 0, 0, 0)), static_argnums=0)(path, output, x, t)
    np.testing.assert_allclose(mapped, prediction.denoised(path, output, x, t), rtol=1e-4, atol=1e-5)
    assert np.isfinite(prediction.target(path, x[1:], output[1:], t[1:])).all()
    assert not np.isnan(prediction.output_weight(path, t)).any()


# Settings.


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("edm", {"sigma_data": 0.0}, "positive and finite"),
        ("v", {"sigma_data": float("inf")}, "positive and finite"),
        ("v", {"scale_input": 1.0}, "accepted: bool"),
        ("eps", {"sigma": 1.0}, "sigma is no setting"),
    ],
)
def test_settings_out_of_range_are_one_line_for_the_user(name, settings, message):
    with pytest.raises(UserError, match=message) as raised:
        build.named("model.prediction", PREDICTIONS, {"name": name, **settings})
    assert "\n" not in str(raised.value) and str(raised.value).startswith("model.prediction")


def test_settings_make_equal_objects_that_programs_can_be_cached_by():
    for name, constructor in PREDICTIONS.items():
        assert build.named("model.prediction", PREDICTIONS, {"name": name}) == constructor()
        assert hash(constructor()) == hash(constructor())
