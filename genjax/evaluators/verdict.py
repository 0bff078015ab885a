"""Which of two groups of runs is better, and how sure that is."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genjax.evaluators.protocols import comparable
from genjax.metrics.intervals import student_t_quantile

# Which way is better, by the last part of a metric's name.
SMALLER = (
    *("loss", "nll", "squared_error", "calibration_error", "bits_per_dim", "kl", "kernel_distance"),
    *("frechet_distance", "frechet_distance_infinity", "class_frechet_distance", "fid", "fid_infinity", "kid"),
)
LARGER = (
    *("accuracy", "label_accuracy", "elbo", "log_likelihood", "class_entropy", "smallest_class_share", "class_score"),
    *("precision", "recall", "density", "coverage", "importance_bound", "inception_score"),
)
# What fixes the numbers of an evaluator without a named protocol; the seed of its noise is the run's.
_FIXED = ("data", "examples", "samples", "draws", "steps", "classifier", "feature_dims", "calibration_bins")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Two groups against each other.

    Attributes:
      means: of both.
      difference: by how much the first group is better, in the metric's unit; negative where it is worse.
      half_width: of the interval of the difference.
      counts: runs in both.
      level: of the interval.
    """

    means: tuple[float, float]
    difference: float
    half_width: float
    counts: tuple[int, int]
    level: float

    @property
    def seen(self) -> bool:
        """Whether the interval leaves 0 out."""
        return abs(self.difference) > self.half_width

    def line(self, names: tuple[str, str] = ("A", "B")) -> str:
        """The verdict in words."""
        runs = f"{self.counts[0]} and {self.counts[1]} runs, {self.level:.0%} interval"
        if not self.seen:
            return f"no difference seen: {self.difference:.3g} +/- {self.half_width:.2g} ({runs})"
        better = names[0] if self.difference > 0 else names[1]
        return f"{better} better by {abs(self.difference):.3g} +/- {self.half_width:.2g} ({runs})"


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean of what runs of different seeds gave.

    Args:
      values: a number for each run, at least two.
      level: probability that the interval covers the mean over all seeds.

    Raises:
      ValueError: fewer than two values.
    """
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        raise ValueError(f"{len(array)} runs have no scatter; accepted: at least 2 runs of different seeds")
    half = student_t_quantile((1.0 + level) / 2.0, len(array) - 1) * float(array.std(ddof=1)) / math.sqrt(len(array))
    return float(array.mean()) - half, float(array.mean()) + half


def verdict(first: Sequence[float], second: Sequence[float], smaller: bool, level: float = 0.95) -> Verdict:
    """Welch's interval of the difference of two means (Welch 1947), whose degrees of freedom are rounded down.

    Args:
      first, second: a number for each run, at least two each; the runs differ in their seed alone.
      smaller: whether smaller is better.
      level: probability that the interval covers the difference with.

    Raises:
      ValueError: a group has fewer than two runs, or a number is not finite.
    """
    groups = [np.asarray(group, np.float64) for group in (first, second)]
    for group in groups:
        if len(group) < 2:
            raise ValueError(f"a group of {len(group)} has no scatter; accepted: at least 2 runs of different seeds")
        if not np.isfinite(group).all():
            raise ValueError(f"numbers that are not finite can't be compared: {group.tolist()}")
    means = (float(groups[0].mean()), float(groups[1].mean()))
    errors = [group.var(ddof=1) / len(group) for group in groups]
    total = sum(errors)
    half_width = 0.0
    if total > 0:
        freedom = total**2 / sum(error**2 / (len(group) - 1) for error, group in zip(errors, groups, strict=True))
        half_width = student_t_quantile((1.0 + level) / 2.0, max(math.floor(freedom), 1)) * math.sqrt(total)
    sign = -1.0 if smaller else 1.0
    return Verdict(means, sign * (means[0] - means[1]), half_width, (len(groups[0]), len(groups[1])), level)


def mismatch(first: Mapping[str, Any], second: Mapping[str, Any]) -> str | None:
    """Why two evaluators' records are not of one protocol, in one line; None when they are."""
    if "protocol" in first or "protocol" in second:
        return comparable(dict(first), dict(second))
    for key in _FIXED:
        one, other = (_without_place(record.get(key)) for record in (first, second))
        if one != other:
            return f"{key} is {one!r} in one and {other!r} in the other"
    return None


def _without_place(value: Any) -> Any:
    """Facts about data less where they lay, which changes no number."""
    if isinstance(value, Mapping):
        return {key: _without_place(item) for key, item in value.items() if key != "where"}
    return value


def smaller_is_better(metric: str) -> bool | None:
    """By the metric's name, a count at its end left out (importance_bound_500); None for one that is not known here."""
    name = re.sub(r"_\d+$", "", metric.rpartition("/")[2])
    return True if name in SMALLER else False if name in LARGER else None
