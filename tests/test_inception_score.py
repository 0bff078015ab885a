"""The Inception score: closed forms, a direct reference, splits, probabilities of 0, and its entropies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genjax.metrics.inception_score import class_entropies, inception_score

K = 5


def probabilities(logits):
    p = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def reference(logits, splits):
    """exp of the mean KL divergence of each split, term by term; every probability above 0."""
    p = probabilities(logits)
    scores = []
    for i in range(splits):
        part = p[i * len(p) // splits : (i + 1) * len(p) // splits]
        scores.append(np.exp(np.mean([np.sum(row * np.log(row / part.mean(axis=0))) for row in part])))
    return np.mean(scores), np.std(scores)


def sure(labels, no=-np.inf, yes=0.0):
    return np.where(np.eye(K)[labels] > 0, yes, no)


def check_closed_forms(score):
    rng = np.random.default_rng(0)
    # Sure of every image and all classes equally often: K. Of 2 classes: 2. The same answer for all: 1.
    assert score(sure(np.arange(100) % K), 10) == pytest.approx((K, 0), abs=1e-9)
    assert score(sure(np.arange(100) % 2), 10) == pytest.approx((2, 0), abs=1e-9)
    assert score(np.tile(rng.normal(size=K), (100, 1)), 10) == pytest.approx((1, 0), abs=1e-9)
    # Classes 3 to 1: the exponential of the entropy.
    expected = np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))
    assert score(sure(np.arange(80) % 4 // 3), 10) == pytest.approx((expected, 0), abs=1e-9)
    # Half of the splits at 1 and half at K.
    labels = np.r_[np.zeros(50, int), np.arange(50) % K]
    assert score(sure(labels), 10) == pytest.approx(((1 + K) / 2, (K - 1) / 2), abs=1e-9)


def ours(logits, splits):
    return inception_score(logits, splits=splits)


def test_closed_forms():
    check_closed_forms(ours)


def swapped(logits, splits):
    """KL(p(y) || p(y|x)), where finite."""
    p = probabilities(np.maximum(logits, -30))
    return np.exp(np.mean(np.sum(p.mean(0) * (np.log(p.mean(0)) - np.log(p)), axis=1))), 0.0


BROKEN = {
    "the divergence the other way": swapped,
    "splits interleaved": lambda logits, splits: ours(
        np.concatenate([logits[i::splits] for i in range(splits)]), splits
    ),
    "one split": lambda logits, splits: ours(logits, 1),
    "not exponentiated": lambda logits, splits: tuple(np.log(ours(logits, splits))),
    "the marginal's entropy alone": lambda logits, splits: (np.exp(class_entropies(logits).marginal), 0.0),
    "a sample's deviation": lambda logits, splits: (
        ours(logits, splits).mean,
        ours(logits, splits).standard_deviation * np.sqrt(splits / (splits - 1)),
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_closed_forms_reject(broken):
    with pytest.raises((AssertionError, FloatingPointError)), np.errstate(divide="ignore"):
        check_closed_forms(BROKEN[broken])


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(14, 40))
def test_it_is_the_definition(seed, splits, count):
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(count, K))
    found = inception_score(logits, splits=splits)
    assert found == pytest.approx(reference(logits, splits), rel=1e-10, abs=1e-10)
    assert 1 <= found.mean <= K
    # Logits of another height are the same answers, and log-probabilities are logits.
    assert inception_score(logits + rng.normal(size=(count, 1)), splits=splits) == pytest.approx(found, rel=1e-9)
    assert inception_score(np.log(probabilities(logits)), splits=splits) == pytest.approx(found, rel=1e-9)
    # Classes have no order. Rows have none within a split.
    assert inception_score(logits[:, rng.permutation(K)], splits=splits) == pytest.approx(found, rel=1e-9)
    if splits == 1:
        assert inception_score(logits[rng.permutation(count)], splits=1) == pytest.approx(found, rel=1e-9)
    same = inception_score(logits.astype(np.float32), splits=splits)
    assert same == pytest.approx(inception_score(logits.astype(np.float32).astype(np.float64), splits=splits))


def test_rows_of_one_class_a_split_see_no_other():
    labels = np.repeat(np.arange(K), 20)
    assert inception_score(sure(labels), splits=K).mean == pytest.approx(1.0)
    assert inception_score(sure(labels), splits=1).mean == pytest.approx(K)


def test_all_rows_are_in_a_split():
    labels = np.r_[np.zeros(20, int), np.array([1, 2, 3])]  # 23 rows: splits of 11 and 12
    low, high = 1.0, np.exp(class_entropies(sure(labels[11:])).marginal)
    assert inception_score(sure(labels), splits=2).mean == pytest.approx((low + high) / 2)


# Entropies.


def check_entropies(entropies):
    even = entropies(np.zeros((4, K)))
    assert even == pytest.approx((np.log(K), np.log(K), 0.0), abs=1e-12)
    assert entropies(sure(np.arange(10) % K)) == pytest.approx((np.log(K), 0.0, np.log(K)), abs=1e-12)
    assert entropies(sure(np.zeros(10, int))) == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)
    # One coin for the even rows, a class for the odd ones.
    logits = np.where(np.arange(6)[:, None] % 2 == 0, sure(0) + np.zeros(K), np.log([0.5, 0.5, 1e-300, 1e-300, 1e-300]))
    h = -0.75 * np.log(0.75) - 0.25 * np.log(0.25)
    assert entropies(logits) == pytest.approx((h, np.log(2) / 2, h - np.log(2) / 2), abs=1e-9)


def test_entropies():
    check_entropies(class_entropies)
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(50, K))
    assert np.exp(class_entropies(logits).information) == pytest.approx(inception_score(logits, splits=1).mean)
    assert class_entropies(logits[:1]).information == 0.0


@pytest.mark.parametrize(
    "broken",
    [
        lambda logits: tuple(h / np.log(2) for h in class_entropies(logits)),
        lambda logits: class_entropies(np.maximum(logits, -1.0)),
        lambda logits: (class_entropies(logits)[1], class_entropies(logits)[0], class_entropies(logits)[2]),
    ],
)
def test_the_check_of_entropies_rejects(broken):
    with pytest.raises(AssertionError):
        check_entropies(broken)


@pytest.mark.parametrize(
    ("logits", "splits", "message"),
    [
        (np.zeros(5), 1, r"logits are float64 \(5,\); accepted: real numbers \[N, K\]"),
        (np.zeros((5, 0)), 1, "accepted: real numbers"),
        (np.zeros((5, 2), complex), 1, "logits are complex128"),
        (np.zeros((19, 3)), 10, "19 rows in 10 splits; accepted: at least 1 split and 2 rows in each"),
        (np.zeros((19, 3)), 0, "19 rows in 0 splits"),
        (np.array([[0.0, np.nan]] * 4), 1, "NaN"),
        (np.array([[0.0, np.inf]] * 4), 1, "accepted: finite, and -inf for a probability 0"),
        (np.array([[0.0, 1.0], [-np.inf, -np.inf]] * 2), 1, "a row of -inf alone"),
    ],
)
def test_what_is_refused(logits, splits, message):
    with pytest.raises(ValueError, match=message):
        inception_score(logits, splits=splits)
