"""Intervals of a statistic of sets of rows, whatever the statistic.

The bootstrap suits means and what is as smooth as they are. It draws rows with replacement, so its samples hold copies,
which real samples do not. A statistic that sees copies is wrong on every one of them: k-nearest-neighbour balls shrink,
and the Fréchet distance and the biased MMD count the copies as less spread and add their bias a second time. For those
there is the interval from blocks, which never draws a row twice; what it speaks of is the statistic at a block's rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from genjax.metrics.check import check_level


class Interval(NamedTuple):
    """A value and the interval about it."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    statistic: Callable[..., float],
    arrays: Sequence[np.ndarray],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    paired: bool = False,
    seed: int = 0,
) -> Interval:
    """The statistic of the arrays, and quantiles of it over resampled rows (Efron & Tibshirani 1993, ch. 13).

    Args:
      statistic: ``(*arrays) -> float``. What must not be resampled, it holds itself.
      arrays: each ``[N, ...]`` with at least 2 rows.
      resamples: at least 2; the ends of a 95 % interval want about 1000.
      level: probability that the interval is meant to cover the value with.
      paired: whether row i of every array belongs to the same example: then all are resampled alike, otherwise each by
        itself.
      seed: of the resamples, for ``np.random.default_rng``.

    Raises:
      ValueError: no array, too few rows, paired arrays of other lengths, a setting out of range, or a statistic that is
        not finite.
    """
    arrays = _checked(arrays, paired, level, least=2)
    if resamples < 2:
        raise ValueError(f"resamples={resamples} have no quantiles; accepted: at least 2")
    rng = np.random.default_rng(seed)
    value = _value(statistic, arrays)
    values = np.empty(resamples)
    for i in range(resamples):
        drawn = _for_each(arrays, paired, lambda count: rng.integers(count, size=count))
        values[i] = _value(statistic, [array[rows] for array, rows in zip(arrays, drawn, strict=True)])
    low, high = np.quantile(values, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(value, float(low), float(high))


def block_interval(
    statistic: Callable[..., float],
    arrays: Sequence[np.ndarray],
    *,
    blocks: int = 10,
    level: float = 0.95,
    paired: bool = False,
    seed: int = 0,
) -> Interval:
    """Mean of the statistic over random blocks that share no row, and its interval by Student's t.

    mean -+ t s / sqrt(B), with s the standard deviation over the B blocks. The value is what the statistic is on
    average for samples as small as a block, with their bias. A block has N // B rows or one more.

    Args:
      statistic: ``(*arrays) -> float``. What must not be split, a reference say, it holds itself.
      arrays: each ``[N, ...]`` with at least ``blocks`` rows.
      blocks: at least 2.
      level: probability that the interval is meant to cover the value with.
      paired: whether row i of every array belongs to the same example: then all are split alike, otherwise each by
        itself.
      seed: of the order of the rows, for ``np.random.default_rng``.

    Raises:
      ValueError: as ``bootstrap_interval``.
    """
    if blocks < 2:
        raise ValueError(f"blocks={blocks} have no scatter; accepted: at least 2")
    arrays = _checked(arrays, paired, level, least=blocks)
    rng = np.random.default_rng(seed)
    orders = _for_each(arrays, paired, rng.permutation)
    parts = [np.array_split(order, blocks) for order in orders]
    values = np.array(
        [_value(statistic, [a[part[i]] for a, part in zip(arrays, parts, strict=True)]) for i in range(blocks)]
    )
    half = student_t_quantile((1.0 + level) / 2.0, blocks - 1) * values.std(ddof=1) / np.sqrt(blocks)
    return Interval(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


def student_t_quantile(probability: float, freedom: int) -> float:
    """The value that Student's t with a whole number of degrees of freedom is below with ``probability``.

    By halving, on the finite series of the distribution (Abramowitz & Stegun 1964, eq. 26.7.3 and 26.7.4).

    Args:
      probability: from 0.5, and below 1.
      freedom: at least 1.

    Raises:
      ValueError: either is out of range.
    """
    if not 0.5 <= probability < 1.0 or freedom < 1:
        raise ValueError(f"probability={probability}, freedom={freedom}; accepted: 0.5 to below 1, and at least 1")
    low, high = 0.0, math.pi / 2.0  # of the angle whose tangent is t / sqrt(freedom)
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _within(middle, freedom) < 2.0 * probability - 1.0 else (low, middle)
    return math.tan((low + high) / 2.0) * math.sqrt(freedom)


def _within(angle: float, freedom: int) -> float:
    """P(|T| <= sqrt(freedom) tan(angle))."""
    odd = freedom % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for i in range(freedom // 2):
        total += term
        term *= math.cos(angle) ** 2 * (2 * i + 1 + odd) / (2 * i + 2 + odd)
    return (angle + math.sin(angle) * total) * 2.0 / math.pi if odd else math.sin(angle) * total


def _checked(arrays: Sequence[np.ndarray], paired: bool, level: float, least: int) -> list[np.ndarray]:
    check_level(level)
    arrays = [np.asarray(array) for array in arrays]
    shapes = [array.shape for array in arrays]
    if not arrays or any(not shape or shape[0] < least for shape in shapes):
        raise ValueError(f"arrays have shapes {shapes}; accepted: one or more, each of at least {least} rows")
    if paired and len({shape[0] for shape in shapes}) > 1:
        raise ValueError(f"arrays have shapes {shapes}; accepted where paired: as many rows in each")
    if not all(np.isfinite(array).all() for array in arrays if array.dtype.kind == "f"):
        raise ValueError("arrays hold a number that is not finite; accepted: finite numbers")
    return arrays


def _for_each(arrays: Sequence[np.ndarray], paired: bool, draw: Callable[[int], np.ndarray]) -> list[np.ndarray]:
    """Row numbers for every array: the same ones where paired."""
    return [draw(len(arrays[0]))] * len(arrays) if paired else [draw(len(array)) for array in arrays]


def _value(statistic: Callable[..., float], arrays: Sequence[np.ndarray]) -> float:
    value = float(statistic(*arrays))
    if not math.isfinite(value):
        raise ValueError(f"the statistic is {value} for {[len(a) for a in arrays]} rows; accepted: a finite number")
    return value
