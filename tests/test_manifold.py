"""k-nearest-neighbour metrics: known sets, a direct reference, near-duplicates, blocks, and what changes nothing."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from genjax.metrics.manifold import density_coverage, manifold_metrics, nearest_distances, precision_recall


def direct(a, b):
    """Squared distances as sums of squared differences, in float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.square(a[:, None] - b[None]).sum(axis=2)


def reference(real, generated, k, squares=direct, closed=True):
    """All four by their definitions, with whole matrices."""
    radii = [
        np.partition(squares(x, x) + np.diag(np.full(len(x), np.inf)), k - 1, axis=1)[:, k - 1]
        for x in (real, generated)
    ]
    across = squares(real, generated)
    below = np.less_equal if closed else np.less
    in_real, in_generated = below(across, radii[0][:, None]), below(across, radii[1][None])
    density = in_real.sum() / (k * len(generated))
    return in_real.any(axis=0).mean(), in_generated.any(axis=1).mean(), density, in_real.any(axis=1).mean()


def metrics(real, generated, k):
    return tuple(manifold_metrics(real, generated, k=k))


# Known sets.


def check_known_sets(metrics):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(60, 3)).astype(np.float32)
    # Identical: in every ball are the row itself and the k others that it reaches to.
    assert metrics(a, a, 4) == pytest.approx((1, 1, 5 / 4, 1))
    # Disjoint.
    assert metrics(a, a + 1000, 4) == (0, 0, 0, 0)
    # A line of real rows at 0, 1, 2, 3, 4 with k = 1: balls of radius 1. One at 0.5 is in two, one at 9 in none. The
    # generated rows have balls of radius 8.5: that of 0.5 holds all real rows.
    line = np.arange(5.0)[:, None]
    assert metrics(line, np.array([[0.5], [9.0]]), 1) == pytest.approx((1 / 2, 1, 2 / 2, 2 / 5))
    assert metrics(line, np.array([[0.5], [9.0]]) + 9, 1) == pytest.approx((0, 1 / 5 * 4, 0, 0))
    # k = 2: balls of radius 2, 1, 1, 1, 2. All hold 2.0; those about 2, 3 and 4 hold 2.1 and 2.2. Just one real row is
    # as near to these as they are to each other.
    near = np.array([[2.0], [2.1], [2.2]])
    assert metrics(line, near, 2) == pytest.approx((1, 1 / 5, (5 + 3 + 3) / 6, 1))
    # In the plane, balls of radius 3 and 7: (2, 2) is sqrt(8) and sqrt(5) from the real rows.
    plane = np.array([[0.0, 0.0], [3.0, 0.0]]), np.array([[2.0, 2.0], [2.0, 9.0]])
    assert metrics(*plane, 1) == pytest.approx((1 / 2, 1, 1, 1))


def test_known_sets():
    check_known_sets(metrics)


def broken_by(change):
    return lambda real, generated, k: change(real, generated, k, *reference(real, generated, k))


