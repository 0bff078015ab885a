"""The kernel distance: no bias, closed forms, a direct reference, standard errors, and what changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genjax.metrics.kernel import full_kernel_distance, kernel_distance


def kernel(a, b, power=3, offset=1.0, scale=None):
    return (a @ b.T / (scale or a.shape[1]) + offset) ** power


def unbiased(a, b, kernel=kernel):
    """By the definition, with the whole matrices."""
    n, m = len(a), len(b)
    within_a, within_b = (kernel(x, x)[~np.eye(len(x), dtype=bool)].sum() for x in (a, b))
    return within_a / (n * (n - 1)) + within_b / (m * (m - 1)) - 2 * kernel(a, b).mean()


def biased(a, b):
    return kernel(a, a).mean() + kernel(b, b).mean() - 2 * kernel(a, b).mean()


def value(a, b):
    return full_kernel_distance(a, b).value


# Closed forms.


def check_closed_forms(distance):
    # All rows of a set alike: the diagonal is like the rest, and the embeddings are those of two points.
    x, y = np.array([1.0, 2.0, -1.0, 0.5]), np.array([0.0, -2.0, 0.5, 1.0])
    k = lambda u, v: (u @ v / 4 + 1) ** 3  # noqa: E731
    expected = k(x, x) + k(y, y) - 2 * k(x, y)
    assert distance(np.tile(x, (5, 1)), np.tile(y, (7, 1))) == pytest.approx(expected, rel=1e-12)
    # Two signs in one dimension against 0: k = (xy + 1)^3 is 8 or 0, then 1 and 1. Off the diagonal of (1, 1, -1, -1),
    # 4 of 12 pairs have equal signs.
    signs, zeros = np.array([[1.0], [1.0], [-1.0], [-1.0]]), np.zeros((3, 1))
    assert distance(signs, zeros) == pytest.approx(8 * 4 / 12 + 1 - 2, rel=1e-12)


def test_closed_forms():
    check_closed_forms(value)


BROKEN = {
    "biased": biased,
    "quadratic": lambda a, b: unbiased(a, b, lambda x, y: kernel(x, y, power=2)),
    "no offset": lambda a, b: unbiased(a, b, lambda x, y: kernel(x, y, offset=0.0)),
    "not over D": lambda a, b: unbiased(a, b, lambda x, y: kernel(x, y, scale=1.0)),
    "the cross term once": lambda a, b: unbiased(a, b) + kernel(a, b).mean(),
    "the root of it": lambda a, b: np.sqrt(abs(unbiased(a, b))),
    "the diagonal in the count": lambda a, b: (
        unbiased(a, b)
        - sum((kernel(x, x).sum() - np.trace(kernel(x, x))) / (len(x) ** 2 * (len(x) - 1)) for x in (a, b))
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_closed_forms_reject(broken):
    with pytest.raises(AssertionError):
        check_closed_forms(BROKEN[broken])


def moments_distance(mean):
    """MMD^2 of N(mean, 1) and N(0, 1): (x y + 1)^3 = 1 + 3 x y + 3 (x y)^2 + (x y)^3 compares their moments."""
    moments = np.array([1, mean, mean**2 + 1, mean**3 + 3 * mean])
    return np.array([1, 3, 3, 1]) @ np.square(moments - [1, 0, 1, 0])


def check_no_bias(distance):
    """Over 400 seeds the mean is that of the distributions, which for equal ones is 0, within four standard errors."""
    for mean, rows in ((0.0, 5), (0.0, 20), (0.4, 20)):
        rng = np.random.default_rng(0)
        values = [distance(rng.normal(size=(rows, 1)) + mean, rng.normal(size=(2 * rows, 1))) for _ in range(400)]
        assert abs(np.mean(values) - moments_distance(mean)) < 4 * np.std(values) / np.sqrt(len(values))


def test_it_has_no_bias():
    check_no_bias(value)
    check_no_bias(lambda a, b: kernel_distance(a, b, subsets=4, subset_size=len(a) // 2 + 1).mean)


@pytest.mark.parametrize("broken", ["biased", "the diagonal in the count", "the root of it"])
def test_the_check_of_bias_rejects(broken):
    distance = (lambda a, b: max(unbiased(a, b), 0.0)) if broken == "the root of it" else BROKEN[broken]
    with pytest.raises(AssertionError):
        check_no_bias(distance)


# The definition, and what changes nothing.


@given(st.integers(0, 2**32 - 1), st.integers(3, 40), st.integers(3, 40), st.integers(1, 9), st.integers(1, 50))
def test_it_is_the_definition_whatever_the_block_size(seed, n, m, dims, block_size):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, dims)), rng.normal(size=(m, dims)) + 0.5
    found = full_kernel_distance(a, b, block_size=block_size)
    assert found.value == pytest.approx(unbiased(a, b), rel=1e-10, abs=1e-10)
    assert found == pytest.approx(full_kernel_distance(a, b), rel=1e-9, abs=1e-12)
    # Neither the order of rows nor that of sets, nor a rotation of both; but moving both is another kernel.
    order = rng.permutation(n)
    turn = np.linalg.qr(rng.normal(size=(dims, dims)))[0]
    assert full_kernel_distance(a[order], b) == pytest.approx(found, rel=1e-9, abs=1e-10)
    assert full_kernel_distance(b, a) == pytest.approx(found, rel=1e-9, abs=1e-10)
    assert full_kernel_distance(a @ turn, b @ turn) == pytest.approx(found, rel=1e-8, abs=1e-9)
    assert value(a + 1.0, b + 1.0) != pytest.approx(found.value, rel=1e-3)


def test_float32_and_integers_are_summed_in_float64():
    rng = np.random.default_rng(1)
    # Kernel values near 1000 that differ in the sixth digit.
    a, b = (9 + 0.01 * rng.normal(size=(300, 8)).astype(np.float32) for _ in range(2))
    b = b + np.float32(1e-3)
    exact = unbiased(a.astype(np.float64), b.astype(np.float64))
    assert value(a, b) == pytest.approx(exact, rel=1e-6)
    single = unbiased(a, b)
    assert single.dtype == np.float32 and single != pytest.approx(exact, rel=1e-4)
    bits = rng.integers(0, 256, (20, 4), np.uint8)
    assert value(bits, bits[::-1] // 2) == value(bits.astype(np.float64), bits[::-1] // 2 * 1.0)


# Standard errors.


def jackknife(a, b):
    """By leaving out one row after the other."""
    total = 0.0
    for without in (
        [unbiased(np.delete(a, i, 0), b) for i in range(len(a))],
        [unbiased(a, np.delete(b, i, 0)) for i in range(len(b))],
    ):
        total += (len(without) - 1) * np.var(without)
    return np.sqrt(total)


def check_jackknife(error):
    rng = np.random.default_rng(2)
    for n, m in ((3, 3), (5, 12), (20, 7)):
        a, b = rng.normal(size=(n, 3)), rng.normal(size=(m, 3)) + 1
        assert error(a, b) == pytest.approx(jackknife(a, b), rel=1e-9)


def test_the_standard_error_is_the_jackknife():
    check_jackknife(lambda a, b: full_kernel_distance(a, b).standard_error)


def test_the_check_of_the_jackknife_rejects():
    for broken in (
        lambda a, b: jackknife(a, a),
        lambda a, b: full_kernel_distance(a, b).standard_error * np.sqrt(len(a) / (len(a) - 1)),
    ):
        with pytest.raises(AssertionError):
            check_jackknife(broken)


def check_standard_error(estimate):
    """Covers the truth in 90 to 100 of 100 seeds, and on average is 0.9 to 2.6 times the scatter over seeds."""
    for mean in (0.0, 0.5):
        values, errors = [], []
        for seed in range(100):
            rng = np.random.default_rng(seed)
            found = estimate(rng.normal(size=(300, 1)) + mean, rng.normal(size=(300, 1)), seed)
            values.append(found[0])
            errors.append(found[1])
        covered = np.abs(np.array(values) - moments_distance(mean)) < 1.96 * np.array(errors)
        assert covered.mean() >= 0.9
        assert 0.9 < np.sqrt(np.mean(np.square(errors))) / np.std(values) < 2.6


def test_the_standard_errors_cover_what_they_should():
    check_standard_error(lambda a, b, seed: full_kernel_distance(a, b))
    check_standard_error(lambda a, b, seed: kernel_distance(a, b, subsets=20, subset_size=100, seed=seed))


def test_the_check_of_standard_errors_rejects():
    def scatter_over_subsets(a, b, seed):
        found = kernel_distance(a, b, subsets=20, subset_size=100, seed=seed)
        return found.mean, found.standard_deviation / np.sqrt(20)

    def of_a_subset(a, b, seed):
        found = kernel_distance(a, b, subsets=20, subset_size=30, seed=seed)
        return found.mean, 2 * found.standard_deviation

    for broken in (scatter_over_subsets, of_a_subset):
        with pytest.raises(AssertionError):
            check_standard_error(broken)


# Subsets.


def test_subsets_are_drawn_from_the_seed_and_share_no_row_within():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(60, 5)), rng.normal(size=(50, 5)) + 0.3
    found = kernel_distance(a, b, subsets=10, subset_size=20, seed=4)
    assert found == kernel_distance(a, b, subsets=10, subset_size=20, seed=4)
    assert found != kernel_distance(a, b, subsets=10, subset_size=20, seed=5)
    # Every row once is the full estimate, each time: a subset drawn with replacement would not be.
    whole = kernel_distance(a[:50], b, subsets=5, subset_size=50)
    assert whole.mean == pytest.approx(value(a[:50], b), rel=1e-12)
    assert whole.standard_deviation == pytest.approx(0.0, abs=1e-12)
    assert whole.standard_error == pytest.approx(full_kernel_distance(a[:50], b).standard_error, rel=1e-9)
    many = kernel_distance(a, b, subsets=2000, subset_size=20)
    assert many.mean == pytest.approx(value(a, b), abs=4 * many.standard_deviation / np.sqrt(2000))


def test_fewer_rows_than_dimensions():
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(6, 100)), rng.normal(size=(4, 100))
    assert value(a, b) == pytest.approx(unbiased(a, b), rel=1e-10)


@pytest.mark.parametrize("distance", [kernel_distance, full_kernel_distance])
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.zeros((2, 3)), np.zeros((9, 3)), "a has 2 rows; accepted: at least 3"),
        (np.zeros((9, 3)), np.zeros((9, 4)), "a has 3 dimensions, b has 4"),
        (np.zeros((9, 3)), np.zeros(9), r"b has shape \(9,\); accepted: \[N, D\]"),
        (np.zeros((9, 0)), np.zeros((9, 0)), r"a has shape \(9, 0\); accepted"),
        (np.full((9, 3), np.nan), np.zeros((9, 3)), "a holds a number that is not finite"),
        (np.zeros((9, 3)), np.full((9, 3), -np.inf, np.float32), "b holds a number that is not finite"),
        (np.zeros((9, 3), complex), np.zeros((9, 3)), "a has dtype complex128; accepted: float16"),
    ],
)
def test_what_is_refused(distance, a, b, message):
    with pytest.raises(ValueError, match=message):
        distance(a, b)


def test_settings_that_are_refused():
    a, b = np.zeros((9, 2)), np.zeros((7, 2))
    with pytest.raises(ValueError, match="subset_size=1000 of 9 and 7 rows; accepted: 3 to 7"):
        kernel_distance(a, b)
    with pytest.raises(ValueError, match="subset_size=2 of 9"):
        kernel_distance(a, b, subset_size=2)
    with pytest.raises(ValueError, match="subsets=1 have no scatter; accepted: at least 2"):
        kernel_distance(a, b, subsets=1, subset_size=5)
    with pytest.raises(ValueError, match="block_size=0 is too small"):
        full_kernel_distance(a, b, block_size=0)
