"""Copies of training images are found, fresh draws are not, and nearest images are those that brute force finds."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from scipy import stats

from genjax.metrics import memorisation as m
from genjax.metrics.memorisation import c_t, copied_share, copying_test, memorisation, nearest

D = 8


def draw(seed, count=400, dims=D):
    return np.random.default_rng(seed).normal(size=(count, dims))


# Nearest images.


def brute_force(rows, references):
    flat = [np.asarray(x, np.float64).reshape(len(x), -1) for x in (rows, references)]
    return np.sqrt(np.square(flat[0][:, None] - flat[1][None]).sum(-1))


def check_nearest(nearest):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (70, 5, 4, 1)).astype(np.uint8)
    others = rng.integers(0, 256, (90, 5, 4, 1)).astype(np.uint8)
    far = 1e4 + rng.normal(size=(90, 6))
    cases = [(images, others), (images.astype(np.float32), others), (far[:40] + 1e-3, far), (draw(0, 33), draw(1, 1))]
    for rows, references in cases:
        table = brute_force(rows, references)
        for block in (1, 7, 64, 1000):
            found = nearest(rows, references, block)
            np.testing.assert_array_equal(found.indices, table.argmin(1))
            np.testing.assert_allclose(found.distances, table.min(1), rtol=1e-9)
            assert found.distances.dtype == np.float64 and found.indices.dtype == np.int64
    # A copy is at 0, not at the rounding of large squares.
    copies = nearest(far[::-1][:50], far, 16)
    np.testing.assert_array_equal(copies.indices, np.arange(90)[::-1][:50])
    assert (copies.distances == 0.0).all()


def test_nearest():
    check_nearest(nearest)


def in_bytes(rows, references, block):
    table = np.square(rows.reshape(len(rows), 1, -1) - references.reshape(1, len(references), -1)).sum(-1)
    return m.Nearest(np.sqrt(table.min(1).astype(np.float64)), table.argmin(1))


def of_squares(rows, references, block):
    """The distance too from |x|^2 + |y|^2 - 2 x y."""
    x, y = (np.asarray(a, np.float64).reshape(len(a), -1) for a in (rows, references))
    table = np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T
    return m.Nearest(np.sqrt(np.maximum(table.min(1), 0)), table.argmin(1))


def within_blocks(rows, references, block):
    found = nearest(rows, references, block)
    return m.Nearest(found.distances, found.indices % block)


def last_block(rows, references, block):
    start = (len(references) - 1) // block * block
    found = nearest(rows, references[start:], block)
    return m.Nearest(found.distances, found.indices + start)


def in_float32(rows, references, block):
    return nearest(rows.astype(np.float32) / np.float32(3), references.astype(np.float32) / np.float32(3), block)


@pytest.mark.parametrize("broken", [in_bytes, of_squares, within_blocks, last_block, in_float32])
def test_the_check_of_nearest_rejects(broken):
    with pytest.raises(AssertionError):
        check_nearest(broken)


def test_memory_is_bounded_by_blocks(monkeypatch):
    largest = 0
    blocks = m._blocks

    def watched(array, block, name):
        nonlocal largest
        for start, part in blocks(array, block, name):
            largest = max(largest, len(part))
            yield start, part

    monkeypatch.setattr(m, "_blocks", watched)
    nearest(draw(0), draw(1), 50)
    assert largest == 50


# The test of copying.


def samples_of(kind, seed, train):
    rng = np.random.default_rng(seed)
    if kind == "fresh":
        return rng.normal(size=(90, D))
    if kind == "wide":
        return 1.5 * rng.normal(size=(90, D))
    noise, count = {"copies": (0.0, 90), "near copies": (0.1, 90), "some copies": (0.0, 36)}[kind]
    near = train[rng.choice(len(train), count)] + noise * rng.normal(size=(count, D))
    return np.concatenate([near, rng.normal(size=(90 - count, D))])


@functools.cache
def distances_of(kind, seeds):
    """For each seed, distances of samples and of fresh held-out images to one training set."""
    train = draw(10**6)
    groups = [(samples_of(kind, seed, train), draw(10**5 + seed, 120)) for seed in range(seeds)]
    return [tuple(nearest(rows, train).distances for rows in group) for group in groups]


def scores(test, kind, seeds=10):
    return np.array([(found.z, found.p_value) for found in (test(*pair) for pair in distances_of(kind, seeds))]).T


def check_copying(test):
    # Fresh draws: standard normal over seeds.
    z, p = scores(test, "fresh", 300)
    assert abs(z.mean()) < 4 / np.sqrt(len(z)) and 0.85 < z.std() < 1.15
    assert stats.kstest(z, "norm").pvalue > 1e-3
    np.testing.assert_allclose(p, stats.norm.cdf(z), rtol=1e-9)
    for kind, bound in [("copies", -10), ("near copies", -10), ("some copies", -1.5)]:
        z, p = scores(test, kind)
        assert (z < bound).all() and (p < 0.07).all()
    z, p = scores(test, "wide")
    assert (z > 5).all() and (p > 0.999).all()
    # Distances that are rounded, so that many are the same, and of which all are.
    first, second = np.round(draw(1, 60, 1)[:, 0]), np.round(draw(2, 80, 1)[:, 0] + 0.2)
    expected = stats.mannwhitneyu(first, second, alternative="less", method="asymptotic", use_continuity=False)
    assert test(first, second).p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert test(np.zeros(5), np.zeros(9)) == m.RankTest(0.0, 0.5)


def test_copying():
    check_copying(copying_test)


def ignoring_ties(first, second):
    u = (np.sign(first[:, None] - second) + 1).sum() / 2
    z = (u - len(first) * len(second) / 2) / np.sqrt(len(first) * len(second) * (len(first) + len(second) + 1) / 12)
    return m.RankTest(float(z), float(stats.norm.cdf(z)))


def two_sided(first, second):
    z = copying_test(first, second).z
    return m.RankTest(z, float(2 * stats.norm.sf(abs(z))))


def scaled(factor):
    def test(first, second):
        z = copying_test(first, second).z * factor
        return m.RankTest(z, float(stats.norm.cdf(z)))

    return test


BROKEN_TESTS = {
    "ties as if there were none": ignoring_ties,
    "both sides": two_sided,
    "the groups exchanged": lambda a, b: copying_test(b, a),
    "a deviation that is too small": scaled(1.3),
    "not divided by its deviation": scaled(20.0),
    "half the samples": lambda a, b: copying_test(a[::2], b),
}


@pytest.mark.parametrize("broken", BROKEN_TESTS)
def test_the_check_of_copying_rejects(broken):
    with pytest.raises(AssertionError):
        check_copying(BROKEN_TESTS[broken])


# By cells.


def check_cells(c_t):
    """Copying in a region that is wide hides behind the distances of one that is dense."""
    scores, fresh = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        kinds = [rng.permutation(np.arange(count) % 4 // 3) for count in (240, 200, 300)]  # a quarter is wide
        samples, heldout, train = (rng.normal(size=(len(k), D)) * np.where(k, 10.0, 1.0)[:, None] for k in kinds)
        fresh.append(c_t(samples, heldout, train, tuple(kinds)).score)
        wide = kinds[0] == 1
        copied = samples.copy()
        copied[wide] = train[kinds[2] == 1][: wide.sum()] + 0.3 * rng.normal(size=(wide.sum(), D))
        found = c_t(copied, heldout, train, tuple(kinds))
        np.testing.assert_array_equal(found.cells, [0, 1])
        assert found.z[1] < -5 < found.z[0]
        # Weighted by the held-out images of each.
        assert found.score == pytest.approx(0.75 * found.z[0] + 0.25 * found.z[1])
        scores.append(found.score)
    assert np.mean(scores) < -1.0 and abs(np.mean(fresh)) < 0.7 and np.std(fresh) < 1.2


def test_cells():
    check_cells(c_t)


def test_one_cell_is_the_test_of_all():
    samples, heldout, train = draw(0, 50), draw(1, 60), draw(2, 70)
    found = c_t(samples, heldout, train, (np.zeros(50, int), np.zeros(60, int), np.zeros(70, int)))
    own = [nearest(rows, train).distances for rows in (samples, heldout)]
    assert found.score == found.z[0] == copying_test(*own).z


def test_cells_with_few_samples_are_left_out():
    groups = [draw(i, 40) for i in range(3)]
    cells = (np.arange(40) % 10 // 9, np.arange(40) % 2, np.arange(40) % 2)  # 4 of the samples in cell 1
    assert list(c_t(*groups, cells, least_share=0.0).cells) == [0, 1]
    assert list(c_t(*groups, cells, least_share=0.1).cells) == [0]
    with pytest.raises(ValueError, match="accepted: a smaller least_share"):
        c_t(*groups, cells, least_share=0.95)


def of_the_whole(samples, heldout, train, cells):
    """Nearest among all training images, ranks among all; cells are only averaged over."""
    own, other = nearest(samples, train).distances, nearest(heldout, train).distances
    z = copying_test(own, other).z
    return m.CellTest(z, np.unique(cells[0]), np.array([z, z]))


def equally_weighted(samples, heldout, train, cells):
    found = c_t(samples, heldout, train, cells)
    return m.CellTest(float(found.z.mean()), found.cells, found.z)


@pytest.mark.parametrize("broken", [of_the_whole, equally_weighted])
def test_the_check_of_cells_rejects(broken):
    with pytest.raises(AssertionError):
        check_cells(broken)


# The share that is too near.


def check_share(copied_share):
    shares = []
    for seed in range(200):
        heldout, samples = np.random.default_rng(seed).gamma(2.0, size=(2, 400))
        share, expected = copied_share(samples, heldout, 5.0)
        assert expected == 20 / 401
        shares.append(share)
    assert np.mean(shares) == pytest.approx(20 / 401, abs=4 * np.std(shares) / np.sqrt(200))
    heldout = np.arange(1.0, 101.0)
    assert copied_share(np.array([0.0, 0.5, 1.0, 2.0, 9.0]), heldout, 1.0) == (0.4, 1 / 101)
    assert copied_share(np.array([0.0, 28.5, 29.0, 30.0]), heldout, 29.0) == (0.5, 29 / 101)
    assert copied_share(np.zeros(7), heldout)[0] == 1.0


def test_copied_share():
    check_share(copied_share)


BROKEN_SHARES = {
    "a share in place of %": lambda a, b, x=1.0: copied_share(a, b, min(100 * x, 100.0)),
    "of the samples' own distances": lambda a, b, x=1.0: (
        copied_share(a, a, max(x, 20.0))[0],
        copied_share(a, b, x)[1],
    ),
    "those at the bound count": lambda a, b, x=1.0: (
        float(np.mean(a <= np.sort(b)[max(int(x * len(b) / 100 + 1e-9), 1) - 1])),
        copied_share(a, b, x)[1],
    ),
    "the furthest": lambda a, b, x=1.0: (float(np.mean(a > np.quantile(b, 1 - x / 100))), copied_share(a, b, x)[1]),
}


@pytest.mark.parametrize("broken", BROKEN_SHARES)
def test_the_check_of_the_share_rejects(broken):
    with pytest.raises(AssertionError):
        check_share(BROKEN_SHARES[broken])


# All of it.


def check_memorisation(memorisation):
    train, heldout = draw(0, 600), draw(1, 200)
    copies = train[::3] + 1e-3
    found = memorisation(copies, train, heldout, percent=2.0)
    np.testing.assert_array_equal(found.to_train.indices, np.arange(600)[::3])
    np.testing.assert_allclose(found.to_train.distances, 1e-3 * np.sqrt(D), rtol=1e-6)
    np.testing.assert_array_equal(found.to_heldout.indices, brute_force(copies, heldout).argmin(1))
    assert found.copied_share == found.nearer_share == 1.0
    assert found.test.z < -10 and found.test.p_value < 1e-20
    # Fresh ones: what is expected, and that depends on how many references there are of each kind.
    shares = [memorisation(draw(10 + seed, 200), train, heldout, percent=2.0) for seed in range(20)]
    assert found.nearer_expected == 0.75 and found.copied_expected == 4 / 201
    assert np.mean([s.nearer_share for s in shares]) == pytest.approx(0.75, abs=0.03)
    assert np.mean([s.copied_share for s in shares]) < 0.08
    # Ties count half.
    both = memorisation(train[:5], np.concatenate([train[:5], train[5:]]), np.concatenate([train[:5], heldout]))
    assert both.nearer_share == 0.5


def test_memorisation():
    check_memorisation(memorisation)


def exchanged(samples, train, heldout, percent=1.0):
    return memorisation(samples, heldout, train, percent)


@pytest.mark.parametrize("broken", [exchanged])
def test_the_check_of_memorisation_rejects(broken):
    with pytest.raises(AssertionError):
        check_memorisation(broken)


@pytest.mark.parametrize(
    ("rows", "references", "block", "message"),
    [
        (draw(0)[0], draw(0), 1, r"accepted: real numbers \[N, ...\]"),
        (draw(0)[:0], draw(0), 1, "none of them 0"),
        (draw(0).astype(complex), draw(0), 1, "accepted: real numbers"),
        (draw(0), draw(0)[:, :3], 1, "8 values and references 3; accepted: the same"),
        (draw(0), draw(0), 0, "block is 0; accepted: at least 1"),
        (np.full((9, D), np.inf), draw(0), 64, "rows hold numbers that are not finite"),
        (draw(0), np.full((9, D), np.nan), 64, "references hold numbers that are not finite"),
    ],
)
def test_what_has_no_nearest(rows, references, block, message):
    with pytest.raises(ValueError, match=message):
        nearest(rows, references, block)


@pytest.mark.parametrize("distances", [np.zeros(1), np.zeros((3, 1)), np.array([0.0, np.nan])])
def test_what_are_no_distances(distances):
    for function in (copying_test, copied_share):
        with pytest.raises(ValueError, match="accepted: \\[N\\] of at least 2 finite numbers"):
            function(distances, np.ones(200))
        with pytest.raises(ValueError, match="held-out distances"):
            function(np.ones(200), distances)


@pytest.mark.parametrize("percent", [0.0, 0.4, -1.0, 101.0, np.nan, np.inf])
def test_a_share_of_less_than_one_image(percent):
    with pytest.raises(ValueError, match="of 200 held-out distances; accepted: 1 of them to all"):
        copied_share(np.ones(5), np.ones(200), percent)


def test_cells_that_do_not_match():
    groups = [draw(i, 40) for i in range(3)]
    zeros = np.zeros(40, int)
    with pytest.raises(ValueError, match="not one number for each image"):
        c_t(*groups, (zeros, zeros, zeros[:-1]))
    with pytest.raises(ValueError, match="cell 0 has 0 held-out and 40 training images; accepted"):
        c_t(*groups, (zeros, zeros + 1, zeros))
