"""Protocols: what fixes a number about a set of samples, under a name."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from genjax.metrics.classification import wilson_interval
from genjax.metrics.frechet import class_frechet_distances, fit, frechet_distance, frechet_infinity
from genjax.metrics.inception_score import inception_score
from genjax.metrics.intervals import block_interval, student_t_quantile
from genjax.metrics.kernel import kernel_distance
from genjax.metrics.manifold import manifold_metrics

VERSION = 1  # of what the metrics compute; a change that moves numbers raises it
_NORMAL = 1.959964  # of a 95 % interval
_POINTS = 15  # of the line to infinitely many samples


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How samples are compared with a test split.

    Images are rounded to uint8 before they are looked at, as those of the data sets are, and not resized. Samples are
    those of seed ``seed``, every class in turn; sampler, guidance and averages of the weights are the run's, and are
    part of the record.

    Attributes:
      features: name of the feature network.
      samples: how many.
      reference: images of the test split, the first ones; 0 for all of it.
      neighbours: k of precision, recall, density and coverage.
      subsets, subset_size: of the kernel distance.
      blocks: of the intervals of the Fréchet distance.
      splits: of the class score.
      seed: of samples and subsets.
    """

    features: str
    samples: int
    reference: int = 0
    neighbours: int = 5
    subsets: int = 100
    subset_size: int = 1000
    blocks: int = 10
    splits: int = 10
    seed: int = 0


PROTOCOLS = {
    "mnist_10k": Protocol("mnist", 10_000),
    "mnist_2k": Protocol("mnist", 2_000),
    "fashion_mnist_10k": Protocol("fashion_mnist", 10_000),
    "fashion_mnist_2k": Protocol("fashion_mnist", 2_000),
    "digits_2k": Protocol("digits", 2_000, subset_size=250),
}
"""The short ones are for use during training: their numbers are other numbers, and have another name."""


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """A set of images as a feature network sees them.

    Attributes:
      features: float32 ``[N, D]``.
      logits: float32 ``[N, K]``.
      labels: int ``[N]``, what they are or were asked to be; None for images without.
    """

    features: np.ndarray
    logits: np.ndarray
    labels: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Measured:
    """Numbers under a protocol, with 95 % intervals for those of which one is known."""

    scalars: dict[str, float]
    intervals: dict[str, tuple[float, float]]


def card(name: str, protocol: Protocol, facts: dict[str, Any]) -> dict[str, Any]:
    """The identity card: everything that fixes the numbers, JSON-able.

    Two results are comparable when their cards' ``protocol``, ``version``, ``settings``, ``features`` and ``reference``
    are equal (``comparable``).
    """
    settings = {key: value for key, value in dataclasses.asdict(protocol).items() if key != "features"}
    return {"protocol": name, "version": VERSION, "settings": {**settings, "rounding": "uint8"}, **facts}


def comparable(first: dict[str, Any], second: dict[str, Any]) -> str | None:
    """Why numbers of two cards can't be compared, in one line; None when they can."""
    for key in ("protocol", "version", "settings", "features", "reference"):
        if first.get(key) != second.get(key):
            return f"{key} is {first.get(key)!r} in one and {second.get(key)!r} in the other"
    return None


def measure(protocol: Protocol, real: Seen, fake: Seen) -> Measured:
    """Every number of a protocol.

    The Fréchet distance is biased upwards by the number of samples; ``frechet_distance_infinity`` has that part taken
    away. Intervals speak of other samples of the same model, the reference held: of the Fréchet distance by the scatter
    of blocks about it, of the kernel distance by its standard error, of precision and coverage as proportions. By
    class: the mean of the classes' distances, where samples were asked to be of one and each class has rows enough.

    Raises:
      ValueError: fewer samples or reference images than the protocol says.
    """
    for what, least, given in (
        ("samples", protocol.samples, len(fake.features)),
        ("reference images", protocol.reference, len(real.features)),
    ):
        if given < least:
            raise ValueError(f"{given} {what}; this protocol wants {least}")
    reference = fit(real.features)
    size = min(protocol.subset_size, len(real.features), len(fake.features))
    kernel = kernel_distance(
        real.features, fake.features, subsets=protocol.subsets, subset_size=size, seed=protocol.seed
    )
    manifold = manifold_metrics(real.features, fake.features, k=protocol.neighbours)
    value = frechet_distance(fit(fake.features), reference)
    blocks = block_interval(
        lambda rows: frechet_distance(fit(rows), reference), [fake.features], blocks=protocol.blocks, seed=protocol.seed
    )
    limit = frechet_infinity(fake.features, reference, points=_POINTS, seed=protocol.seed)
    score = inception_score(fake.logits, splits=protocol.splits)
    half = 0.5 * (blocks.high - blocks.low)
    scalars = {
        "frechet_distance": value,
        "frechet_distance_infinity": limit.value,
        "kernel_distance": kernel.mean,
        **manifold._asdict(),
        "class_score": score.mean,
    }
    intervals = {
        "frechet_distance": (max(value - half, 0.0), value + half),
        "frechet_distance_infinity": _around(limit.value, limit.standard_error, student_t_quantile(0.975, _POINTS - 2)),
        "kernel_distance": _around(kernel.mean, kernel.standard_error),
        "precision": wilson_interval(manifold.precision * len(fake.features), len(fake.features)),
        "coverage": wilson_interval(manifold.coverage * len(real.features), len(real.features)),
    }
    if (by_class := _class_distance(real, fake)) is not None:
        scalars["class_frechet_distance"] = by_class
    return Measured(scalars, intervals)


def _around(value: float, error: float, quantile: float = _NORMAL) -> tuple[float, float]:
    return value - quantile * error, value + quantile * error


def _class_distance(real: Seen, fake: Seen) -> float | None:
    """The mean of the distances of the classes, None where there are no labels or too few rows of one."""
    if real.labels is None or fake.labels is None:
        return None
    try:
        return class_frechet_distances(fake.features, fake.labels, real.features, real.labels).mean
    except ValueError:
        return None  # too few rows in a class for a covariance of full rank
