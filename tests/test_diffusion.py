"""The diffusion family around an exact network: its samples and densities are the data's, whatever the method."""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import rng
from genjax.families.base import GUIDE
from genjax.families.diffusion import NETWORK, diffusion
from genjax.objectives import Denoising
from genjax.processes import GRIDS, LEVELS, PATHS, PREDICTIONS, WEIGHTINGS
from genjax.processes.paths import Path, expand
from genjax.processes.predictions import EDMPrediction, Prediction
from genjax.samplers import SAMPLERS
from genjax.train.optim import adam
from genjax.types import ImageSpec

SPEC = ImageSpec(2, 3, 1, classes=2)
MEANS, DEVIATION = (-0.4, 0.3, 0.1), 0.15  # of each class and of "no label", in the family's units


class Exact(nn.Module):
    """What a perfect network gives for Gaussian data whose mean depends on the label."""

    process: Path
    meaning: Prediction
    shift: float = 0.0  # of t: a network that is told the wrong level

    @nn.compact
    def __call__(self, x, noise, label=None, augment_BA=None, *, train):
        self.param("unused", nn.initializers.zeros, ())
        number = noise[:, 0]
        log = self.process.exploding or isinstance(self.meaning, EDMPrediction)
        t = self.process.t_of_noise_level(jnp.exp(4.0 * number)) if log else number / 1000.0
        x = x / expand(self.meaning.input_scale(self.process, t), x)
        t = t * (1.0 + self.shift)
        mean = MEANS[2] if label is None else jnp.asarray(MEANS)[label][:, None, None, None]
        alpha, sigma = expand(self.process.alpha(t), x), expand(self.process.sigma(t), x)
        residual = x - alpha * mean
        variance = (alpha * DEVIATION) ** 2 + sigma**2
        # E[x_0 | x_t] and E[eps | x_t]; every prediction is linear in both.
        x0 = mean + alpha * DEVIATION**2 / variance * residual
        return self.meaning.target(self.process, x0, sigma / variance * residual, t)


def family(path="linear", prediction="velocity", sampler="heun", grid="uniform", num_steps=40, shift=0.0, **options):
    parts = {"path": PATHS[path](), "prediction": PREDICTIONS[prediction]()}
    network = Exact(parts["path"], parts["prediction"], shift)
    return diffusion(
        SPEC,
        network,
        adam(1e-3, 10),
        slice_size=4,
        **parts,
        objective=Denoising(),
        sampler=SAMPLERS[sampler](num_steps=num_steps),
        grid=GRIDS[grid](),
        levels=LEVELS["uniform"](),
        weighting=WEIGHTINGS["x0"](),
        **options,
    )


def state_of(model):
    return model.init(rng.root(0), {"image": np.zeros((1, *SPEC.shape), np.uint8)})


def drawn(model, labels):
    keys = rng.example_keys(rng.root(1), jnp.arange(len(labels)))
    images = jax.jit(model.sample)(state_of(model), keys, jnp.asarray(labels, jnp.int32))
    return 2.0 * np.asarray(images) - 1.0


METHODS = [
    {"path": "linear", "prediction": "velocity", "sampler": "heun"},
    {"path": "linear", "prediction": "x0", "sampler": "dpmpp_2m", "grid": "karras"},
    {"path": "vp_linear", "prediction": "eps", "sampler": "ancestral", "num_steps": 300},
    {"path": "vp_cosine", "prediction": "v", "sampler": "unipc", "grid": "log_snr"},
    {"path": "ve", "prediction": "score", "sampler": "ddim", "grid": "karras", "num_steps": 100},
    {"path": "sub_vp", "prediction": "eps", "sampler": "heun", "grid": "quadratic"},
    {"path": "edm", "prediction": "edm", "sampler": "edm_churn", "grid": "karras"},
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: "-".join(map(str, method.values())))
def test_samples_have_the_moments_of_the_data_of_each_label(method):
    model = family(**method, conditional=True)
    labels = np.arange(3000) % 2
    images = drawn(model, labels)
    for label in (0, 1):
        chosen = images[labels == label]
        assert abs(chosen.mean() - MEANS[label]) < 0.02, chosen.mean()
        assert abs(chosen.std() - DEVIATION) < 0.02, chosen.std()


def test_a_network_that_is_told_the_wrong_level_draws_something_else():
    images = drawn(family(shift=0.3), np.zeros(2000))
    assert abs(images.std() - DEVIATION) > 0.02 or abs(images.mean() - MEANS[2]) > 0.02


@pytest.mark.parametrize("method", METHODS[:1] + METHODS[-1:], ids=["flow", "edm"])
def test_bits_per_dim_are_those_of_the_density(method):
    model = family(**{**method, "sampler": "heun"})
    image = np.random.default_rng(0).integers(90, 190, (64, *SPEC.shape)).astype(np.uint8)
    batch = {"image": jnp.asarray(image), "index": jnp.arange(64)}
    found = jax.jit(model.extras["bits_per_dim"], static_argnames="num")(state_of(model), batch, rng.root(0), num=200)
    x = image / 127.5 - 1.0
    log_density = -0.5 * ((x - MEANS[2]) / DEVIATION) ** 2 - math.log(DEVIATION * math.sqrt(2 * math.pi))
    expected = -(log_density.mean(axis=(1, 2, 3)) + math.log(2 / 255)) / math.log(2)
    # The dequantisation noise moves each value by up to half a cell, the Hutchinson estimate is exact in this case.
    assert abs(float(np.mean(found - expected))) < 0.02
    assert np.abs(found - expected).max() < 0.3


