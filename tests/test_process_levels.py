"""Training levels, loss weights and sampling grids: against distributions, papers' formulas and each other."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genjax import build
from genjax.processes import GRIDS, LEVELS, PATHS, PREDICTIONS, WEIGHTINGS, grids, levels
from genjax.processes.ranges import noise_range
from genjax.types import UserError

ALL = {
    **{name: constructor() for name, constructor in PATHS.items()},
    "vp_cosine_whole": PATHS["vp_cosine"](t_max=1.0),
    "ve_narrow": PATHS["ve"](sigma_min=0.1, sigma_max=2.0),
    "linear_open": PATHS["linear"](t_min=1e-5, t_max=0.9),
}
EVERY_PATH = pytest.mark.parametrize("path", ALL.values(), ids=ALL)


pytestmark = pytest.mark.usefixtures("x64")


# Distributions of t.

DRAWS = 20_000


def logit(t):
    return np.log(t / (1.0 - t))


def agrees(values, distribution):
    """Kolmogorov and Smirnov do not object; of a fixed key, so this never fails by chance."""
    assert stats.kstest(np.asarray(values), distribution.cdf).pvalue > 1e-3


def check_levels(distributions):
    key = jax.random.key(0)

    def draw(name, path, **settings):
        return distributions[name](**settings).sample(ALL[path], key, (DRAWS,))

    agrees(draw("uniform", "linear"), stats.uniform(1e-3, 1.0 - 1e-3))
    agrees(draw("uniform", "edm"), stats.uniform(0.002, 79.998))
    agrees(logit(draw("logit_normal", "linear", mean=-0.4, std=1.5)), stats.norm(-0.4, 1.5))
    agrees(logit(draw("logit_normal", "vp_linear")), stats.norm(0.0, 1.0))
    for path in ("edm", "vp_linear", "linear"):
        log_level = np.log(ALL[path].noise_level(draw("edm_log_normal", path, mean=-0.5, std=0.8)))
        agrees(log_level, stats.norm(-0.5, 0.8))
        assert log_level.mean() == pytest.approx(-0.5, abs=0.02) and log_level.std() == pytest.approx(0.8, abs=0.02)
    for path, low, high in [("edm", 0.002, 80.0), ("linear", 1e-3 / 0.999, 80.0), ("ve_narrow", 0.1, 2.0)]:
        half = 0.5 * np.asarray(ALL[path].log_snr(draw("uniform_log_snr", path)))
        agrees(half, stats.uniform(-np.log(high), np.log(high / low)))
    t = draw("uniform_log_snr", "vp_linear", sigma_min=0.1, sigma_max=10.0)
    agrees(0.5 * np.asarray(ALL["vp_linear"].log_snr(t)), stats.uniform(-np.log(10.0), np.log(100.0)))
    values, counts = np.unique(np.asarray(draw("discrete", "vp_linear", num=8)), return_counts=True)
    np.testing.assert_allclose(values, np.linspace(1e-3, 1.0, 8), rtol=1e-12)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_levels_have_their_distributions():
    check_levels(LEVELS)


def instead(name, sample):
    """The table with another way to sample of the same settings."""
    return {**LEVELS, name: type("Other", (LEVELS[name],), {"sample": sample})}


BROKEN_LEVELS = {
    "whole_range": instead("uniform", lambda s, p, k, n: jax.random.uniform(k, n)),
    "variance": instead(
        "logit_normal", lambda s, p, k, n: jax.nn.sigmoid(s.mean + jnp.sqrt(s.std) * jax.random.normal(k, n))
    ),
    "turned": instead("logit_normal", lambda s, p, k, n: 1.0 - levels.LogitNormal.sample(s, p, k, n)),
    "level_for_t": instead(
        "edm_log_normal", lambda s, p, k, n: jnp.exp(s.mean + s.std * jax.random.normal(k, n)).clip(p.t_min, p.t_max)
    ),
    "uniform_level": instead(
        "uniform_log_snr", lambda s, p, k, n: p.t_of_noise_level(jax.random.uniform(k, n, minval=0.1, maxval=10.0))
    ),
    "no_end": instead("discrete", lambda s, p, k, n: jax.random.randint(k, n, 0, s.num) / s.num),
}


@pytest.mark.parametrize("table", BROKEN_LEVELS.values(), ids=BROKEN_LEVELS)
def test_the_distributions_reject_others(table):
    with pytest.raises(AssertionError):
        check_levels(table)


def settings_of(table):
    """Every entry with its defaults, by name."""
    return pytest.mark.parametrize("made", [constructor() for constructor in table.values()], ids=list(table))


@EVERY_PATH
@settings_of(LEVELS)
def test_levels_are_in_range_of_any_shape_and_precision(made, path):
    if isinstance(made, levels.LogitNormal) and path.t_max > 1:
        for use in (made.check, lambda path: made.sample(path, jax.random.key(0), (3,))):
            with pytest.raises(ValueError, match="logit_normal draws t in .0, 1., and this path's t reaches 80"):
                use(path)
        return
    made.check(path)
    keys = jax.random.split(jax.random.key(1), 50)
    for enabled, dtype in ((True, jnp.float64), (False, jnp.float32)):
        with jax.enable_x64(enabled):
            t = made.sample(path, keys[0], (20, 2))
            one_each = jax.jit(jax.vmap(lambda key: made.sample(path, key, ())))(keys)
            assert t.shape == (20, 2) and one_each.shape == (50,) and t.dtype == one_each.dtype == dtype
            bounds = jnp.array([path.t_min, path.t_max], dtype)
            assert all((bounds[0] <= v).all() and (v <= bounds[1]).all() for v in (t, one_each))
            assert len(np.unique(one_each)) > 25  # each key draws its own; the ends of a narrow path repeat


def test_draws_beyond_the_path_become_its_ends():
    t = LEVELS["edm_log_normal"](mean=0.0, std=100.0).sample(ALL["edm"], jax.random.key(0), (100,))
    assert set(np.unique(t)) >= {0.002, 80.0} and np.isfinite(t).all()
    t = LEVELS["logit_normal"](std=1e4).sample(ALL["linear"], jax.random.key(0), (100,))
    assert {float(v) for v in np.unique(t)} >= {1e-3, 1.0}


# Weights.


def some(path, dtype=jnp.float64):
    return jnp.asarray(path.t_min + (path.t_max - path.t_min) * np.array([0.0, 0.01, 0.2, 0.5, 0.8, 0.99]), dtype)


def check_weights(table):
    for path in ALL.values():
        t = some(path)
        snr = np.asarray(jnp.exp(path.log_snr(t)))
        r = np.asarray(path.noise_level(t))
        alpha, sigma = np.asarray(path.alpha(t)), np.asarray(path.sigma(t))

        def close(name, wanted, t=t, path=path, **settings):
            got = table[name](**settings)(path, t)
            assert got.shape == t.shape and got.dtype == t.dtype
            np.testing.assert_allclose(got, wanted, rtol=1e-8, err_msg=f"{name} on {path}")

        # The plain error of a prediction's output is what this prediction's own weight gives.
        for name in ("x0", "eps", "v", "velocity"):
            close(name, PREDICTIONS[name]().output_weight(path, t))
        close("edm", PREDICTIONS["edm"](sigma_data=0.7).output_weight(path, t), sigma_data=0.7)
        close("edm", (r**2 + 0.25) / (0.5 * r) ** 2)  # Karras et al. 2022, table 1
        close("eps", snr)
        close("x0", np.ones(6))
        # Hang et al. 2023: min(SNR, gamma) of x_0, over SNR of eps, over SNR + 1 of v where variance is preserved.
        for gamma in (5.0, 0.3):
            close("min_snr", np.minimum(snr, gamma), gamma=gamma)
            close("min_snr", np.minimum(snr, gamma) / snr * PREDICTIONS["eps"]().output_weight(path, t), gamma=gamma)
        if np.allclose(alpha**2 + sigma**2, 1.0):
            close("v", snr + 1.0)
            close("min_snr", np.minimum(snr, 5.0) / (snr + 1.0) * PREDICTIONS["v"]().output_weight(path, t))
        for gamma, k in [(1.0, 1.0), (0.5, 2.0), (0.0, 1.0)]:
            close("p2", snr / (k + snr) ** gamma, gamma=gamma, k=k)
        if path in (ALL["linear"], ALL["linear_open"]):
            close("velocity", 1.0 / np.asarray(t) ** 2)
            close("velocity", 1.0 / np.maximum(t, 0.05) ** 2, min_sigma=0.05)


def test_weights_are_the_papers_and_agree_with_the_predictions():
    check_weights(WEIGHTINGS)


def weighing(name, function):
    return {**WEIGHTINGS, name: type("Other", (WEIGHTINGS[name],), {"__call__": function})}


BROKEN_WEIGHTS = {
    "min_snr_of_eps": weighing("min_snr", lambda s, p, t: jnp.minimum(1.0, s.gamma * jnp.exp(-p.log_snr(t)))),
    "max_snr": weighing("min_snr", lambda s, p, t: jnp.maximum(jnp.exp(p.log_snr(t)), s.gamma)),
    "half_log_snr": weighing("eps", lambda s, p, t: jnp.exp(0.5 * p.log_snr(t))),
    "v_of_vp": weighing("v", lambda s, p, t: jnp.exp(p.log_snr(t)) + 1.0),
    "no_clip": weighing("velocity", lambda s, p, t: WEIGHTINGS["velocity"]()(p, t)),
    "sigma_for_level": weighing("edm", lambda s, p, t: 1.0 / p.sigma(t) ** 2 + 1.0 / s.sigma_data**2),
    "p2_of_x0": weighing("p2", lambda s, p, t: (s.k + jnp.exp(p.log_snr(t))) ** -s.gamma),
}


@pytest.mark.parametrize("table", BROKEN_WEIGHTS.values(), ids=BROKEN_WEIGHTS)
def test_the_weights_reject_others(table):
    with pytest.raises(AssertionError):
        check_weights(table)


@EVERY_PATH
@settings_of(WEIGHTINGS)
def test_weights_are_finite_where_training_is_and_defined_at_the_ends(made, path):
    t = some(path, jnp.float32)
    weight = made(path, t)
    assert weight.dtype == jnp.float32 and np.isfinite(weight).all() and (np.asarray(weight) >= 0).all()
    np.testing.assert_allclose(jax.jit(jax.vmap(lambda t: made(path, t)))(t), weight, rtol=1e-4)
    ends = made(path, jnp.array([0.0, path.t_min, path.t_max], jnp.float32))
    assert not np.isnan(ends).any() and np.isfinite(ends[1:]).all()


def check_learned(learned):
    """The best u is the logarithm of the mean loss, and there the gradient of the network's part is scaled to 1."""
    loss = jnp.array([0.1, 0.5, 3.0])
    best = jnp.log(loss.mean())
    slope = jax.grad(lambda u: learned(loss, jnp.full(3, u)).mean())
    assert float(slope(best)) == pytest.approx(0.0, abs=1e-12)
    assert float(slope(best - 1.0)) < 0 < float(slope(best + 1.0))
    np.testing.assert_allclose(learned(loss, jnp.zeros(3)), loss, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(lambda x: learned(x, jnp.log(loss)).sum())(loss), 1.0 / loss, rtol=1e-12)


