"""Samplers: images that do not depend on each other, evaluations, one network in a program, alpha = 0, settings."""

from __future__ import annotations

import dataclasses
import functools
import math
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.processes import PATHS
from genjax.processes.paths import expand
from genjax.samplers import SAMPLERS
from genjax.samplers.guidance import guided
from tests.mixtures import FIXED, Mixture, function_for, grid, keys_of, make

DATA = Mixture()
NOISY = {
    "ancestral": {},
    "ddim": {"eta": 0.7},
    "edm_churn": {"s_churn": 5.0, "s_max": 20.0},
    "predictor_corrector": {},
    "multistep_consistency": {},
}


pytestmark = pytest.mark.usefixtures("x64")


@functools.cache
def program(name, path_name="vp_linear", num_steps=5, start=0.9):
    """A compiled (x, keys) -> samples; with noise where the sampler may add it."""
    path, sampler = PATHS[path_name](), make(name, num_steps, **NOISY.get(name, {}))
    t = grid(path, start, 0.05, sampler.points)
    return jax.jit(lambda x, keys: sampler(function_for(sampler, path), path, t, x, keys))


def check_independence(sample):
    x, keys = jax.random.normal(jax.random.key(3), (5, 3, 2)), keys_of(5)
    whole, order = sample(x, keys), jnp.array([3, 0, 4, 2, 1])
    np.testing.assert_allclose(sample(x[order], keys[order]), whole[order], atol=1e-10)
    beside = sample(x.at[2:].set(0.5), jnp.append(keys[:2], keys_of(3, seed=1)))
    np.testing.assert_allclose(beside[:2], whole[:2], atol=1e-10)


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_depends_on_its_own_noise_and_key_alone(name):
    check_independence(program(name))


@pytest.mark.parametrize(
    "broken",
    [
        lambda x, keys: program("ancestral")(x, jnp.broadcast_to(keys[0], keys.shape)),
        lambda x, keys: program("ancestral")(x, keys_of(len(keys))),
        lambda x, keys: program("heun")(x - jnp.mean(x, 0), keys),
    ],
    ids=["key_of_the_first", "key_of_the_place", "mean_over_the_batch"],
)
def test_independence_rejects_samplers_that_look_aside(broken):
    with pytest.raises(AssertionError):
        check_independence(broken)


def of_labels(sampler, path, labels):
    """What the sampler takes where label k moves the data by k / 2; a denoiser is also guided, by a scale of 1 + k."""
    plain, by = function_for(sampler, path), 0.5 * labels

    def moved(x, t, *s) -> jax.Array:
        value = plain(x - expand(path.alpha(t) * by, x), t, *s)
        return value + expand((path.alpha(s[0]) if s else 1.0) * by, x)

    return moved if sampler.takes == "flow_map" else guided(moved, DATA.denoiser(path), 1.0 + labels, path)


def by_label(name, labels):
    """Samples ``[N, B, ...]`` for labels ``[N, B]`` in one program, as a population draws them."""
    path, sampler = PATHS["vp_linear"](), make(name, 5, **NOISY.get(name, {}))
    x, keys = jax.random.normal(jax.random.key(3), (5, 3, 2)), keys_of(5)
    t = grid(path, 0.9, 0.05, sampler.points)
    mapped = jax.vmap(lambda labels: sampler(of_labels(sampler, path, labels), path, t, x, keys))
    return np.asarray(jax.jit(mapped)(labels)), np.asarray(program(name)(x, keys))


def check_labels(drawn, plain, labels):
    for images, given in zip(drawn, labels, strict=True):
        np.testing.assert_allclose(images[given == 0], plain[given == 0], atol=1e-10)
        assert np.abs(images - plain)[given > 0].min() > 1e-3
    np.testing.assert_allclose(drawn[0, 4], drawn[1, 4], atol=1e-10)


LABELS = np.array([[0, 2, 0, 1, 2], [1, 0, 0, 0, 2]])


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_depends_on_its_own_label_alone(name):
    check_labels(*by_label(name, LABELS), LABELS)


@pytest.mark.parametrize("others", [LABELS[:, ::-1], LABELS * 0, LABELS[:, :1] + 0 * LABELS])
def test_labels_of_other_images_are_rejected(others):
    with pytest.raises(AssertionError):
        check_labels(*by_label("euler", others), LABELS)


@pytest.mark.parametrize("name", SAMPLERS)
def test_keys_matter_where_noise_is_added_and_nowhere_else(name):
    x = jax.random.normal(jax.random.key(3), (5, 3, 2))
    same = program(name)(x, keys_of(5)) == program(name)(x, keys_of(5, seed=1))
    assert (not same.any()) if name in NOISY else same.all()


def count(sampler):
    """How often a sampler calls its function."""
    path, times = PATHS["vp_linear"](), []
    function = function_for(sampler, path)

    def counting(*arguments):
        times.append(arguments[1].shape)
        return function(*arguments)

    with jax.disable_jit():  # a scan is a Python loop then
        sampler(counting, path, grid(path, 0.9, 0.1, sampler.points), jnp.ones((2, 1)), keys_of(2))
    assert set(times) == {(2,)}
    return len(times)


