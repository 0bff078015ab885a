"""Fréchet distances beyond the plain one: extrapolated to infinitely many rows, and class by class."""

from __future__ import annotations

import numpy as np
import pytest

from genjax.metrics.frechet import Gaussian, class_frechet_distances, fit, frechet_distance, frechet_infinity

D = 4
STANDARD = Gaussian(np.zeros(D), np.eye(D), 10**9)


# To infinitely many rows.


def check_extrapolation(distance):
    """Of N(shift, 1) to N(0, 1), D shift^2: within four standard errors of 100 seeds, for rows few enough to bias."""
    for shift in (0.0, 0.5):
        values = []
        for seed in range(100):
            rows = np.random.default_rng(seed).normal(size=(300, D)) + shift
            values.append(distance(rows, seed))
        assert abs(np.mean(values) - D * shift**2) < 4 * np.std(values) / np.sqrt(len(values))


def test_the_bias_is_gone():
    check_extrapolation(lambda rows, seed: frechet_infinity(rows, STANDARD, seed=seed).value)


def against(power):
    def extrapolated(rows, seed):
        """A line in N^power."""
        rng = np.random.default_rng(seed)
        sizes = np.linspace(30, 300, 15).astype(int)
        values = [frechet_distance(fit(rows[rng.choice(300, size, replace=False)]), STANDARD) for size in sizes]
        return np.polynomial.Polynomial.fit(sizes.astype(float) ** power, values, 1)(0.0)

    return extrapolated