def test_guidance_moves_the_samples_away_from_the_unlabelled_ones():
    labels = np.zeros(1000)
    plain = drawn(family(conditional=True, label_dropout=0.1), labels).mean()
    guided = drawn(family(conditional=True, label_dropout=0.1, guidance_scale=1.5), labels).mean()
    narrow = drawn(
        family(conditional=True, label_dropout=0.1, guidance_scale=1.5, guidance_interval=(0.5, 1.0)), labels
    ).mean()
    assert guided < narrow < plain - 0.005, (guided, narrow, plain)
    assert abs(guided - (MEANS[2] + 1.5 * (MEANS[0] - MEANS[2]))) < 0.02


@pytest.mark.parametrize("method", METHODS, ids=lambda method: "-".join(map(str, method.values())))
@pytest.mark.parametrize("level", [0.02, 0.5, 3.0, 40.0])
def test_denoising_means_the_same_on_every_path(method, level):
    model = family(**method)
    u = jax.random.normal(rng.root(2), (8, *SPEC.shape))
    z = u * math.hypot(1.0, level)
    expected = (DEVIATION**2 * z + level**2 * MEANS[2]) / (DEVIATION**2 + level**2)
    found = model.denoise(state_of(model), u, jnp.full((8,), level), jnp.zeros(8, jnp.int32))
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert np.abs(model.denoise(state_of(model), z, jnp.full((8,), level), jnp.zeros(8)) - expected).max() > 3e-4


@pytest.mark.parametrize("weak", [METHODS[0], METHODS[6]], ids=lambda method: method["path"])
def test_a_model_of_another_path_guides_as_the_unlabelled_network_does(weak):
    """Also where no data is left and the level is infinite: on the linear path, at t = 1."""
    labels = np.zeros(50)
    expected = drawn(family(conditional=True, label_dropout=0.1, guidance_scale=1.5), labels)
    other = family(**weak)
    guided = family(conditional=True).guided(other, 1.5)
    keys = rng.example_keys(rng.root(1), jnp.arange(len(labels)))
    state = state_of(guided).replace(frozen={GUIDE: state_of(other)})
    found = 2.0 * np.asarray(jax.jit(guided.sample)(state, keys, jnp.zeros(50, jnp.int32))) - 1.0
    np.testing.assert_allclose(found, expected, atol=5e-3)
    assert guided.evaluations == 2 * family().evaluations
    wrong = guided.sample(state.replace(frozen={GUIDE: state_of(other)}), keys, jnp.ones(50, jnp.int32))
    assert np.abs(2.0 * np.asarray(wrong) - 1.0 - expected).max() > 0.1


def test_the_training_loss_of_a_perfect_network_is_the_variance_that_is_left():
    model = family()
    image = np.clip(np.random.default_rng(0).normal(MEANS[2], DEVIATION, (4000, *SPEC.shape)) * 127.5 + 127.5, 0, 255)
    batch = {"image": jnp.asarray(image.astype(np.uint8)), "index": jnp.arange(4000)}
    loss = np.asarray(jax.jit(model.eval_step)(state_of(model), batch, rng.root(0))["loss"])
    t = np.linspace(1e-3, 1, 2001)
    left = (DEVIATION * t) ** 2 / ((DEVIATION * (1 - t)) ** 2 + t**2)
    assert abs(loss.mean() / left.mean() - 1) < 0.05, (loss.mean(), left.mean())


def test_evaluations_count_guidance_and_self_conditioning():
    assert family(num_steps=10).evaluations == 19
    assert family(num_steps=10, sampler="euler", self_conditioning=True).evaluations == 20
    model = family(num_steps=10, sampler="euler", conditional=True, label_dropout=0.1, guidance_scale=2.0)
    assert model.evaluations == 20


@pytest.mark.parametrize(
    "options, message",
    [
        ({"guidance_scale": 2.0}, "guidance_scale are about labels"),
        ({"conditional": True, "guidance_scale": 2.0}, "label_dropout above 0"),
        ({"conditional": True, "label_dropout": 1.0}, "label_dropout"),
        ({"guidance_interval": (1.0, 0.5)}, "interval"),
        ({"ema_lengths": (0.9,)}, "length"),
        ({"sampler": "flow_map"}, "takes a flow_map; this objective offers: denoiser"),
        ({"prediction": "eps"}, "does not determine x_0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        family(**options)


def test_the_state_keeps_every_average_asked_for():
    state = state_of(family(ema_lengths=(0.2, 0.1)))
    assert set(state.ema) == {NETWORK, f"{NETWORK}:0.1"}
    assert dataclasses.is_dataclass(state) and not state_of(family(ema_lengths=())).ema
