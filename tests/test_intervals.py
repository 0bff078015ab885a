"""Intervals: they cover as often as they say, rows stay together or not, where the bootstrap fails, Student's t."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from scipy import stats

from genjax.metrics.frechet import fit, frechet_distance
from genjax.metrics.intervals import Interval, block_interval, bootstrap_interval, student_t_quantile
from genjax.metrics.manifold import density_coverage

bootstrap = functools.partial(bootstrap_interval, resamples=200)


def contains(interval, value):
    return interval.low <= value <= interval.high


# Coverage.


def check_coverage(interval, level=0.95, within=0.045):
    """Of the mean of 60 rows, over 200 seeds; the scatter of the share itself is 0.015."""
    covered = []
    for seed in range(200):
        rows = np.random.default_rng(seed).exponential(size=60)
        found = interval(np.mean, [rows], level=level, seed=seed)
        assert found.low <= found.value <= found.high
        assert found.value == pytest.approx(rows.mean())
        covered.append(contains(found, 1.0))
    assert np.mean(covered) == pytest.approx(level, abs=within)


@pytest.mark.parametrize("interval", [bootstrap, block_interval])
def test_they_cover_as_often_as_they_say(interval):
    check_coverage(interval)
    check_coverage(interval, level=0.7, within=0.08)


def of_the_rows(statistic, arrays, level, seed):
    """The spread of rows instead of that of the statistic."""
    low, high = np.quantile(arrays[0], [(1 - level) / 2, (1 + level) / 2])
    return Interval(statistic(arrays[0]), low, high)


def one_tail(statistic, arrays, level, seed):
    """The tails at 1 - level each."""
    return bootstrap(statistic, arrays, level=2 * level - 1, seed=seed)


def without_root(statistic, arrays, level, seed):
    """s / B."""
    found = block_interval(statistic, arrays, level=level, seed=seed)
    return Interval(found.value, *(found.value + (end - found.value) / np.sqrt(10) for end in found[1:]))


def of_three_blocks_as_if_normal(statistic, arrays, level, seed):
    found = block_interval(statistic, arrays, blocks=3, level=level, seed=seed)
    scale = stats.norm.ppf((1 + level) / 2) / stats.t.ppf((1 + level) / 2, 2)
    return Interval(found.value, *(found.value + (end - found.value) * scale for end in found[1:]))


@pytest.mark.parametrize("broken", [of_the_rows, one_tail, without_root, of_three_blocks_as_if_normal])
def test_the_check_of_coverage_rejects(broken):
    with pytest.raises(AssertionError):
        check_coverage(broken)


def test_three_blocks_cover_too():
    check_coverage(functools.partial(block_interval, blocks=3))


# What is drawn.


def test_the_bootstrap_draws_every_row_equally_often_and_with_replacement():
    seen = []
    bootstrap_interval(lambda rows: seen.append(rows) or 0.0, [np.arange(20)], resamples=500)
    assert np.array_equal(seen[0], np.arange(20))
    counts = np.array([np.bincount(rows, minlength=20) for rows in seen[1:]])
    assert len(counts) == 500 and (counts.sum(axis=1) == 20).all()
    assert counts.mean(axis=0) == pytest.approx(1, abs=0.2)
    assert (counts == 0).mean() == pytest.approx((1 - 1 / 20) ** 20, abs=0.02)


def test_blocks_share_no_row_and_leave_none_out():
    seen = []
    block_interval(lambda rows: seen.append(rows) or 0.0, [np.arange(23)], blocks=5)
    assert sorted(map(len, seen)) == [4, 4, 5, 5, 5]
    assert sorted(np.concatenate(seen)) == list(range(23))
    # Rows often come class by class; a block must not be of one class.
    assert not any(np.array_equal(rows, np.sort(rows)) for rows in seen)


@pytest.mark.parametrize("interval", [bootstrap, block_interval])
def test_paired_rows_stay_together_and_others_do_not(interval):
    rows = np.arange(40)
    together, apart = [], []
    interval(lambda a, b: together.append(np.array_equal(a, b)) or 0.0, [rows, rows], paired=True)
    interval(lambda a, b: apart.append(np.array_equal(a, b)) or 0.0, [rows, rows])
    assert all(together) and not any(apart[1:])
    # What is resampled by itself may have another number of rows.
    interval(lambda a, b: float(len(b) > len(a)), [rows, np.zeros((70, 2, 3))])


def test_pairing_is_what_makes_a_difference_of_pairs_certain():
    rng = np.random.default_rng(0)
    a = rng.normal(size=200)
    b = a + 0.01 * rng.normal(size=200) + 0.1
    difference = lambda x, y: float(np.mean(y) - np.mean(x))  # noqa: E731
    for interval in (bootstrap, block_interval):
        paired, apart = interval(difference, [a, b], paired=True), interval(difference, [a, b])
        assert paired.high - paired.low < 0.1 * (apart.high - apart.low)
        assert contains(paired, 0.1)


@pytest.mark.parametrize("interval", [bootstrap, block_interval])
def test_the_seed_is_all_that_is_random(interval):
    rows = np.random.default_rng(1).normal(size=(30, 2))
    one, same, other = (interval(np.std, [rows], seed=seed) for seed in (3, 3, 4))
    assert one == same and one != other
    wide = interval(np.std, [rows], seed=3, level=0.99)
    assert wide.low < one.low < one.high < wide.high


def test_a_block_interval_is_that_of_the_t_distribution():
    rows = np.random.default_rng(2).normal(size=(8, 1))
    found = block_interval(np.sum, [rows], blocks=8, level=0.9)
    expected = stats.t.interval(0.9, 7, loc=rows.mean(), scale=rows.std(ddof=1) / np.sqrt(8))
    assert found == pytest.approx((rows.mean(), *expected))


# Statistics that see copies.


def coverage(a, b):
    return density_coverage(a, b, k=2).coverage


def distance(a, b):
    return frechet_distance(fit(a), fit(b))


def check_biased(statistic, interval):
    """At least 16 of 20 hold what the statistic is on average for fresh samples of 50 rows of one distribution."""
    rng = np.random.default_rng(3)
    fresh = np.mean([statistic(*rng.normal(size=(2, 50, 12))) for _ in range(200)])
    assert sum(contains(interval(statistic, list(rng.normal(size=(2, 500, 12)))), fresh) for _ in range(20)) >= 16


@pytest.mark.parametrize("statistic", [coverage, distance])
def test_blocks_suit_statistics_that_see_copies(statistic):
    check_biased(statistic, block_interval)


@pytest.mark.parametrize("statistic", [coverage, distance])
def test_the_bootstrap_does_not(statistic):
    def bootstrap_of_a_block(statistic, arrays):
        return bootstrap_interval(statistic, [array[:50] for array in arrays], resamples=50)

    with pytest.raises(AssertionError):
        check_biased(statistic, bootstrap_of_a_block)


# Student's t.


def check_quantiles(quantile):
    for freedom in (1, 2, 3, 4, 5, 9, 30, 199):
        for probability in (0.5, 0.6, 0.975, 0.9995):
            assert quantile(probability, freedom) == pytest.approx(
                stats.t.ppf(probability, freedom), rel=1e-9, abs=1e-12
            )


def test_quantiles_of_student_s_t():
    check_quantiles(student_t_quantile)


@pytest.mark.parametrize(
    "broken",
    [
        lambda p, freedom: stats.norm.ppf(p),
        lambda p, freedom: student_t_quantile(p, freedom + 1),
        lambda p, freedom: student_t_quantile((1 + p) / 2, freedom),
    ],
)
def test_the_check_of_quantiles_rejects(broken):
    with pytest.raises(AssertionError):
        check_quantiles(broken)


# What is refused.


@pytest.mark.parametrize("interval", [bootstrap, block_interval])
@pytest.mark.parametrize(
    ("arrays", "settings", "message"),
    [
        ([], {}, r"arrays have shapes \[\]; accepted: one or more"),
        ([np.zeros(1)], {}, r"arrays have shapes \[\(1,\)\]; accepted: one or more, each of at least"),
        ([np.zeros(50), np.float64(3)], {}, "accepted: one or more"),
        ([np.zeros(50), np.zeros(51)], {"paired": True}, "accepted where paired: as many rows in each"),
        ([np.r_[np.zeros(50), np.nan]], {}, "arrays hold a number that is not finite"),
        ([np.zeros(50)], {"level": 95}, "level=95 is out of range; accepted: above 0 and below 1"),
        ([np.zeros(50)], {"level": 0.0}, "level=0.0 is out of range"),
    ],
)
def test_arrays_that_are_refused(interval, arrays, settings, message):
    with pytest.raises(ValueError, match=message):
        interval(lambda *arrays: 0.0, arrays, **settings)


def test_settings_and_statistics_that_are_refused():
    rows = np.arange(12.0)
    for interval in (bootstrap, block_interval):
        with pytest.raises(ValueError, match=r"the statistic is nan for \[\d+\] rows; accepted: a finite number"):
            interval(lambda rows: np.nan, [rows])
    with pytest.raises(ValueError, match="resamples=1 have no quantiles; accepted: at least 2"):
        bootstrap_interval(np.mean, [rows], resamples=1)
    with pytest.raises(ValueError, match="blocks=1 have no scatter; accepted: at least 2"):
        block_interval(np.mean, [rows], blocks=1)
    with pytest.raises(ValueError, match="each of at least 13 rows"):
        block_interval(np.mean, [rows], blocks=13)
    for probability, freedom in ((0.4, 3), (1.0, 3), (0.9, 0)):
        with pytest.raises(ValueError, match="accepted: 0.5 to below 1"):
            student_t_quantile(probability, freedom)
