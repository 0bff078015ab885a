"""The kernel distance of two sets of features: the KID (Binkowski et al. 2018).

It is the squared maximum mean discrepancy (Gretton et al. 2012) under the kernel k(x, y) = (x . y / D + 1)^3, so it
sees whether the first three moments differ. Unlike the Fréchet distance, its estimate has no bias whatever the number
of rows: it is 0 on average for samples of the same distribution, and so often below 0.

Kernel values are near each other where their means differ in the fourth digit, so all products and sums are in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from genjax.metrics.check import check_pair
from genjax.types import check_positive


class KernelDistance(NamedTuple):
    """An estimate of MMD^2 and the standard error of it, both in the kernel's unit."""

    value: float
    standard_error: float


class SubsetKernelDistance(NamedTuple):
    """What random subsets give.

    Attributes:
      mean: over the subsets; this is the number that papers report.
      standard_error: of that mean, as an estimate for the distributions and not only for the rows at hand.
      standard_deviation: of the subsets' values (division by their number), which papers report after the mean. It
        belongs to a subset's size and does not fall with the number of rows or of subsets.
    """

    mean: float
    standard_error: float
    standard_deviation: float


def kernel_distance(
    a: np.ndarray, b: np.ndarray, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> SubsetKernelDistance:
    """Mean of the unbiased estimate over random subsets of both sets, the usual protocol of the KID.

    Each subset has ``subset_size`` rows of either set, drawn without replacement and anew for each subset.

    The subsets share rows, so their scatter alone would make the mean look better known than it is. The standard error
    has two parts: the scatter over the number of subsets, and the variance of an estimate from all rows. The latter is
    bounded by the jackknife variance at the subset's size times subset_size / N, N the rows of the smaller set, because
    N times the variance of a U-statistic never grows with N (Hoeffding 1948). It errs on the large side, most so where
    the distributions are the same.

    Args:
      a, b: features, float ``[N, D]`` and ``[M, D]``.
      subsets: at least 2.
      subset_size: rows of a subset, from 3 to the rows of the smaller set.
      seed: of the subsets, for ``np.random.default_rng``.

    Raises:
      ValueError: fewer than 3 rows, other widths, a number that is not finite, or a subset that can't be drawn.
    """
    a, b = check_pair(("a", "b"), a, b, least=3)
    fewest = min(len(a), len(b))
    if not 3 <= subset_size <= fewest:
        raise ValueError(f"subset_size={subset_size} of {len(a)} and {len(b)} rows; accepted: 3 to {fewest}")
    if subsets < 2:
        raise ValueError(f"subsets={subsets} have no scatter; accepted: at least 2")
    rng = np.random.default_rng(seed)
    values, variances = np.empty(subsets), np.empty(subsets)
    for i in range(subsets):
        drawn = [rows[rng.choice(len(rows), subset_size, replace=False)] for rows in (a, b)]
        values[i], variances[i] = _unbiased(*drawn, block_size=subset_size)
    error = np.sqrt(values.var(ddof=1) / subsets + variances.mean() * subset_size / fewest)
    return SubsetKernelDistance(float(values.mean()), float(error), float(values.std()))


def full_kernel_distance(a: np.ndarray, b: np.ndarray, *, block_size: int = 1024) -> KernelDistance:
    """The unbiased estimate from all rows (Gretton et al. 2012, eq. 3), with its jackknife standard error.

    It has the least variance of all unbiased estimates from these rows, and no choice of subsets in it. The kernel
    matrices are made ``block_size`` x ``block_size`` at a time; the block size changes memory and time, not the result
    beyond rounding. The jackknife's variance is never too small on average (Efron & Stein 1981), and about twice too
    large where the distributions are the same.

    Args:
      a, b: features, float ``[N, D]`` and ``[M, D]``, of at least 3 rows each.
      block_size: rows and columns of a block, at least 1.

    Raises:
      ValueError: fewer than 3 rows, other widths, or a number that is not finite.
    """
    a, b = check_pair(("a", "b"), a, b, least=3)
    check_positive(block_size=block_size)
    value, variance = _unbiased(a, b, block_size)
    return KernelDistance(float(value), float(np.sqrt(variance)))


def _unbiased(a: np.ndarray, b: np.ndarray, block_size: int) -> tuple[float, float]:
    """The U-statistic and its jackknife variance, both from sums of kernel values over rows."""
    n, m = len(a), len(b)
    within_a = _sums(a, a, block_size)[0] - _diagonal(a)
    within_b = _sums(b, b, block_size)[0] - _diagonal(b)
    across_a, across_b = _sums(a, b, block_size)
    total_a, total_b, total_ab = within_a.sum(), within_b.sum(), across_a.sum()
    value = total_a / (n * (n - 1)) + total_b / (m * (m - 1)) - 2.0 * total_ab / (n * m)
    # The statistic without one row, up to the term of the other set, which does not change.
    without_a = (total_a - 2.0 * within_a) / ((n - 1) * (n - 2)) - 2.0 * (total_ab - across_a) / ((n - 1) * m)
    without_b = (total_b - 2.0 * within_b) / ((m - 1) * (m - 2)) - 2.0 * (total_ab - across_b) / (n * (m - 1))
    return value, (n - 1) * without_a.var() + (m - 1) * without_b.var()


def _sums(a: np.ndarray, b: np.ndarray, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums of k(a_i, b_j) over j, float64 ``[N]``, and over i, ``[M]``."""
    rows, columns = np.zeros(len(a)), np.zeros(len(b))
    for i in range(0, len(a), block_size):
        left = a[i : i + block_size].astype(np.float64) / a.shape[1]
        for j in range(0, len(b), block_size):
            kernel = left @ b[j : j + block_size].astype(np.float64).T
            kernel += 1.0
            kernel *= kernel * kernel
            rows[i : i + block_size] += kernel.sum(axis=1)
            columns[j : j + block_size] += kernel.sum(axis=0)
    return rows, columns


def _diagonal(a: np.ndarray) -> np.ndarray:
    """k(a_i, a_i), float64 ``[N]``."""
    return (np.square(a, dtype=np.float64).sum(axis=1) / a.shape[1] + 1.0) ** 3