BROKEN = {
    "density over rows of the real set": broken_by(lambda a, b, k, p, r, d, c: (p, r, d * len(b) / len(a), c)),
    "density without k": broken_by(lambda a, b, k, p, r, d, c: (p, r, d * k, c)),
    "density over k + 1": broken_by(lambda a, b, k, p, r, d, c: (p, r, d * k / (k + 1), c)),
    "precision and recall swapped": broken_by(lambda a, b, k, p, r, d, c: (r, p, d, c)),
    "radii from the wrong set": lambda a, b, k: reference(b, a, k),
    "coverage by balls of the generated set": broken_by(lambda a, b, k, p, r, d, c: (p, r, d, r)),
    "the row itself is its first neighbour": lambda a, b, k: reference(a, b, k - 1) if k > 1 else (0, 0, 0, 0),
    "one neighbour further": lambda a, b, k: reference(a, b, min(k + 1, len(a) - 1, len(b) - 1)),
    "open balls": lambda a, b, k: reference(a, b, k, closed=False),
    "city blocks": lambda a, b, k: reference(a, b, k, lambda x, y: cdist(x, y, "cityblock")),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_known_sets_reject(broken):
    with pytest.raises(AssertionError):
        check_known_sets(BROKEN[broken])


def check_equal_distributions(metrics):
    """Density 1 on average over 60 seeds, and coverage what the docstring says."""
    n, m, k = 40, 60, 3
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found.append(metrics(rng.normal(size=(n, 2)), rng.normal(size=(m, 2)), k))
    means, errors = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(len(found))
    uncovered = np.prod([(n - i) / (n + m - i) for i in range(1, k + 1)])
    assert abs(means[2] - 1) < 4 * errors[2]
    assert abs(means[3] - (1 - uncovered)) < 4 * errors[3]


def test_equal_distributions():
    check_equal_distributions(metrics)


@pytest.mark.parametrize(
    "broken",
    ["density over rows of the real set", "density over k + 1", "radii from the wrong set", "one neighbour further"],
)
def test_the_check_of_equal_distributions_rejects(broken):
    with pytest.raises(AssertionError):
        check_equal_distributions(BROKEN[broken])


# The definition.


@st.composite
def sets(draw):
    """Two sets, k and a block size; features on a coarse grid have copies and ties in plenty."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dims, k = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    sizes = draw(st.tuples(st.integers(k + 1, 30), st.integers(k + 1, 30)))
    real, generated = (rng.normal(size=(size, dims)) for size in sizes)
    if draw(st.booleans()):
        real, generated = np.round(2 * real), np.round(2 * generated)
    dtype = draw(st.sampled_from([np.float64, np.float32, np.float16]))
    return real.astype(dtype), generated.astype(dtype), k, draw(st.integers(1, 40))


@given(sets())
def test_they_are_their_definitions_whatever_the_block_size(case):
    real, generated, k, block_size = case
    expected = reference(real, generated, k)
    found = manifold_metrics(real, generated, k=k, block_size=block_size)
    assert found == pytest.approx(expected, rel=1e-12)
    assert precision_recall(real, generated, k=k, block_size=block_size) == found[:2]
    assert density_coverage(real, generated, k=k, block_size=block_size) == found[2:]
    distances = np.sort(cdist(real.astype(np.float64), real.astype(np.float64)), axis=1)[:, k]
    radii = nearest_distances(real, k, block_size=block_size)
    assert radii.dtype == np.float64
    np.testing.assert_allclose(radii, distances, rtol=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_what_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    real, generated = rng.normal(size=(50, 4)), rng.normal(size=(40, 4)) + 0.3
    found = manifold_metrics(real, generated, k=3)
    turn, scale = np.linalg.qr(rng.normal(size=(4, 4)))[0], rng.uniform(0.1, 10)
    assert manifold_metrics(real[rng.permutation(50)], generated[rng.permutation(40)], k=3) == found
    assert manifold_metrics(scale * real @ turn + 5, scale * generated @ turn + 5, k=3) == found
    # Precision and recall are each other's of the sets swapped.
    assert precision_recall(generated, real, k=3) == tuple(precision_recall(real, generated, k=3))[::-1]
    # Real rows that stay in place while the generated ones turn are another case.
    assert manifold_metrics(real, generated @ np.diag([1, 1, 1, 9]), k=3) != found


def test_fewer_rows_than_dimensions_and_a_flat_set():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(6, 50)), rng.normal(size=(5, 50))
    assert metrics(a, b, 2) == pytest.approx(reference(a, b, 2))
    flat = [rng.normal(size=(30, 2)) @ rng.normal(size=(2, 20)) for _ in range(2)]
    assert metrics(*flat, 3) == pytest.approx(reference(*flat, 3))


def test_a_single_generated_row_has_density_and_coverage():
    line = np.arange(5.0)[:, None]
    assert density_coverage(line, np.array([[0.4]]), k=1) == (2.0, 2 / 5)


# Near-duplicates.


def check_near_duplicates(metrics):
    """Rows that differ in their last digits only, away from the mean of all."""
    rng = np.random.default_rng(2)
    for dtype, spread in ((np.float32, 1e-5), (np.float64, 1e-10)):
        far = rng.normal(size=(30, 6))
        pack = 100 * np.ones(6) + spread * rng.normal(size=(60, 6))
        real = np.concatenate([far, pack[:30]]).astype(dtype)
        generated = np.concatenate([far[:5], pack[30:], pack[:4]]).astype(dtype)
        assert metrics(real, generated, 3) == pytest.approx(reference(real, generated, 3))
        # Copies are at 0 and ties are ties: a set of few values, shuffled.
        values = pack[:6].astype(dtype)
        drawn, others = values[rng.integers(6, size=40)], values[rng.integers(6, size=30)]
        assert metrics(drawn, others, 5) == pytest.approx(reference(drawn, others, 5))


def expanded(dtype):
    def squares(a, b):
        a, b = np.asarray(a, dtype), np.asarray(b, dtype)
        return np.maximum(np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - 2 * a @ b.T, 0)

    return squares


def centred(a, b):
    return expanded(np.float64)(a - np.concatenate([a, b]).mean(0), b - np.concatenate([a, b]).mean(0))


def test_near_duplicates_are_told_apart():
    check_near_duplicates(metrics)
    check_near_duplicates(lambda a, b, k: manifold_metrics(a, b, k=k, block_size=7))


@pytest.mark.parametrize("squares", [expanded(np.float32), expanded(np.float64), centred])
def test_the_check_of_near_duplicates_rejects(squares):
    with pytest.raises(AssertionError):
        check_near_duplicates(lambda a, b, k: reference(a, b, k, squares))


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_radii_keep_their_digits(offset):
    rng = np.random.default_rng(3)
    # Scales from 1 down to 1e-6 about one point, and an outlier that is far off.
    features = rng.normal(size=(200, 3)) * np.geomspace(1, 1e-6, 200)[:, None] + offset
    features[0] += 1e7
    exact = np.sqrt(np.partition(direct(features, features), 4, axis=1)[:, 4])
    np.testing.assert_allclose(nearest_distances(features, 4, block_size=64), exact, rtol=1e-12)
    squares = centred(features, features)
    assert not np.allclose(np.sqrt(np.partition(squares, 4, axis=1)[:, 4]), exact, rtol=1e-3)


def test_one_row_repeated_is_one_point():
    row = np.full((2000, 2), 0.1, np.float32)
    assert not nearest_distances(row, 5).any()
    assert manifold_metrics(row, row[:100], k=5) == (1, 1, 2000 / 5, 1)


def test_memory_is_that_of_a_few_blocks():
    features = np.random.default_rng(4).normal(size=(2000, 4)).astype(np.float32)
    peaks = {}
    for block_size in (256, 2000):
        tracemalloc.start()
        manifold_metrics(features, features[::-1] + np.float32(0.01), block_size=block_size)
        peaks[block_size] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    block = 8 * 256**2
    assert peaks[256] < 10 * block
    assert peaks[2000] > 8 * 2000**2  # the whole matrix: the measure sees NumPy's memory


# What is refused.


@pytest.mark.parametrize("function", [precision_recall, density_coverage, manifold_metrics])
def test_what_is_refused(function):
    a, b = np.zeros((9, 3)), np.zeros((9, 3))
    bad = a.copy()
    bad[4, 1] = np.nan
    for real, generated, settings, message in [
        (a, b, {"k": 9}, "k=9 is too large for real of 9 rows; accepted: at least k \\+ 1 rows"),
        (a, b, {"k": 0}, "k=0 is too small; accepted: at least 1"),
        (a, b, {"block_size": 0}, "block_size=0 is too small"),
        (a, b[:, :2], {}, "real has 3 dimensions, generated has 2; accepted: the same number"),
        (a, bad, {}, "generated holds a number that is not finite"),
        (bad, b, {}, "real holds a number that is not finite"),
        (a, b[0], {}, r"generated has shape \(3,\); accepted: \[N, D\]"),
        (a, b[:0], {}, "generated has 0 rows; accepted: at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            function(real, generated, **settings)


def test_too_few_generated_rows_are_refused_where_they_have_balls():
    a = np.zeros((9, 3))
    for function in (precision_recall, manifold_metrics):
        with pytest.raises(ValueError, match="k=4 is too large for generated of 4 rows"):
            function(a, a[:4], k=4)
    density_coverage(a, a[:4], k=4)
    with pytest.raises(ValueError, match="k=9 is too large for features of 9 rows"):
        nearest_distances(a, 9)