def test_learned_weighting_balances_the_levels():
    check_learned(levels.learned_weighting)


@pytest.mark.parametrize(
    "broken",
    [
        lambda loss, u: loss * jnp.exp(-u),
        lambda loss, u: loss * jnp.exp(-u) + 0.5 * u,
        lambda loss, u: loss * jnp.exp(u) + u,
    ],
    ids=["no_penalty", "half", "sign"],
)
def test_the_learned_weighting_rejects_others(broken):
    with pytest.raises(AssertionError):
        check_learned(broken)


# Grids.


@EVERY_PATH
@settings_of(GRIDS)
def test_grids_descend_from_the_start_to_the_end_of_the_path(made, path):
    first, last = path.t_max, path.t_min
    if isinstance(made, grids.KarrasGrid | grids.LogSNRGrid):
        first = float(path.t_of_noise_level(min(80.0, float(path.noise_level(path.t_max)))))
    double, single = {"rtol": 1e-9}, {"rtol": 2e-5, "atol": 1e-7}
    for enabled, dtype, close in ((True, jnp.float64, double), (False, jnp.float32, single)):
        with jax.enable_x64(enabled):
            bounds = jnp.array([path.t_min, path.t_max], dtype)
            for num in (1, 2, 18, 250) if enabled else (18, 250):
                t = made.points(path, num)
                assert t.shape == (num,) and t.dtype == dtype
                assert (np.diff(t) < 0).all() and (bounds[0] <= t).all() and (t <= bounds[1]).all()
                np.testing.assert_allclose(t[0], first, **close)
                end = max(last, first / num) if isinstance(made, grids.EvenGrid) else last
                np.testing.assert_allclose(t[-1], end if num > 1 else first, **close)
            np.testing.assert_allclose(jax.jit(lambda: made.points(path, 18))(), made.points(path, 18), **close)
    with pytest.raises(ValueError, match="num=0 is too small; accepted: at least 1"):
        made.points(path, 0)


