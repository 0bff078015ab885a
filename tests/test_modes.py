"""Modes of stacked digits by hand and for uniform draws; accuracy of a classifier trained on samples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from genjax.metrics import classification
from genjax.metrics.modes import ModeCoverage, classification_accuracy_score, mode_coverage, mode_numbers
from tests.reference import metrics_reference as reference

# Numbers of modes.


def check_numbers(mode_numbers):
    every = np.array(list(itertools.product(range(10), repeat=3)))
    np.testing.assert_array_equal(mode_numbers(every), np.arange(1000))
    np.testing.assert_array_equal(mode_numbers(np.array([[1, 2, 3], [0, 0, 7]], np.uint8)), [123, 7])
    pairs = np.array(list(itertools.product(range(4), repeat=2)))
    np.testing.assert_array_equal(mode_numbers(pairs, classes=4), np.arange(16))
    assert mode_numbers(np.array([[3] * 12], np.int8), classes=26)[0] == 3 * (26**12 - 1) // 25


def test_numbers():
    check_numbers(mode_numbers)


@pytest.mark.parametrize(
    "broken",
    [
        lambda d, classes=10: d.sum(1),
        lambda d, classes=10: d @ classes ** np.arange(d.shape[1]),
        lambda d, classes=10: d @ 10 ** np.arange(d.shape[1] - 1, -1, -1),
        lambda d, classes=10: d @ (classes ** np.arange(d.shape[1] - 1, -1, -1)).astype(d.dtype),
    ],
    ids=["their sum", "from the last", "always 10 classes", "in the digits' own type"],
)
def test_the_check_of_numbers_rejects(broken):
    with pytest.raises(AssertionError):
        check_numbers(broken)


# Coverage.


def check_coverage(mode_coverage):
    every = np.arange(1000)
    assert mode_coverage(every) == ModeCoverage(1000, 1000, pytest.approx(0.0, abs=1e-12))
    assert mode_coverage(np.full(50, 999)) == ModeCoverage(1, 1000, pytest.approx(np.log(1000)))
    half = mode_coverage(np.repeat(every[:500], 3))
    assert half == ModeCoverage(500, 1000, pytest.approx(np.log(2)))
    assert mode_coverage(np.array([0, 0, 0, 1]), 2).kl == pytest.approx(0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    # Against frequencies of the data; samples where it has none are infinitely far.
    target = np.array([0.5, 0.5, 0.0])
    assert mode_coverage(np.array([0, 1]), 3, target).kl == pytest.approx(0.0, abs=1e-12)
    assert mode_coverage(np.array([0, 0]), 3, target).kl == pytest.approx(np.log(2))
    assert mode_coverage(np.array([0, 2]), 3, target).kl == np.inf
    recorded = float(np.load(reference.RECORDED)["KL_to_uniform_modes"])
    assert mode_coverage(reference.frequencies(), 30).kl == pytest.approx(recorded, rel=1e-6)
    # What uniform draws miss, as the docstring says.
    found = [mode_coverage(np.random.default_rng(seed).integers(0, 1000, 4000)) for seed in range(30)]
    assert np.mean([1000 - f.found for f in found]) == pytest.approx(1000 * 0.999**4000, rel=0.2)
    assert np.mean([f.kl for f in found]) == pytest.approx(999 / 8000, rel=0.1)


def test_coverage():
    check_coverage(mode_coverage)


def with_kl(kl):
    def coverage(modes, count=1000, target=None):
        p = np.bincount(modes, minlength=count) / len(modes)
        q = np.full(count, 1 / count) if target is None else target
        return ModeCoverage(int((p > 0).sum()), count, float(kl(p, q)))

    return coverage


BROKEN = {
    "the other way round": with_kl(lambda p, q: stats.entropy(q, p)),
    "in bits": with_kl(lambda p, q: stats.entropy(p, q, base=2)),
    "the entropy": with_kl(lambda p, q: stats.entropy(p)),
    "always to uniform": with_kl(lambda p, q: stats.entropy(p, np.ones(len(p)))),
    "smoothed": with_kl(lambda p, q: stats.entropy(p + 1e-3, q + 1e-3)),
    "all modes up to the largest": lambda modes, count=1000, target=None: ModeCoverage(
        int(modes.max()) + 1, count, mode_coverage(modes, count, target).kl
    ),
    "of the modes that are found": lambda modes, count=1000, target=None: mode_coverage(
        modes, int(modes.max()) + 1, None if target is None else target[: modes.max() + 1] / target.sum()
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_check_of_coverage_rejects(broken):
    with pytest.raises((AssertionError, ValueError)):
        check_coverage(BROKEN[broken])


# The accuracy of a classifier trained on samples.


def check_accuracy(score):
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    labels = np.array([0, 0, 1, 0])
    found = score(logits, labels)
    assert found.accuracy == 0.25 and (found.low, found.high) == classification.wilson_interval(1, 4)
    np.testing.assert_array_equal(found.per_class, [1 / 3, 0.0, np.nan])
    # The second of the second row ties with the third: it is behind it.
    assert score(logits, labels, top=2).accuracy == 0.25
    assert score(logits, labels, top=3).accuracy == 1.0
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(500, 10)).astype(np.float32), rng.integers(0, 10, 500)
    assert score(logits, labels).accuracy == classification.accuracy(logits, labels)
    top5 = np.mean([label in np.argsort(row)[-5:] for row, label in zip(logits, labels, strict=True)])
    assert score(logits, labels, top=5).accuracy == top5
    table = classification.confusion_matrix(logits.argmax(-1), labels, 10)
    np.testing.assert_allclose(score(logits, labels).per_class, np.diag(table) / table.sum(1))
    # A classifier that answers the same for all is right by no chance.
    assert score(np.zeros((4, 3)), np.array([0, 1, 2, 0])).accuracy == 0.0


def test_accuracy():
    check_accuracy(classification_accuracy_score)


def precision(logits, labels, top=1):
    found = classification_accuracy_score(logits, labels, top)
    table = classification.confusion_matrix(logits.argmax(-1), labels, logits.shape[1])
    with np.errstate(invalid="ignore"):
        return type(found)(found.accuracy, found.low, found.high, np.diag(table) / table.sum(0))


BROKEN_ACCURACY = {
    "of what is answered": precision,
    "ties are right": lambda logits, labels, top=1: classification_accuracy_score(
        logits + 1e-9 * np.eye(logits.shape[1])[labels], labels, top
    ),
    "one more than top": lambda logits, labels, top=1: classification_accuracy_score(
        logits, labels, min(top + 1, logits.shape[1])
    ),
}


@pytest.mark.parametrize("broken", BROKEN_ACCURACY)
def test_the_check_of_accuracy_rejects(broken):
    with pytest.raises(AssertionError):
        check_accuracy(BROKEN_ACCURACY[broken])


# What is refused.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mode_numbers(np.zeros(3, int)), r"accepted: integers \[N, S\]"),
        (lambda: mode_numbers(np.zeros((0, 3), int)), r"accepted: integers \[N, S\]"),
        (lambda: mode_numbers(np.zeros((2, 3))), "digits are float64"),
        (lambda: mode_numbers(np.full((2, 3), 10)), "span 10 to 10; accepted: 0 to 9"),
        (lambda: mode_numbers(np.full((2, 3), -1)), "span -1 to -1"),
        (lambda: mode_coverage(np.zeros(0, int)), "at least one"),
        (lambda: mode_coverage(np.zeros(3)), r"accepted: integers \[N\]"),
        (lambda: mode_coverage(np.array([0, 5]), 5), "span 0 to 5; accepted: 0 to 4"),
        (lambda: mode_coverage(np.array([0]), 2, np.ones(2)), r"accepted: \[2\] probabilities that sum to 1"),
        (lambda: mode_coverage(np.array([0]), 2, np.ones(3) / 3), r"accepted: \[2\] probabilities"),
        (lambda: mode_coverage(np.array([0]), 2, np.array([1.5, -0.5])), "probabilities"),
        (lambda: classification_accuracy_score(np.zeros((2, 3)), np.zeros(3, int)), r"accepted: \[N, K\] and int"),
        (lambda: classification_accuracy_score(np.zeros((2, 3)), np.zeros(2)), "labels float64"),
        (lambda: classification_accuracy_score(np.zeros((2, 3)), np.array([0, 3])), "accepted: 0 to 2"),
        (lambda: classification_accuracy_score(np.zeros((2, 3)), np.zeros(2, int), 4), "top is 4; accepted: 1 to 3"),
        (lambda: classification_accuracy_score(np.full((2, 3), np.nan), np.zeros(2, int)), "hold NaN"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
