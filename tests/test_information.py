"""Mutual information, bins and the lasso against closed forms and recorded numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from genjax.metrics import regression
from genjax.metrics.information import discretise, entropy, mutual_information, normalized_mutual_information
from tests.reference import metrics_reference as reference


def random_values(count=4000):
    rng = np.random.default_rng(0)
    return np.stack([rng.integers(0, kinds, count) for kinds in (4, 5, 8)], axis=1)


# Information.


def check_information(mutual_information):
    factors = random_values()
    for factor in factors.T:
        assert mutual_information(factor, factor) == pytest.approx(entropy(factor), rel=1e-12)
        assert entropy(factor) == pytest.approx(stats.entropy(np.bincount(factor)), rel=1e-12)
    # Names are nothing to it; a function of a factor has the function's entropy; independent ones nothing but bias.
    first, second = factors[:, 2], factors[:, 1]
    assert mutual_information(first, 100 - 7 * first) == pytest.approx(entropy(first))
    assert mutual_information(first, first // 3) == pytest.approx(entropy(first // 3))
    assert mutual_information(first, second) == pytest.approx(mutual_information(second, first))
    assert 0.0 <= mutual_information(first, second) < 5 * 7 * 4 / (2 * len(first))
    # Every pair once is independent exactly; I(a; b) of two bits that agree in 3 of 4.
    a, b = np.divmod(np.arange(12), 4)
    assert mutual_information(a, b) == pytest.approx(0.0, abs=1e-12)
    agree = np.log(2) - stats.entropy([0.75, 0.25])
    assert mutual_information([0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 0]) == pytest.approx(agree)


def test_information():
    check_information(mutual_information)


def in_bits(a, b):
    return mutual_information(a, b) / np.log(2)


def joint_entropy(a, b):
    return entropy(np.unique(np.stack([a, b]), axis=1, return_inverse=True)[1])


def linear(a, b):
    """Of Gaussian values of the same correlation."""
    return -0.5 * np.log(1 - min(np.corrcoef(a, b)[0, 1] ** 2, 1 - 1e-12))


def joint_by_sum(a, b):
    """Pairs told apart by their sums alone."""
    return entropy(a) + entropy(b) - entropy(np.asarray(a) + np.asarray(b))


@pytest.mark.parametrize("broken", [in_bits, joint_entropy, linear, joint_by_sum])
def test_the_check_of_information_rejects(broken):
    with pytest.raises(AssertionError):
        check_information(broken)


def test_nothing_is_exactly_nothing():
    """Not up to rounding: modularity compares what a dimension says of one factor with what it says of others."""
    factor = np.random.default_rng(0).integers(0, 3, 1500)
    assert mutual_information(factor * 0, factor) == mutual_information(factor, factor * 0) == 0.0


def test_normalized_information():
    factors = random_values()
    first = factors[:, 2]
    assert normalized_mutual_information(first, -first) == pytest.approx(1.0)
    assert normalized_mutual_information(first, np.zeros_like(first)) == 0.0
    half = entropy(first // 2)
    assert normalized_mutual_information(first, first // 2) == pytest.approx(2 * half / (half + entropy(first)))
    with pytest.raises(ValueError, match="both are constant"):
        normalized_mutual_information(np.zeros(3, int), np.ones(3, int))


def check_bins(discretise):
    values = np.array([0.0, 0.9, 1.0, 1.1, 9.99, 10.0])
    np.testing.assert_array_equal(discretise(values[:, None], 10)[:, 0], [0, 0, 1, 1, 9, 9])
    # Of equal width, not equally full; one for each column; constant ones have one bin.
    codes = np.stack([np.geomspace(1, 1000, 300), 5 - np.geomspace(1, 1000, 300), np.full(300, 0.1)], axis=1)
    found = discretise(codes.astype(np.float32), 20)
    np.testing.assert_array_equal(np.bincount(found[:, 0], minlength=20), np.histogram(codes[:, 0], 20)[0])
    assert np.bincount(found[:, 1])[0] < 10 and len(np.unique(found[:, 2])) == 1
    assert found.min() >= 0 and found[:, :2].max() == 19


def test_bins():
    check_bins(discretise)


@pytest.mark.parametrize(
    "broken",
    [
        lambda codes, bins: stats.rankdata(codes, axis=0).astype(int) * bins // (len(codes) + 1),
        lambda codes, bins: ((codes - codes.min()) / np.ptp(codes) * bins * (1 - 1e-9)).astype(int),
        lambda codes, bins: ((codes - codes.min(0)) / np.maximum(np.ptp(codes, axis=0), 1e-9) * bins).astype(int),
        lambda codes, bins: discretise(codes, bins + 1),
    ],
    ids=["equally full", "one range for all columns", "the largest in a bin of its own", "one bin more"],
)
def test_the_check_of_bins_rejects(broken):
    with pytest.raises(AssertionError):
        check_bins(broken)


# The lasso.


def check_lasso(fit):
    codes, factors = reference.codes_and_factors()
    recorded = np.load(reference.RECORDED)["lasso_weights"]
    np.testing.assert_allclose(fit(codes, factors, 0.02).weights, recorded, rtol=1e-6, atol=1e-12)
    # Without a penalty, least squares, whatever the features' units.
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4)) * [1, 10, 0.1, 3] + 5
    y = x @ rng.normal(size=(4, 2)) + rng.normal(size=(200, 2)) - 7
    squares = np.linalg.lstsq(np.c_[x, np.ones(200)], y, rcond=None)[0]
    np.testing.assert_allclose(fit(x, y, 0.0).predict(x), np.c_[x, np.ones(200)] @ squares, rtol=1e-6)
    # Features at right angles: correlations, moved towards 0 by alpha.
    angles = 2 * np.pi * np.arange(100) / 100
    x = np.stack([np.cos(k * angles) for k in (1, 2, 3)], axis=1)
    y = (x @ [3.0, -1.0, 0.1])[:, None]
    correlations = np.array([3.0, -1.0, 0.1]) / np.sqrt(9 + 1 + 0.01)
    expected = np.sign(correlations) * np.maximum(np.abs(correlations) - 0.1, 0)
    np.testing.assert_allclose(fit(x, y, 0.1).weights[:, 0], expected, atol=1e-9)
    # A feature that is constant has no weight, though its rounding has a deviation.
    assert (fit(np.c_[x, np.full(100, 0.1)], y, 0.0).weights[3] == 0.0).all()


def test_lasso():
    check_lasso(regression.fit_lasso)


def ridge(x, y, alpha):
    fitted = regression.fit_lasso(x, y, 0.0)
    z, t = (x - fitted.feature_mean) / fitted.feature_scale, (y - fitted.target_mean) / fitted.target_scale
    weights = np.linalg.solve(z.T @ z / len(z) + alpha * np.eye(z.shape[1]), z.T @ t / len(z))
    return regression.Lasso(weights, fitted.feature_mean, fitted.feature_scale, fitted.target_mean, fitted.target_scale)


def one_sweep(x, y, alpha, sweeps=1):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regression, "SWEEPS", sweeps)
        return regression.fit_lasso(x, y, alpha)


@pytest.mark.parametrize("broken", [ridge, one_sweep, lambda x, y, alpha: regression.fit_lasso(x, y, 2 * alpha)])
def test_the_check_of_the_lasso_rejects(broken):
    with pytest.raises((AssertionError, np.linalg.LinAlgError)):
        check_lasso(broken)


# What is refused.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: regression.fit_lasso(np.zeros((1, 2)), np.zeros((1, 2)), 0.1), r"accepted: \[N, D\] and \[N, F\]"),
        (lambda: mutual_information(np.zeros(3), np.zeros(3, int)), "values are float64"),
        (lambda: mutual_information(np.zeros(3, int), np.zeros(4, int)), "no pairs; accepted: the same number"),
        (lambda: entropy(np.zeros(0, int)), "at least one"),
        (lambda: discretise(np.zeros(3)), r"accepted: real numbers \[N, D\]"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