def check_grids(table):
    # Karras et al. 2022, eq. 5, of sigma_max 80, sigma_min 0.002, rho 7 and N = 18.
    paper = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    np.testing.assert_allclose(table["karras"]().points(ALL["edm"], 18), paper, rtol=1e-9)
    np.testing.assert_allclose(paper[1], 57.586, rtol=1e-5)
    for path in (ALL["vp_linear"], ALL["linear"]):
        given = {"rho": 3.0, "sigma_min": 0.02, "sigma_max": 30.0}
        level = path.noise_level(table["karras"](**given).points(path, 6))
        np.testing.assert_allclose(np.diff(np.cbrt(level), 2), 0.0, atol=1e-9)
        np.testing.assert_allclose(level[np.array([0, -1])], [30.0, 0.02], rtol=1e-9)
    for path in ALL.values():
        lam = 0.5 * np.asarray(path.log_snr(table["log_snr"]().points(path, 7)))
        np.testing.assert_allclose(np.diff(lam, 2), 0.0, atol=1e-8)
        np.testing.assert_allclose(np.diff(table["uniform"]().points(path, 7), 2), 0.0, atol=1e-9)
        even = path.t_max * (1.0 - np.arange(7) / 7)
        np.testing.assert_allclose(table["even"]().points(path, 7), even, rtol=1e-9)
        np.testing.assert_allclose(np.diff(np.sqrt(table["quadratic"]().points(path, 7)), 2), 0.0, atol=1e-9)
    # Esser et al. 2024, eq. 23: t' = shift t / (1 + (shift - 1) t) of an even grid.
    for shift in (3.0, 0.5):
        t = np.asarray(table["shifted"](shift=shift).points(ALL["linear"], 9))
        even = t / (shift - (shift - 1.0) * t)
        np.testing.assert_allclose(np.diff(even, 2), 0.0, atol=1e-12)
        np.testing.assert_allclose(even[0], 1.0, rtol=1e-12)
        np.testing.assert_allclose(t, shift * even / (1.0 + (shift - 1.0) * even), rtol=1e-12)
        assert (t[1:-1] > np.linspace(1.0, 1e-3, 9)[1:-1]).all() == (shift > 1)
        vp = ALL["vp_linear"]
        unshifted = vp.t_of_noise_level(vp.noise_level(table["shifted"](shift=shift).points(vp, 9)) / shift)
        np.testing.assert_allclose(np.diff(unshifted, 2), 0.0, atol=1e-9)