@pytest.mark.parametrize(
    "name, num_steps",
    [*((name, 3) for name in FIXED), *((name, 1) for name in ("heun", "dpmpp_2s", "predictor_corrector", "unipc"))],
)
def test_evaluations_are_counted_right(name, num_steps):
    sampler = make(name, num_steps)
    assert count(sampler) == sampler.evaluations


def test_the_count_tells_one_sampler_from_another():
    assert count(make("heun", 3)) != make("euler", 3).evaluations
    two = make("predictor_corrector", 3, corrector_steps=2)
    assert count(two) == two.evaluations != make("predictor_corrector", 3).evaluations


def copies_of_the_network(name):
    path, sampler = PATHS["vp_linear"](), make(name, 5, **NOISY.get(name, {}))

    def whole(t, x):
        return sampler(lambda x, *_: jnp.arctan(x), path, t, x, keys_of(2))

    t = jnp.asarray(grid(path, 0.9, 0.1, sampler.points))
    return str(jax.make_jaxpr(whole)(t, jnp.ones((2, 1)))).count("= atan ")


@pytest.mark.parametrize("name", FIXED)
def test_a_program_holds_the_network_once(name):
    assert copies_of_the_network(name) == 1


def test_that_check_sees_a_second_copy():
    assert copies_of_the_network("adaptive") > 1


FINITE = [name for name in FIXED if name != "edm_churn"]


def at_the_end_of_linear(name):
    x = jax.random.normal(jax.random.key(0), (3, 2), jnp.float32)
    return np.asarray(program(name, "linear", 6, 1.0)(x, keys_of(3)))


@pytest.mark.parametrize("name", [*FINITE, "adaptive"])
def test_samplers_start_where_alpha_is_zero(name):
    with jax.enable_x64(False):
        assert np.isfinite(at_the_end_of_linear(name)).all()


def test_that_check_sees_an_infinite_noise_level():
    assert not np.isfinite(at_the_end_of_linear("edm_churn")).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_vmap_and_float32_agree_with_the_plain_call(name):
    x, keys = jax.random.normal(jax.random.key(3), (2, 5, 3, 2)), jnp.stack([keys_of(5), keys_of(5, 1)])
    plain = [program(name)(*both) for both in zip(x, keys, strict=True)]
    assert plain[0].dtype == jnp.float64
    mapped = jax.vmap(program(name))(x[:, :3], keys[:, :3])  # also another batch size
    np.testing.assert_allclose(mapped, jnp.stack(plain)[:, :3], atol=1e-10)
    single = program(name)(x[0].astype(jnp.float32), keys[0])
    assert single.dtype == jnp.float32
    if name not in NOISY:  # noise in another precision is other noise
        np.testing.assert_allclose(single, plain[0], atol=1e-4 if name != "adaptive" else 5e-3)


# Settings.


@pytest.mark.parametrize(
    "name, settings",
    [
        *((name, {"num_steps": 0}) for name in FIXED),
        ("ancestral", {"variance": "learned"}),
        ("ddim", {"eta": 1.5}),
        ("ddim", {"eta": -0.1}),
        ("ddim", {"eta": math.nan}),
        ("edm_churn", {"s_churn": -1.0}),
        ("edm_churn", {"s_min": -1.0}),
        ("edm_churn", {"s_min": 2.0, "s_max": 1.0}),
        ("edm_churn", {"s_noise": math.nan}),
        ("predictor_corrector", {"snr": 0.0}),
        ("predictor_corrector", {"corrector_steps": -1}),
        ("adaptive", {"method": "euler"}),
        ("adaptive", {"rtol": 0.0}),
        ("adaptive", {"atol": 1.0}),
        ("adaptive", {"max_steps": 0}),
    ],
)
def test_wrong_settings_are_named_with_what_is_accepted(name, settings):
    with pytest.raises(ValueError, match=rf"{list(settings)[-1]}=.*accepted: "):
        SAMPLERS[name](**settings)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_config_can_name_every_setting(name):
    sampler = SAMPLERS[name]()
    hints = typing.get_type_hints(SAMPLERS[name].__init__)
    assert all(hints[field.name] in (int, float, str, bool) for field in dataclasses.fields(sampler))
    assert all(type(getattr(sampler, f.name)) is hints[f.name] for f in dataclasses.fields(sampler))
    assert hash(sampler) == hash(SAMPLERS[name]()) and sampler.takes in ("denoiser", "flow_map")


def test_a_grid_of_another_length_is_refused():
    path, x = PATHS["vp_linear"](), jnp.ones((2, 1))
    with pytest.raises(ValueError, match=r"shape \(3,\); accepted: \(4,\)"):
        make("ddim", 4)(DATA.denoiser(path), path, jnp.linspace(1.0, 0.1, 3), x, keys_of(2))
