"""Metrics: against scipy, by hand, and on synthetic classifiers whose calibration is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from genjax.metrics import classification
from genjax.metrics.reduce import MaskedMean


def random_answers(count=200, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, classes)) * 2).astype(np.float32), rng.integers(0, classes, count)


def test_accuracy_and_likelihood_by_hand():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    labels = np.array([0, 0, 1, 2])
    assert classification.accuracy(logits, labels) == 0.5
    expected = -np.mean(np.log([0.7, 0.3, 0.25, 0.8]))
    assert classification.negative_log_likelihood(logits, labels) == pytest.approx(expected)
    assert classification.negative_log_likelihood(logits + 1e4, labels) == pytest.approx(expected)
    np.testing.assert_allclose(classification.log_softmax(logits), special.log_softmax(logits, axis=-1))
    assert np.isfinite(classification.log_softmax(np.array([[1e30, -1e30]], np.float32))).all()


# Calibration.


def synthetic(confidence, hit_rate):
    """Two-class logits of the given confidences, each right exactly as often as its rate says."""
    count = 2000
    logits, labels = [], []
    for p, rate in zip(confidence, hit_rate, strict=True):
        logits.append(np.tile(np.log([p, 1 - p]), (count, 1)))
        labels.append((np.arange(count) >= round(rate * count)).astype(int))
    return np.concatenate(logits), np.concatenate(labels)


def check_calibration_error(calibration_error):
    levels = np.array([0.55, 0.65, 0.75, 0.85, 0.95])
    assert calibration_error(*synthetic(levels, levels)) == pytest.approx(0.0, abs=1e-9)
    # Always 20 points too sure; then too sure and too timid, which must not cancel.
    assert calibration_error(*synthetic(levels, levels - 0.2)) == pytest.approx(0.2, abs=1e-9)
    mixed = levels + np.array([0.1, -0.1, 0.1, -0.1, 0.0])
    assert calibration_error(*synthetic(levels, mixed)) == pytest.approx(0.08, abs=1e-9)
    # Unequal weights: three quarters of the answers are 0.4 off, the others are right.
    logits, labels = synthetic([0.9, 0.9, 0.9, 0.6], [0.5, 0.5, 0.5, 0.6])
    assert calibration_error(logits, labels) == pytest.approx(0.3, abs=1e-9)
    # Certain and right: the last bin holds a confidence of exactly 1.
    assert calibration_error(np.array([[1000.0, 0.0]]), np.array([0])) == 0.0
    logits, _ = random_answers(40000)
    drawn = (np.random.default_rng(1).random((40000, 1)) > np.cumsum(special.softmax(logits, -1), -1)).sum(-1)
    assert calibration_error(logits, np.minimum(drawn, 3)) < 0.01


def test_calibration_error_of_known_classifiers():
    check_calibration_error(classification.expected_calibration_error)


def one_bin(logits, labels):
    confidence = special.softmax(logits, axis=-1).max(-1)
    return abs(np.mean(confidence) - classification.accuracy(logits, labels))


def unweighted(logits, labels, bins=15):
    confidence = special.softmax(logits, axis=-1).max(-1)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    right = logits.argmax(-1) == labels
    return np.mean([abs(right[place == b].mean() - confidence[place == b].mean()) for b in np.unique(place)])


def of_the_label(logits, labels):
    return float(np.mean(1 - special.softmax(logits, -1)[np.arange(len(labels)), labels]))


@pytest.mark.parametrize("broken", [one_bin, unweighted, of_the_label])
def test_the_calibration_check_rejects(broken):
    with pytest.raises(AssertionError):
        check_calibration_error(broken)


# Confusion and intervals.


def check_confusion(confusion_matrix):
    labels, predicted = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 0, 2, 2])
    expected = [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]]
    assert confusion_matrix(predicted, labels.astype(np.int32), 4).tolist() == expected


def test_confusion_matrix_by_hand():
    check_confusion(classification.confusion_matrix)
    with pytest.raises(AssertionError):
        check_confusion(lambda predicted, labels, k: classification.confusion_matrix(labels, predicted, k))


def check_interval(interval):
    for successes, count in [(0, 10), (10, 10), (7, 10), (1, 1), (9371, 10000), (3, 1000), (0, 10000), (777, 777)]:
        expected = stats.binomtest(successes, count).proportion_ci(0.95, method="wilson")
        low, high = interval(successes, count)
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-7)
        assert 0.0 <= low <= successes / count <= high <= 1.0


def wald(successes, count):
    p = successes / count
    half = 1.959964 * np.sqrt(p * (1 - p) / count)
    return p - half, p + half


def test_wilson_interval_is_scipys():
    check_interval(classification.wilson_interval)
    for broken in (wald, lambda s, n: classification.wilson_interval(s, n, 1.644854)):
        with pytest.raises(AssertionError):
            check_interval(broken)


# Means over padded batches.


def in_batches(reducer, values, batch_size, padding):
    for start in range(0, len(values), batch_size):
        part = values[start : start + batch_size]
        missing = batch_size - len(part)
        mask = np.r_[np.ones(len(part), np.float32), np.zeros(missing, np.float32)]
        reducer.add({"value": np.r_[part, np.full(missing, padding, np.float32)]}, mask)
    return reducer


def check_mean(make):
    values = np.random.default_rng(0).normal(-120.0, 30.0, 103).astype(np.float32)
    for batch_size, padding in [(103, 0.0), (10, 0.0), (10, 1e6), (64, np.nan), (1, np.nan), (200, np.inf)]:
        reducer = in_batches(make(), values, batch_size, padding)
        exact = values.astype(np.float64)
        assert reducer.count == 103
        assert reducer.means()["value"] == pytest.approx(exact.mean(), rel=1e-13)
        assert reducer.standard_errors()["value"] == pytest.approx(exact.std(ddof=1) / np.sqrt(103), rel=1e-9)


def test_masked_mean_is_exact_whatever_the_padding():
    check_mean(MaskedMean)


class Unmasked(MaskedMean):
    def add(self, values, mask):
        super().add(values, np.ones_like(mask))


class Multiplied(MaskedMean):
    """Multiplies by the mask, so that a NaN in the padding stays."""

    def add(self, values, mask):
        super().add({k: v * mask for k, v in values.items()}, np.ones_like(mask))
        self._count -= float((1 - mask).sum())


class MeanOfMeans(MaskedMean):
    def add(self, values, mask):
        real = {name: np.full(1, value[mask > 0].mean()) for name, value in values.items()}
        super().add(real, np.ones(1))

    @property
    def count(self):
        return 103


class DeviationOfOne(MaskedMean):
    def standard_errors(self):
        return {name: error * np.sqrt(self.count) for name, error in super().standard_errors().items()}


@pytest.mark.parametrize("broken", [Unmasked, Multiplied, MeanOfMeans, DeviationOfOne])
def test_the_mean_check_rejects(broken):
    with np.errstate(invalid="ignore"), pytest.raises(AssertionError):
        check_mean(broken)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40), st.integers(1, 12))
def test_masked_mean_does_not_depend_on_the_batch_size(values, batch_size):
    values = np.array(values, np.float32)
    reducer = in_batches(MaskedMean(), values, batch_size, np.nan)
    assert reducer.means()["value"] == pytest.approx(values.astype(np.float64).mean(), rel=1e-9, abs=1e-6)


def test_masked_mean_shows_a_bad_value_and_refuses_another_shape():
    reducer = in_batches(MaskedMean(), np.array([1.0, np.nan, 3.0], np.float32), 2, 0.0)
    assert np.isnan(reducer.means()["value"]) and np.isnan(reducer.standard_errors()["value"])
    for shape in [(), (3,), (2, 1)]:
        with pytest.raises(ValueError, match="one value per example"):
            MaskedMean().add({"value": np.zeros(shape)}, np.ones(2))
    single = in_batches(MaskedMean(), np.array([4.0], np.float32), 3, np.nan)
    assert single.means() == {"value": 4.0} and single.standard_errors() == {"value": 0.0}


def check_by_class(by_class):
    table = by_class(np.array([[8, 2, 0], [1, 3, 0], [0, 0, 0]]))
    assert [row["examples"] for row in table] == [10, 4, 0]
    assert [row["recall"] for row in table[:2]] == [0.8, 0.75]
    assert [row["precision"] for row in table[:2]] == pytest.approx([8 / 9, 3 / 5])
    # The harmonic mean of precision and recall.
    assert [row["f1"] for row in table[:2]] == pytest.approx([2 / (1 / 0.8 + 9 / 8), 2 / (1 / 0.75 + 5 / 3)])
    assert table[0]["recall_low"] < 0.8 < table[0]["recall_high"]
    assert table[2] == {"examples": 0}


def test_table_by_class_by_hand():
    check_by_class(classification.by_class)
    with pytest.raises(AssertionError):
        check_by_class(lambda matrix: classification.by_class(matrix.T))


def test_a_class_that_is_never_named_has_no_precision():
    assert "precision" not in classification.by_class(np.array([[0, 3], [0, 5]]))[0]