def test_grids_are_the_papers():
    check_grids(GRIDS)


def placing(name, points):
    return {**GRIDS, name: type("Other", (GRIDS[name],), {"points": points})}


BROKEN_GRIDS = {
    "no_last_step": placing("even", lambda s, p, n: GRIDS["uniform"]().points(p, n)),
    "one_more": placing("karras", lambda s, p, n: grids.KarrasGrid.points(s, p, n + 1)[:n]),
    "rho": placing("karras", lambda s, p, n: GRIDS["karras"](5.0, s.sigma_min, s.sigma_max).points(p, n)),
    "settings_ignored": placing("karras", lambda s, p, n: GRIDS["karras"](s.rho).points(p, n)),
    "even_level": placing("log_snr", lambda s, p, n: GRIDS["karras"](1.0).points(p, n)),
    "square_of_t": placing("quadratic", lambda s, p, n: jnp.linspace(p.t_max**2, p.t_min**2, n) ** 0.5),
    "shift_turned": placing("shifted", lambda s, p, n: GRIDS["shifted"](1.0 / s.shift).points(p, n)),
    "no_shift": placing("shifted", lambda s, p, n: GRIDS["uniform"]().points(p, n)),
}


@pytest.mark.parametrize("table", BROKEN_GRIDS.values(), ids=BROKEN_GRIDS)
def test_the_grids_reject_others(table):
    with pytest.raises(AssertionError):
        check_grids(table)


