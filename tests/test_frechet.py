"""The Fréchet distance: closed forms, covariances without full rank, what leaves it alone, bias; the accumulator."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg

from genjax.metrics.frechet import Gaussian, Moments, fit, frechet_distance

D = 6


def gaussian(mean, covariance):
    return Gaussian(np.asarray(mean, np.float64), np.asarray(covariance, np.float64), 1000)


def random_covariance(rng, dims=D, rank=None):
    factor = rng.normal(size=(dims, rank or 2 * dims)) * np.geomspace(0.01, 3.0, dims)[:, None]
    return factor @ factor.T


def rotation(rng, dims=D):
    return np.linalg.qr(rng.normal(size=(dims, dims)))[0]


# Closed forms.


def check_closed_forms(distance):
    rng = np.random.default_rng(0)
    mean, shift = rng.normal(size=D), rng.normal(size=D)
    covariance = random_covariance(rng)
    # Identical; moved; and with all deviations scaled, sqrt(S) - c sqrt(S).
    assert distance(gaussian(mean, covariance), gaussian(mean, covariance)) == pytest.approx(0.0, abs=1e-9)
    moved = distance(gaussian(mean, covariance), gaussian(mean + shift, covariance))
    assert moved == pytest.approx(shift @ shift, rel=1e-9)
    scaled = distance(gaussian(mean, covariance), gaussian(mean, 2.25 * covariance))
    assert scaled == pytest.approx(0.25 * np.trace(covariance), rel=1e-9)
    # Diagonal: one dimension at a time, (s_a - s_b)^2.
    a, b = rng.uniform(0.1, 3, D), rng.uniform(0.1, 3, D)
    diagonal = distance(gaussian(mean, np.diag(a**2)), gaussian(mean + shift, np.diag(b**2)))
    assert diagonal == pytest.approx(np.square(shift).sum() + np.square(a - b).sum(), rel=1e-9)
    # Two dimensions that do not commute, with tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)).
    first, second = np.array([[2.0, 1.0], [1.0, 1.0]]), np.array([[1.0, -0.5], [-0.5, 3.0]])
    product = first @ second
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = np.trace(first + second) - 2 * root
    assert distance(gaussian([0, 0], first), gaussian([0, 0], second)) == pytest.approx(expected, rel=1e-9)


def test_closed_forms():
    check_closed_forms(frechet_distance)


def eigenvalues_of(a, b):
    """Of S_a S_b, which are real and not negative; its trace of roots, up to rounding."""
    return np.sqrt(np.maximum(np.linalg.eigvals(a.covariance @ b.covariance).real, 0.0)).sum()


def spread(a, b):
    return np.trace(a.covariance) + np.trace(b.covariance)


BROKEN = {
    "the mean's distance is not squared": lambda a, b: (
        np.linalg.norm(a.mean - b.mean) + spread(a, b) - 2 * eigenvalues_of(a, b)
    ),
    "the cross term is there once": lambda a, b: np.square(a.mean - b.mean).sum() + spread(a, b) - eigenvalues_of(a, b),
    "the cross term is not rooted": lambda a, b: (
        np.square(a.mean - b.mean).sum() + spread(a, b) - 2 * np.linalg.eigvals(a.covariance @ b.covariance).real.sum()
    ),
    "covariances as if they commuted": lambda a, b: (
        np.square(a.mean - b.mean).sum() + np.square(linalg.sqrtm(a.covariance) - linalg.sqrtm(b.covariance)).sum().real
    ),
    "variances alone": lambda a, b: (
        np.square(a.mean - b.mean).sum()
        + np.square(np.sqrt(np.diag(a.covariance)) - np.sqrt(np.diag(b.covariance))).sum()
    ),
    "the root of it": lambda a, b: np.sqrt(frechet_distance(a, b)),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_closed_forms_reject(broken):
    with pytest.raises(AssertionError):
        check_closed_forms(BROKEN[broken])


@pytest.mark.parametrize("dims", [1, 3, 40])
def test_it_is_what_scipy_s_matrix_root_gives(dims):
    rng = np.random.default_rng(dims)
    a, b = (gaussian(rng.normal(size=dims), random_covariance(rng, dims)) for _ in range(2))
    root = linalg.sqrtm(a.covariance @ b.covariance)
    expected = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance - 2 * root).real
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


# Covariances without full rank.


def check_deficient(distance):
    rng = np.random.default_rng(1)
    # In 40 dimensions 5 deviations each, in subspaces at right angles: nothing of one helps with the other.
    turn = rotation(rng, 40)
    halves = [turn[:, part] @ random_covariance(rng, 5) @ turn[:, part].T for part in (slice(5), slice(20, 25))]
    a, b = (gaussian(np.zeros(40), half) for half in halves)
    assert distance(a, b) == pytest.approx(spread(a, b), rel=1e-9)
    assert distance(a, a) == pytest.approx(0.0, abs=1e-9)
    # The same subspace, scaled; and a full one against a point.
    assert distance(a, gaussian(a.mean, 4 * halves[0])) == pytest.approx(np.trace(halves[0]), rel=1e-9)
    full = gaussian(np.zeros(40), random_covariance(rng, 40))
    assert distance(full, gaussian(np.zeros(40), np.zeros((40, 40)))) == pytest.approx(spread(full, full) / 2, rel=1e-9)
    # Fewer rows than dimensions, as a small sample of a wide layer gives.
    few = fit(rng.normal(size=(4, 40)).astype(np.float32))
    assert distance(few, few) == pytest.approx(0.0, abs=1e-9)


def test_covariances_without_full_rank():
    check_deficient(frechet_distance)


def without_threshold(a, b):
    """Roots of eigenvalues that are rounding: 1e-16 of the largest becomes 1e-8 of its root, in every dimension."""
    values = np.linalg.eigvalsh(a.covariance), np.linalg.eigvalsh(b.covariance)
    noise = sum(np.sqrt(np.abs(v[np.abs(v) < 1e-12 * v.max()])).sum() for v in values if v.max() > 0)
    return frechet_distance(a, b) + noise


def inverted(a, b):
    """By S_a^-1/2, which does not exist."""
    root = linalg.inv(linalg.sqrtm(a.covariance + 1e-9 * np.eye(len(a.mean))).real)
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b.covariance @ root), 0.0)).sum()
    return np.square(a.mean - b.mean).sum() + spread(a, b) - 2 * cross


@pytest.mark.parametrize("broken", [without_threshold, inverted])
def test_the_check_of_rank_rejects(broken):
    with pytest.raises(AssertionError):
        check_deficient(broken)


# What it does not depend on, and on what.


@given(st.integers(0, 2**32 - 1))
def test_it_is_symmetric_positive_and_turns_with_both(seed):
    rng = np.random.default_rng(seed)
    a, b = (gaussian(rng.normal(size=D), random_covariance(rng, rank=rng.integers(1, 9))) for _ in range(2))
    value = frechet_distance(a, b)
    turn, move, scale = rotation(rng), rng.normal(size=D), rng.uniform(0.1, 10)
    turned = [gaussian(turn @ g.mean + move, turn @ g.covariance @ turn.T) for g in (a, b)]
    scaled = [gaussian(scale * g.mean, scale**2 * g.covariance) for g in (a, b)]
    assert value >= 0.0
    assert frechet_distance(b, a) == pytest.approx(value, rel=1e-8, abs=1e-8)
    assert frechet_distance(*turned) == pytest.approx(value, rel=1e-8, abs=1e-8)
    assert frechet_distance(*scaled) == pytest.approx(scale**2 * value, rel=1e-8, abs=1e-7)
    # One of them turned alone is another distance, and the triangle of the roots holds.
    c = gaussian(rng.normal(size=D), random_covariance(rng))
    roots = [np.sqrt(frechet_distance(*pair)) for pair in ((a, b), (b, c), (a, c))]
    assert roots[2] <= roots[0] + roots[1] + 1e-6


def test_turning_one_of_them_is_seen():
    rng = np.random.default_rng(3)
    a = gaussian(np.zeros(D), random_covariance(rng))
    turn = rotation(rng)
    assert frechet_distance(a, gaussian(a.mean, turn @ a.covariance @ turn.T)) > 0.1


def test_a_sample_of_the_same_is_not_at_zero_but_nears_it_as_one_over_its_size():
    rng = np.random.default_rng(4)
    truth = gaussian(np.zeros(D), np.eye(D))
    means = [
        np.mean([frechet_distance(fit(rng.normal(size=(count, D))), truth) for _ in range(200)]) for count in (100, 400)
    ]
    # tr(S) / N from the mean; tr(E^2) / 4 from an identity covariance with error E, which is D (D + 1) / (4 N).
    expected = [(D + D * (D + 1) / 4) / count for count in (100, 400)]
    assert means == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (gaussian([0, 0], np.eye(2)), gaussian([0], np.eye(1)), "2 and 1 dimensions"),
        (gaussian([0, np.nan], np.eye(2)), gaussian([0, 0], np.eye(2)), "not finite"),
        (gaussian([0, 0], np.eye(2)), gaussian([0, 0], np.full((2, 2), np.inf)), "not finite"),
    ],
)
def test_what_has_no_distance(a, b, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(a, b)


# The accumulator.


def padded(moments, features, batch_size, padding):
    for start in range(0, len(features), batch_size):
        part = features[start : start + batch_size]
        missing = np.full((batch_size - len(part), features.shape[1]), padding, np.float32)
        moments.add(np.concatenate([part, missing]), np.r_[np.ones(len(part)), np.zeros(len(missing))])
    return moments


def check_moments(make):
    rng = np.random.default_rng(5)
    # Far from zero for their spread, as features behind a ReLU and a mean can be.
    features = (rng.normal(size=(103, D)) @ rng.normal(size=(D, D)) + 3000.0).astype(np.float32)
    mean, covariance = features.astype(np.float64).mean(0), np.cov(features.astype(np.float64), rowvar=False)
    for batch_size, padding in [(103, 0.0), (10, 1e6), (64, np.nan), (1, 0.0), (200, np.inf)]:
        found = padded(make(), features, batch_size, padding).gaussian()
        assert found.count == 103
        assert found.mean.dtype == found.covariance.dtype == np.float64
        np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(found.covariance, covariance, rtol=1e-9)


def test_moments_are_those_of_all_rows_whatever_the_batches():
    check_moments(Moments)


class Unmasked(Moments):
    def add(self, features, mask=None):
        super().add(features)


class OfBatches(Moments):
    """Sums the scatter of each batch about its own mean, and forgets how far apart those are."""

    def add(self, features, mask=None):
        before, count = self._scatter, self.count
        super().add(features, mask)
        rows = features[mask > 0].astype(np.float64)
        own = (rows - rows.mean(0)).T @ (rows - rows.mean(0))
        self._scatter = before + own if count else own


class Biased(Moments):
    def gaussian(self):
        return dataclasses.replace(super().gaussian(), covariance=self._scatter / self.count)


class Squares(Moments):
    """E[x x^T] - m m^T in float32: no digits are left of it."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def add(self, features, mask=None):
        super().add(features, mask)
        self.rows.append(features[mask > 0])

    def gaussian(self):
        rows = np.concatenate(self.rows)
        square = (rows.T @ rows) / len(rows) - np.outer(rows.mean(0), rows.mean(0))
        square = square.astype(np.float64) * len(rows) / (len(rows) - 1)
        return dataclasses.replace(super().gaussian(), covariance=square)


@pytest.mark.parametrize("broken", [Unmasked, OfBatches, Biased, Squares])
def test_the_check_of_moments_rejects(broken):
    with np.errstate(invalid="ignore"), pytest.raises(AssertionError):
        check_moments(broken)


def test_moments_refuse_what_is_no_batch_of_theirs():
    moments = Moments()
    moments.add(np.zeros((0, 3)))
    moments.add(np.zeros((2, 3)), np.zeros(2))
    with pytest.raises(ValueError, match="0 examples have no covariance"):
        moments.gaussian()
    moments.add(np.ones((1, 3)))
    with pytest.raises(ValueError, match="1 examples have no covariance; accepted: at least 2"):
        moments.gaussian()
    with pytest.raises(ValueError, match="4 dimensions; those before had 3"):
        moments.add(np.zeros((2, 4)))
    for features, mask in [(np.zeros(3), None), (np.zeros((2, 3, 1)), None), (np.zeros((2, 3)), np.ones(3))]:
        with pytest.raises(ValueError, match=r"accepted: \[B, D\]"):
            moments.add(features, mask)
    assert moments.count == 1
