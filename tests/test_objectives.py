"""Losses: against numerical integration, known optima and scipy, each check with variants that it must reject."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special, stats

from genjax.objectives import adversarial, classification, elbo

reals = st.floats(-3.0, 3.0)


pytestmark = pytest.mark.usefixtures("x64")


def slope(function, x, step=1e-5):
    """Central difference of a scalar function at every entry of ``x``."""
    x = np.asarray(x, np.float64)
    out = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        out[i] = (float(function(jnp.asarray(up))) - float(function(jnp.asarray(down)))) / (2 * step)
    return out


# The Gaussian KL.


def kl_by_quadrature(mean, logvar):
    q = stats.norm(mean, np.exp(0.5 * logvar))
    reach = 12.0 * q.std()
    value, _ = integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - stats.norm.logpdf(z)), mean - reach, mean + reach, epsabs=1e-11, limit=200
    )
    return value


def check_kl(kl):
    for mean, logvar in [(0.0, 0.0), (1.5, 0.0), (0.0, 1.0), (-0.7, -2.0), (2.0, 1.5)]:
        assert float(kl(jnp.array([[mean]]), jnp.array([[logvar]]))[0]) == pytest.approx(
            kl_by_quadrature(mean, logvar), abs=1e-8
        )
    mean, logvar = jnp.array([[1.5, 0.0, -0.7], [0.3, 0.1, 0.0]]), jnp.array([[0.0, 1.0, -2.0], [0.4, 0.0, 0.0]])
    parts = [
        [kl_by_quadrature(float(m), float(v)) for m, v in zip(*rows, strict=True)]
        for rows in zip(mean, logvar, strict=True)
    ]
    np.testing.assert_allclose(kl(mean, logvar), np.sum(parts, axis=-1), atol=1e-8)


def test_gaussian_kl_is_the_integral():
    check_kl(elbo.gaussian_kl)


@pytest.mark.parametrize(
    "broken",
    [
        lambda m, v: 2.0 * elbo.gaussian_kl(m, v),
        lambda m, v: elbo.gaussian_kl(m, 2.0 * v),  # a standard deviation taken for a variance
        lambda m, v: 0.5 * jnp.mean(m**2 + jnp.exp(v) - 1.0 - v, axis=-1),
        lambda m, v: 0.5 * jnp.sum((m**2 + 1.0) * jnp.exp(-v) - 1.0 + v, axis=-1),  # KL(p || q)
    ],
    ids=["no_half", "deviation", "mean_of_dimensions", "reversed"],
)
def test_the_integral_rejects_other_divergences(broken):
    with pytest.raises(AssertionError):
        check_kl(broken)


@given(st.lists(st.tuples(reals, reals), min_size=3, max_size=3))
def test_gaussian_kl_is_non_negative_and_zero_at_the_prior_only(rows):
    with jax.enable_x64(True):
        mean, logvar = np.array(rows).T[:, None]
        value = float(elbo.gaussian_kl(jnp.asarray(mean), jnp.asarray(logvar))[0])
    assert value >= 0.1 * np.square(rows).max() - 1e-14  # 0.11 v^2 at v = -3 is the flattest that the bowl gets
    assert float(elbo.gaussian_kl(jnp.zeros((1, 3)), jnp.zeros((1, 3)))[0]) == 0.0


@pytest.mark.parametrize(
    "function",
    [
        lambda p: elbo.gaussian_kl(p[0], p[1]).sum(),
        lambda p: elbo.gaussian_log_prob(0.3, p[0], p[1]).sum(),
        lambda p: elbo.bernoulli_log_prob(0.3, p).sum(),
        lambda p: elbo.discretized_logistic_log_prob(jnp.array([-1.0, 11 / 127.5 - 1, 1.0]), p[0], p[1]).sum(),
        lambda p: adversarial.discriminator_loss(p[0], p[1]).sum(),
        lambda p: adversarial.minimax(p).sum() + 2 * adversarial.non_saturating(p).sum(),
        lambda p: elbo.importance_bound(p).sum(),
    ],
    ids=["kl", "gaussian", "bernoulli", "logistic", "discriminator", "generator", "importance"],
)
def test_gradients_equal_finite_differences(function):
    point = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 3)))
    expected = slope(function, point)
    np.testing.assert_allclose(jax.grad(function)(point), expected, atol=1e-7, rtol=1e-6)
    assert np.abs(expected).max() > 1e-2
    with pytest.raises(AssertionError):  # a gradient that stops halfway is noticed
        stopped = jax.grad(lambda p: function(p.at[0].set(jax.lax.stop_gradient(p[0]))))(point)
        np.testing.assert_allclose(stopped, expected, atol=1e-7, rtol=1e-6)


# The evidence lower bound of x | z ~ N(w z + b, s^2 I), z ~ N(0, 1), where everything has a closed form.

W, BIAS, SIGMA = np.array([1.3, -0.6]), np.array([0.2, 0.1]), 0.7
X = np.array([0.9, -1.1])
PRECISION = 1.0 + W @ W / SIGMA**2
POSTERIOR = (float(W @ (X - BIAS) / SIGMA**2 / PRECISION), float(-np.log(PRECISION)))
EVIDENCE = stats.multivariate_normal.logpdf(X, BIAS, np.outer(W, W) + SIGMA**2 * np.eye(2))
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(20)


def log_joint_terms(z, mean, logvar):
    """log p(x|z), log p(z) and log q(z) at ``z`` [N], each [N]."""
    location = jnp.asarray(z)[:, None] * W + BIAS
    log_likelihood = elbo.gaussian_log_prob(jnp.asarray(X), location, 2.0 * np.log(SIGMA)).sum(-1)
    return log_likelihood, elbo.gaussian_log_prob(z, 0.0, 0.0), elbo.gaussian_log_prob(z, mean, logvar)


def bound(mean, logvar, kl):
    """E_q[log p(x|z)] - KL, the expectation by Gauss-Hermite quadrature (exact for the parabola that it is)."""
    z = mean + np.exp(0.5 * logvar) * NODES
    expected = WEIGHTS @ np.asarray(log_joint_terms(z, mean, logvar)[0]) / WEIGHTS.sum()
    return float(expected - kl(jnp.array([[mean]]), jnp.array([[logvar]]))[0])


def check_lower_bound(kl):
    assert bound(*POSTERIOR, kl) == pytest.approx(EVIDENCE, abs=1e-10)
    deviation = np.exp(0.5 * POSTERIOR[1])
    for mean, logvar in [(0.0, 0.0), (POSTERIOR[0] + 0.3, POSTERIOR[1]), (POSTERIOR[0], POSTERIOR[1] - 1.0), (2, 1)]:
        ratio, shift = np.exp(0.5 * logvar) / deviation, (mean - POSTERIOR[0]) / deviation
        gap = 0.5 * (ratio**2 + shift**2 - 1.0) - np.log(ratio)  # KL(q || posterior)
        assert gap > 0
        assert bound(mean, logvar, kl) == pytest.approx(EVIDENCE - gap, abs=1e-9)


def test_elbo_is_the_evidence_less_the_divergence_from_the_posterior():
    check_lower_bound(elbo.gaussian_kl)


@pytest.mark.parametrize("factor", [0.0, 0.9, -1.0])
def test_the_lower_bound_rejects_another_weight_of_the_kl(factor):
    with pytest.raises(AssertionError):
        check_lower_bound(lambda mean, logvar: factor * elbo.gaussian_kl(mean, logvar))


def log_weights(mean, logvar, draws, repeats):
    noise = np.random.default_rng(0).normal(size=draws * repeats)
    log_likelihood, log_prior, log_posterior = log_joint_terms(mean + np.exp(0.5 * logvar) * noise, mean, logvar)
    return (log_likelihood + log_prior - log_posterior).reshape(draws, repeats)


def check_importance_bound(importance_bound):
    exact = importance_bound(log_weights(*POSTERIOR, 7, 5))
    np.testing.assert_allclose(exact, EVIDENCE, atol=1e-10)  # with the posterior every weight is p(x)
    weights = log_weights(0.0, 0.0, 256, 2000)
    means = [float(jnp.mean(importance_bound(weights[:count]))) for count in (1, 4, 16, 64, 256)]
    assert means[0] == pytest.approx(bound(0.0, 0.0, elbo.gaussian_kl), abs=0.1)
    assert all(before < after for before, after in itertools.pairwise(means))
    assert means[-1] == pytest.approx(EVIDENCE, abs=0.02) and means[-1] < EVIDENCE + 0.005


def test_importance_bound_rises_from_the_elbo_to_the_evidence():
    check_importance_bound(elbo.importance_bound)


@pytest.mark.parametrize(
    "broken",
    [
        lambda w: special.logsumexp(w, axis=0),
        lambda w: jnp.mean(w, axis=0),
        lambda w: jnp.max(w, axis=0),
        lambda w: special.logsumexp(w, axis=0) - np.log(w.shape[1]),
    ],
    ids=["sum", "mean_of_logs", "largest", "wrong_axis"],
)
def test_the_importance_check_rejects_other_averages(broken):
    with pytest.raises(AssertionError):
        check_importance_bound(broken)


def test_importance_bound_does_not_overflow():
    np.testing.assert_allclose(elbo.importance_bound(jnp.array([[-5000.0, 4000.0], [-5000.0, 4000.0]])), [-5000, 4000])


# The two players.


def test_the_value_is_two_log_halves_when_the_discriminator_does_not_know():
    loss = adversarial.discriminator_loss(jnp.zeros(3), jnp.zeros(3))
    np.testing.assert_allclose(-loss, -2.0 * np.log(2.0), rtol=1e-12)
    np.testing.assert_allclose(adversarial.minimax(jnp.zeros(2)), -np.log(2.0))
    np.testing.assert_allclose(adversarial.non_saturating(jnp.zeros(2)), np.log(2.0))


def check_value_function(discriminator_loss):
    data, model = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.1, 0.2, 0.3, 0.4])

    def value(logits):
        """E_data[log D] + E_model[log(1 - D)] from the loss of every (real, fake) pair."""
        pairs = discriminator_loss(logits[:, None], logits[None, :])
        return -float(jnp.sum(pairs * data[:, None] * model[None, :]))

    optimum = jnp.asarray(np.log(data) - np.log(model))  # D = p_data / (p_data + p_model)
    half = 0.5 * (data + model)
    jsd = 0.5 * (special.rel_entr(data, half).sum() + special.rel_entr(model, half).sum())
    assert value(optimum) == pytest.approx(-np.log(4.0) + 2.0 * jsd, abs=1e-12)
    for move in np.random.default_rng(0).normal(size=(20, 4)):
        assert value(optimum + 0.1 * move) < value(optimum)
    assert value(jnp.zeros(4)) == pytest.approx(-np.log(4.0), abs=1e-12)


def test_the_optimal_discriminator_measures_the_jensen_shannon_divergence():
    check_value_function(adversarial.discriminator_loss)


@pytest.mark.parametrize(
    "broken",
    [
        lambda real, fake: adversarial.discriminator_loss(fake, real),
        lambda real, fake: 0.5 * adversarial.discriminator_loss(real, fake),
        lambda real, fake: jax.nn.relu(1.0 - real) + jax.nn.relu(1.0 + fake),
        lambda real, fake: adversarial.non_saturating(real) - adversarial.non_saturating(fake),
    ],
    ids=["swapped", "halved", "hinge", "log_of_fake"],
)
def test_the_value_function_rejects_other_losses(broken):
    with pytest.raises(AssertionError):
        check_value_function(broken)


def check_generator_losses(minimax, non_saturating):
    logits = jnp.linspace(-8.0, 8.0, 33)
    d = special.expit(np.asarray(logits))
    np.testing.assert_allclose(minimax(logits), np.log1p(-d), rtol=1e-9)
    np.testing.assert_allclose(non_saturating(logits), -np.log(d), rtol=1e-9)
    first, second = (jax.grad(lambda x, f=f: f(x).sum())(logits) for f in (minimax, non_saturating))
    assert (first < 0).all() and (second < 0).all()  # both raise D(G(z))
    np.testing.assert_allclose(first / second, d / (1.0 - d), rtol=1e-9)


def test_both_generator_losses_pull_the_same_way_and_differ_by_the_odds():
    check_generator_losses(adversarial.minimax, adversarial.non_saturating)
    assert set(adversarial.GENERATOR_LOSSES) == {"minimax", "non_saturating"}


@pytest.mark.parametrize(
    "pair",
    [
        (lambda x: -adversarial.minimax(x), adversarial.non_saturating),
        (adversarial.minimax, lambda x: adversarial.non_saturating(-x)),
        (adversarial.non_saturating, adversarial.minimax),
    ],
)
def test_the_generator_check_rejects_other_signs(pair):
    with pytest.raises(AssertionError):
        check_generator_losses(*pair)


def stable(loss):
    """Finite values and gradients at extreme logits, in float32, and a gradient where the player is losing."""
    logits = jnp.array([-1000.0, -100.0, 100.0, 1000.0], jnp.float32)
    value, gradient = loss(logits), jax.grad(lambda x: loss(x).sum())(logits)
    return bool(jnp.isfinite(value).all() & jnp.isfinite(gradient).all()) and float(jnp.abs(gradient).max()) == 1.0


LOSSES = {
    "real": lambda x: adversarial.discriminator_loss(x, jnp.zeros_like(x)),
    "fake": lambda x: adversarial.discriminator_loss(jnp.zeros_like(x), x),
    "minimax": adversarial.minimax,
    "non_saturating": adversarial.non_saturating,
}


@pytest.mark.parametrize("name", LOSSES)
def test_adversarial_losses_are_stable(name):
    assert stable(LOSSES[name])


def test_stability_rejects_a_logarithm_of_a_sigmoid():
    assert not stable(lambda x: -jnp.log(jax.nn.sigmoid(x)))
    assert not stable(lambda x: -jnp.log(jax.nn.sigmoid(x) + 1e-8))


# Cross-entropy.


def check_cross_entropy(cross_entropy):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 5)) * 3.0, rng.integers(0, 5, 6)
    log_probs = special.log_softmax(logits, axis=-1)
    one_hot = np.eye(5)[labels]
    for smoothing in (0.0, 0.1, 0.7):
        target = (1.0 - smoothing) * one_hot + smoothing / 5
        loss = cross_entropy(jnp.asarray(logits), jnp.asarray(labels), smoothing)
        assert loss.shape == (6,) and loss.dtype == jnp.float32
        np.testing.assert_allclose(loss, -(target * log_probs).sum(-1), rtol=1e-5)


def test_cross_entropy_is_scipys_with_the_smoothed_target():
    check_cross_entropy(classification.cross_entropy)


@pytest.mark.parametrize(
    "broken",
    [
        lambda x, y, s: classification.cross_entropy(x, y, 0.0),
        lambda x, y, s: classification.cross_entropy(x, y, s * 5 / 4),  # spread over the other classes only
        lambda x, y, s: classification.cross_entropy(x, (y + 1) % 5, s),
        lambda x, y, s: classification.cross_entropy(x, y, s) / np.log(2.0),
    ],
    ids=["ignored", "others_only", "shifted", "bits"],
)
def test_the_cross_entropy_check_rejects_other_targets(broken):
    with pytest.raises(AssertionError):
        check_cross_entropy(broken)


def test_cross_entropy_is_stable_in_half_precision_and_at_large_logits():
    logits = jnp.array([[1000.0, 0.0, -1000.0]], jnp.bfloat16)
    np.testing.assert_allclose(classification.cross_entropy(logits, jnp.array([0])), [0.0])
    np.testing.assert_allclose(classification.cross_entropy(logits, jnp.array([2])), [2000.0])