def test_a_shift_of_one_is_even_and_any_shift_of_the_level_itself_changes_nothing():
    for path, shift in [(ALL["linear"], 1.0), (ALL["vp_linear"], 1.0), (ALL["edm"], 3.0)]:
        even = GRIDS["uniform"]().points(path, 9)
        np.testing.assert_allclose(GRIDS["shifted"](shift=shift).points(path, 9), even, rtol=1e-9)


def test_the_noise_range_is_the_paths_own_within_what_is_asked():
    assert noise_range(ALL["edm"], None, None) == pytest.approx((0.002, 80.0))
    assert noise_range(ALL["linear"], None, None) == pytest.approx((1e-3 / 0.999, 80.0))
    assert noise_range(ALL["linear"], None, 200.0) == pytest.approx((1e-3 / 0.999, 200.0))
    assert noise_range(ALL["edm"], 1e-5, 200.0) == pytest.approx((0.002, 80.0))
    assert noise_range(ALL["ve"], 0.5, None) == pytest.approx((0.5, 50.0))
    for made, name in itertools.product(("karras", "log_snr"), ("ve_narrow", "edm")):
        grid = GRIDS[made](sigma_min=90.0, sigma_max=100.0)
        with pytest.raises(ValueError, match="sigma_min=90.0, sigma_max=100.0 leave nothing of this path's"):
            grid.points(ALL[name], 4)
    with pytest.raises(ValueError, match="leave nothing"):
        LEVELS["uniform_log_snr"](sigma_min=3.0).check(ALL["ve_narrow"])


TABLES = types.SimpleNamespace(levels=LEVELS, weighting=WEIGHTINGS, grid=GRIDS)


@pytest.mark.parametrize(
    "table, name, settings, message",
    [
        ("levels", "logit_normal", {"std": 0.0}, "std=0.0 is out of range; accepted: positive"),
        ("levels", "edm_log_normal", {"mean": float("nan")}, "mean=nan is out of range; accepted: finite"),
        ("levels", "uniform_log_snr", {"sigma_min": 2.0, "sigma_max": 1.0}, "0 < sigma_min < sigma_max"),
        ("levels", "discrete", {"num": 1}, "num=1 is too small; accepted: at least 2"),
        ("levels", "discrete", {"num": 2.5}, "accepted: int"),
        ("weighting", "velocity", {"min_sigma": -0.1}, "at least 0, and finite"),
        ("weighting", "edm", {"sigma_data": -1.0}, "positive and finite"),
        ("weighting", "min_snr", {"gamma": 0.0}, "positive and finite"),
        ("weighting", "p2", {"gamma": -1.0}, "at least 0, and finite"),
        ("weighting", "p2", {"k": 0.0}, "positive and finite"),
        ("weighting", "x0", {"gamma": 1.0}, "gamma is no setting"),
        ("grid", "karras", {"rho": 0.0}, "positive and finite"),
        ("grid", "karras", {"sigma_min": -1.0}, "0 < sigma_min"),
        ("grid", "log_snr", {"sigma_max": 0.0}, "0 < sigma_max"),
        ("grid", "shifted", {"shift": float("inf")}, "positive and finite"),
    ],
)
def test_settings_out_of_range_are_one_line_for_the_user(table, name, settings, message):
    with pytest.raises(UserError, match=message) as raised:
        build.named(f"model.{table}", getattr(TABLES, table), {"name": name, **settings})
    assert "\n" not in str(raised.value) and str(raised.value).startswith(f"model.{table}")


def test_settings_make_equal_objects_that_programs_can_be_cached_by():
    for table in vars(TABLES).values():
        for name, constructor in table.items():
            assert build.named("model.x", table, {"name": name}) == constructor()
            assert hash(constructor()) == hash(constructor())
    assert build.named("model.x", GRIDS, {"name": "karras", "sigma_max": 40, "sigma_min": None}).sigma_max == 40
