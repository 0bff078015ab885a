"""The VAE family's bounds on a linear Gaussian model, where p(x) and the posterior have a closed form."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from genjax import rng
from genjax.families import likelihoods
from genjax.families.likelihoods import Likelihood
from genjax.families.vae import vae
from genjax.objectives import elbo
from genjax.train.optim import sgd
from genjax.types import ImageSpec

# x | z ~ N(W z, SIGMA^2 I) with one latent z ~ N(0, 1); x are the two bytes of an image, divided by 100.
W, SIGMA, BYTES = np.array([1.3, -0.6]), 0.7, np.array([90, 20], np.uint8)
X = BYTES / 100.0
PRECISION = 1.0 + W @ W / SIGMA**2
POSTERIOR = (W @ X / SIGMA**2 / PRECISION, -np.log(PRECISION))
EVIDENCE = stats.multivariate_normal.logpdf(X, np.zeros(2), np.outer(W, W) + SIGMA**2 * np.eye(2))
KEY = rng.root(5)

LINEAR = Likelihood(
    outputs_per_value=1,
    data=lambda key, image: image.astype(jnp.float32) / 100.0,
    network_input=lambda x: x,
    log_prob=lambda x, outputs: elbo.gaussian_log_prob(x, outputs[..., 0], 2.0 * np.log(SIGMA)),
    mean=lambda outputs: outputs[..., 0],
    bits_per_dim=None,
)


def linear_network(mean, logvar):
    """A network whose q is the same for all images and whose decoder is W z."""

    def init(key, x, label):
        return {"params": {"mean": jnp.array(mean, jnp.float32), "logvar": jnp.array(logvar, jnp.float32)}}

    def apply(variables, x, label, method):
        if method == "encode":
            shape = (x.shape[0], 1)
            return jnp.full(shape, variables["params"]["mean"]), jnp.full(shape, variables["params"]["logvar"])
        return (x * W.astype(np.float32)).reshape(-1, 1, 2, 1, 1)

    return SimpleNamespace(latent_dim=1, init=init, apply=apply)


@pytest.fixture
def linear_vae(monkeypatch):
    monkeypatch.setitem(likelihoods.LIKELIHOODS, "linear", LINEAR)

    def make(mean, logvar, **options):
        optimizer = sgd(1e-2, 10, momentum=0.0)
        return vae(ImageSpec(1, 2, 1), linear_network(mean, logvar), optimizer, 4, likelihood="linear", **options)

    return make


def batch_of(count):
    image = np.broadcast_to(BYTES.reshape(1, 1, 2, 1), (count, 1, 2, 1))
    return {"image": jnp.asarray(image), "index": jnp.arange(count, dtype=jnp.int32)}


def state_and_batch(family, count):
    batch = batch_of(count)
    return family.init(KEY, batch), batch


def test_elbo_is_the_evidence_in_the_mean_with_the_posterior_and_less_with_another(linear_vae):
    for mean, logvar in [POSTERIOR, (0.0, 0.0), (POSTERIOR[0], POSTERIOR[1] - 2.0)]:
        family = linear_vae(mean, logvar)
        out = jax.jit(family.eval_step)(*state_and_batch(family, 20000), KEY)
        ratio, shift = np.exp(0.5 * (logvar - POSTERIOR[1])), (mean - POSTERIOR[0]) / np.exp(0.5 * POSTERIOR[1])
        gap = 0.5 * (ratio**2 + shift**2 - 1.0) - np.log(ratio)
        values = np.asarray(out["elbo"], np.float64)
        error = values.std() / np.sqrt(len(values))
        assert values.mean() == pytest.approx(EVIDENCE - gap, abs=4 * error)
        assert gap == pytest.approx(0, abs=1e-9) or gap > 40 * error  # the tolerance tells them apart
        np.testing.assert_allclose(out["elbo"], out["log_likelihood"] - out["kl"], rtol=1e-5)


def test_every_importance_weight_is_the_evidence_with_the_posterior(linear_vae):
    family = linear_vae(*POSTERIOR)
    state, batch = state_and_batch(family, 50)
    for num in (1, 5):
        found = family.extras["importance_bound"](state, batch, KEY, num=num)
        np.testing.assert_allclose(found, EVIDENCE, atol=1e-5)


def test_more_draws_tighten_the_bound_towards_the_evidence(linear_vae):
    family = linear_vae(0.0, 0.0)
    state, batch = state_and_batch(family, 1500)
    bound = jax.jit(family.extras["importance_bound"], static_argnames="num")
    means = [float(jnp.mean(bound(state, batch, KEY, num=num))) for num in (1, 4, 16, 256)]
    assert all(before < after for before, after in itertools.pairwise(means))
    assert means[0] < EVIDENCE - 0.2 and means[-1] == pytest.approx(EVIDENCE, abs=0.02)


def reference_weights(mean, logvar, count, draws):
    """log p(x|z) + log p(z) - log q(z|x) ``[draws, count]`` by scipy, from the noise that the streams prescribe."""

    def noise(key, draw):
        key = jax.random.fold_in(rng.stream(key, "importance"), draw)
        return jax.random.normal(rng.stream(key, "posterior"), (1,))[0]

    keys = rng.example_keys(KEY, jnp.arange(count))
    eps = np.asarray(jax.vmap(lambda d: jax.vmap(lambda k: noise(k, d))(keys))(jnp.arange(draws)), np.float64)
    scale = np.exp(0.5 * logvar)
    z = mean + scale * eps
    likelihood = stats.norm.logpdf(X, z[..., None] * W, SIGMA).sum(-1)
    return likelihood + stats.norm.logpdf(z) - stats.norm.logpdf(z, mean, scale)


def test_importance_bound_is_the_objective_of_its_weights(linear_vae):
    mean, logvar, count, draws = 0.4, -0.5, 6, 5
    family = linear_vae(mean, logvar)
    found = family.extras["importance_bound"](*state_and_batch(family, count), KEY, num=draws)
    weights = reference_weights(mean, logvar, count, draws)
    expected = elbo.importance_bound(jnp.asarray(weights, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(expected, special.logsumexp(weights, axis=0) - np.log(draws), rtol=1e-5)
    # Draws and examples must differ, or the bound would be no tighter than one draw.
    assert np.unique(weights.round(6)).size == weights.size
    assert not np.allclose(found, weights.mean(0), rtol=1e-3) and not np.allclose(found, weights[0], rtol=1e-3)


def test_training_weighs_the_kl_by_beta_and_its_warm_up(linear_vae):
    family = linear_vae(0.4, -0.5, beta=3.0, kl_warmup_steps=4)
    state, batch = state_and_batch(family, 4)
    train = jax.jit(family.train_step)
    slices = {"image": batch["image"][None]}
    for step, share in [(0, 0.25), (1, 0.5), (3, 1.0), (9, 1.0)]:
        _, metrics = train(state.replace(step=jnp.asarray(step)), slices, KEY)
        assert float(metrics["kl_weight"]) == pytest.approx(3.0 * share)
        expected = -(metrics["log_likelihood"] - metrics["kl_weight"] * metrics["kl"])
        assert float(metrics["loss"]) == pytest.approx(float(expected), rel=1e-5)
        assert float(metrics["elbo"]) == pytest.approx(float(metrics["log_likelihood"] - metrics["kl"]), rel=1e-5)


def training_loss(family, count, key=KEY):
    """Loss of one step on ``count`` examples, and the state before it."""
    state, batch = state_and_batch(family, count)
    _, metrics = jax.jit(family.train_step)(state, {"image": batch["image"][None]}, key)
    return float(metrics["loss"])


def test_training_with_several_draws_is_the_evidence_with_the_posterior(linear_vae):
    for draws in (2, 7):
        assert training_loss(linear_vae(*POSTERIOR, num_draws=draws), 4) == pytest.approx(-EVIDENCE, abs=1e-5)


def test_training_with_more_draws_minimises_a_tighter_bound(linear_vae):
    losses = [training_loss(linear_vae(0.0, 0.0, num_draws=draws), 4000) for draws in (1, 4, 32, 256)]
    assert all(before > after for before, after in itertools.pairwise(losses))
    assert losses[0] > -EVIDENCE + 0.2 and losses[-1] == pytest.approx(-EVIDENCE, abs=0.02)


def expected_bound(mean, logvar, draws, count=200_000):
    """E[log (1/K) sum_k w_k] by scipy, from noise of its own, and its standard error."""
    eps = np.random.default_rng(0).normal(size=(draws, count))
    scale = np.exp(0.5 * logvar)
    z = mean + scale * eps
    weights = stats.norm.logpdf(X, z[..., None] * W, SIGMA).sum(-1)
    weights += stats.norm.logpdf(z) - stats.norm.logpdf(z, mean, scale)
    values = special.logsumexp(weights, axis=0) - np.log(draws)
    return values.mean(), values.std() / np.sqrt(count), weights.mean()


def test_training_with_several_draws_is_the_mean_log_of_the_mean_weight(linear_vae):
    mean, logvar, draws = 0.4, 0.3, 5
    found = -training_loss(linear_vae(mean, logvar, num_draws=draws), 40_000)
    expected, error, of_logs = expected_bound(mean, logvar, draws)
    assert found == pytest.approx(expected, abs=4 * error + 0.01)
    # The mean of the logs, which is the ELBO, would not pass.
    assert abs(found - of_logs) > 0.05


def test_beta_weighs_the_divergence_of_every_draw(linear_vae):
    """With beta 0 the bound is that of the likelihood alone: log of its mean over q."""
    mean, logvar, draws = *POSTERIOR, 400
    found = -training_loss(linear_vae(mean, logvar, num_draws=draws, beta=0.0), 500)
    # x | z integrated over z ~ q: another Gaussian.
    wide = np.outer(W, W) * np.exp(logvar) + SIGMA**2 * np.eye(2)
    assert found == pytest.approx(stats.multivariate_normal.logpdf(X, W * mean, wide), abs=0.01)


def test_the_latents_and_the_images_of_a_trained_state_are_offered(linear_vae):
    family = linear_vae(0.4, -0.5)
    state, batch = state_and_batch(family, 3)
    means = family.extras["encode"](state, batch, KEY)
    np.testing.assert_allclose(means, np.full((3, 1), 0.4), rtol=1e-6)
    images = family.extras["decode"](state, means, None)
    np.testing.assert_allclose(images, family.extras["reconstruct"](state, batch, KEY), rtol=1e-6)
    np.testing.assert_allclose(images[0].ravel(), 0.4 * W, rtol=1e-6)


def test_no_draw_is_no_model(linear_vae):
    with pytest.raises(ValueError, match="num_draws=0 is too small; accepted: at least 1"):
        linear_vae(0.0, 0.0, num_draws=0)