BROKEN = {
    "no extrapolation": lambda rows, seed: frechet_distance(fit(rows), STANDARD),
    "against N": against(1),
    "against the root of 1 / N": against(-0.5),
    "the slope": lambda rows, seed: frechet_infinity(rows, STANDARD, seed=seed).slope,
    "the first rows again and again": lambda rows, seed: frechet_infinity(np.tile(rows[:60], (5, 1)), STANDARD).value,
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_check_of_bias_rejects(broken):
    with pytest.raises(AssertionError):
        check_extrapolation(BROKEN[broken])


def test_the_reference_line_is_exact_where_distances_lie_on_one(monkeypatch):
    """With distances 3 + 20 / N whatever the rows."""
    import genjax.metrics.frechet as module

    monkeypatch.setattr(module, "frechet_distance", lambda a, b: 3.0 + 20.0 / a.count)
    found = frechet_infinity(np.random.default_rng(0).normal(size=(100, D)), STANDARD)
    assert found == pytest.approx((3.0, 0.0, 20.0), abs=1e-9)


def test_the_slope_is_the_bias():
    slopes = [
        frechet_infinity(np.random.default_rng(seed).normal(size=(500, D)), STANDARD, seed=seed).slope
        for seed in range(100)
    ]
    # As in tests/test_frechet.py: tr(S) / N of the mean and D (D + 1) / (4 N) of the covariance.
    assert np.mean(slopes) == pytest.approx(D + D * (D + 1) / 4, rel=0.15)


def check_standard_error(estimate):
    """0.85 to 1.5 times the scatter over seeds, and +- 2 of them cover in at least 85 of 100."""
    for shift in (0.0, 0.5):
        found = []
        for seed in range(100):
            rows = np.random.default_rng(seed).normal(size=(300, D)) + shift
            found.append(estimate(rows, seed)[:2])
        values, errors = np.transpose(found)
        assert 0.85 < np.sqrt(np.mean(np.square(errors))) / np.std(values) < 1.5
        assert np.mean(np.abs(values - D * shift**2) < 2 * errors) >= 0.85


def test_the_standard_error_is_that_over_samples():
    check_standard_error(lambda rows, seed: frechet_infinity(rows, STANDARD, seed=seed))


def test_the_check_of_the_standard_error_rejects():
    def of_least_squares(rows, seed):
        """The residuals' alone, as if the subsets were independent samples of the distribution."""
        rng = np.random.default_rng(seed)
        sizes = np.linspace(30, 300, 15).astype(int)
        values = [frechet_distance(fit(rows[rng.choice(300, size, replace=False)]), STANDARD) for size in sizes]
        design = np.stack([np.ones(15), 1 / sizes], axis=1)
        line, squares = np.linalg.lstsq(design, np.array(values))[:2]
        return line[0], np.sqrt(squares[0] / 13 * np.linalg.inv(design.T @ design)[0, 0])

    with pytest.raises(AssertionError):
        check_standard_error(of_least_squares)


def test_it_comes_from_the_rows_the_reference_and_the_seed_alone():
    rows = np.random.default_rng(1).normal(size=(200, D)).astype(np.float32)
    found = frechet_infinity(rows, STANDARD)
    assert frechet_infinity(rows, STANDARD) == found
    assert frechet_infinity(rows.astype(np.float64), STANDARD) == pytest.approx(found, rel=1e-9)
    assert frechet_infinity(rows, STANDARD, seed=1) != found
    assert frechet_infinity(rows, STANDARD, smallest=100) != found


def test_a_flat_set_has_a_distance_to_its_own_kind():
    rng = np.random.default_rng(2)
    turn = np.linalg.qr(rng.normal(size=(D, D)))[0][:2]
    flat = Gaussian(np.zeros(D), turn.T @ turn, 10**9)
    found = frechet_infinity(rng.normal(size=(400, 2)) @ turn, flat)
    assert abs(found.value) < 4 * found.standard_error


@pytest.mark.parametrize(
    ("features", "settings", "message"),
    [
        (np.zeros((9, D)), {}, "smallest=4 of 9 rows of 4 dimensions; accepted: above 4 and at most 4"),
        (np.zeros((100, D)), {"smallest": 4}, "smallest=4 of 100 rows"),
        (np.zeros((100, D)), {"smallest": 51}, "smallest=51 of 100 rows of 4 dimensions; accepted: .* at most 50"),
        (np.zeros((100, D)), {"points": 2}, "points=2 do not show how well a line fits; accepted: at least 3"),
        (np.zeros(100), {}, r"features has shape \(100,\); accepted: \[N, D\]"),
        (np.full((100, D), np.nan), {}, "features holds a number that is not finite"),
        (np.zeros((100, D + 1)), {}, "5 and 4 dimensions"),
    ],
)
def test_what_is_not_extrapolated(features, settings, message):
    with pytest.raises(ValueError, match=message):
        frechet_infinity(features, STANDARD, **settings)


# Class by class.


def check_classes(distances):
    rng = np.random.default_rng(3)
    names = np.array([7, 2, 5])
    labels, reference_labels = rng.permutation(np.repeat(names, 40)), rng.permutation(np.repeat(names, 30))
    reference = rng.normal(size=(90, D)) + reference_labels[:, None]
    features = rng.normal(size=(120, D)) + labels[:, None]
    found = distances(features, labels, reference, reference_labels)
    assert found.labels.tolist() == [2, 5, 7]
    for name, distance in zip(found.labels, found.distances, strict=True):
        of_class = fit(features[labels == name]), fit(reference[reference_labels == name])
        assert distance == pytest.approx(frechet_distance(*of_class), rel=1e-12)
    assert found.mean == pytest.approx(found.distances.mean())
    # Each class moved by its own vector.
    moves = {2: 1.0, 5: 2.0, 7: 3.0}
    moved = reference + np.array([moves[label] for label in reference_labels])[:, None]
    found = distances(moved, reference_labels, reference, reference_labels)
    assert found.distances == pytest.approx([D * 1.0, D * 4.0, D * 9.0], rel=1e-9)
    # Classes mistaken for each other are the same set of rows.
    mistaken = np.where(reference_labels == 2, 5, np.where(reference_labels == 5, 2, 7))
    assert distances(reference, mistaken, reference, reference_labels).mean > 10
    assert frechet_distance(fit(reference), fit(reference)) == pytest.approx(0, abs=1e-9)


def test_each_class_has_its_distance():
    check_classes(class_frechet_distances)


@pytest.mark.parametrize(
    "broken",
    [
        lambda x, labels, y, reference_labels: class_frechet_distances(x, np.sort(labels), y, reference_labels),
        lambda x, labels, y, reference_labels: class_frechet_distances(y, reference_labels, x, labels)._replace(
            mean=0.0
        ),
        lambda x, labels, y, reference_labels: class_frechet_distances(x, 0 * labels, y, 0 * reference_labels),
    ],
)
def test_the_check_of_classes_rejects(broken):
    with pytest.raises(AssertionError):
        check_classes(broken)


def test_classes_with_too_few_rows_are_refused():
    rng = np.random.default_rng(4)
    x, labels = rng.normal(size=(20, D)), np.r_[np.zeros(16, int), np.ones(4, int)]
    with pytest.raises(ValueError, match="class 1 has 4 rows of features; accepted: at least min_rows=5"):
        class_frechet_distances(x, labels, x, labels)
    assert class_frechet_distances(x, labels, x, labels, min_rows=4).mean == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="class 2 has 0 rows of features"):
        class_frechet_distances(x, labels * 0, x, labels * 2, min_rows=2)
    with pytest.raises(ValueError, match="class 1 has 0 rows of reference"):
        class_frechet_distances(x, labels, x, labels * 0, min_rows=2)
    with pytest.raises(ValueError, match="min_rows=1 have no covariance; accepted: at least 2"):
        class_frechet_distances(x, labels, x, labels, min_rows=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(20)}, r"labels are float64 \(20,\); accepted: integers, one a row, \(20,\)"),
        ({"reference_labels": np.zeros(19, int)}, r"reference_labels are int64 \(19,\); accepted"),
        ({"reference": np.zeros((20, D + 1))}, "features has 4 dimensions, reference has 5"),
        ({"features": np.full((20, D), np.inf)}, "features holds a number that is not finite"),
    ],
)
def test_what_has_no_distance_by_class(change, message):
    rows, labels = np.zeros((20, D)), np.zeros(20, int)
    given = {"features": rows, "labels": labels, "reference": rows, "reference_labels": labels} | change
    with pytest.raises(ValueError, match=message):
        class_frechet_distances(**given)
