"""Protocols: what fixes a number about a set of samples, under a name."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from genjax.metrics.classification import wilson_interval
from genjax.metrics.frechet import Gaussian, class_frechet_distances, fit, frechet_distance, frechet_infinity
from genjax.metrics.inception_score import inception_score
from genjax.metrics.intervals import block_interval, student_t_quantile
from genjax.metrics.kernel import kernel_distance
from genjax.metrics.manifold import manifold_metrics

VERSION = 1  # of what the metrics compute; a change that moves numbers raises it
_NORMAL = 1.959964  # of a 95 % interval
_POINTS = 15  # of the line to infinitely many samples


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How samples are compared with a split.

    Images are rounded to uint8 before they are looked at, as those of the data sets are; what the feature network does
    to them then is its own. Samples are those of seed ``seed``, every class in turn.

    Attributes:
      features: name of the feature network.
      samples: how many.
      data: name of the set that it is for; "" for every set that the feature network can judge.
      split: of the reference, "test" or "train".
      reference: its images, spread evenly over the split; 0 for all.
      ema: whether samples have to be of averaged weights. Where they needn't be, the record says what they are of.
      fid: whether the numbers are the FID, KID and Inception score as published, and are called so.
      neighbours: k of precision, recall, density and coverage.
      subsets, subset_size: of the kernel distance.
      blocks: of the intervals of the Fréchet distance.
      splits: of the class score.
      seed: of samples and subsets.
    """

    features: str
    samples: int
    data: str = ""
    split: str = "test"
    reference: int = 0
    ema: bool = True
    fid: bool = False
    neighbours: int = 5
    subsets: int = 100
    subset_size: int = 1000
    blocks: int = 10
    splits: int = 10
    seed: int = 0


def _cifar10_fid(mode: str) -> Protocol:
    return Protocol(f"inception_v3_{mode}", 50_000, "cifar10", split="train", reference=50_000, fid=True)


PROTOCOLS = {
    "mnist_10k": Protocol("mnist", 10_000),
    "mnist_2k": Protocol("mnist", 2_000, ema=False),
    "fashion_mnist_10k": Protocol("fashion_mnist", 10_000),
    "fashion_mnist_2k": Protocol("fashion_mnist", 2_000, ema=False),
    "digits_2k": Protocol("digits", 2_000, ema=False, subset_size=250),
    "cifar10_lite0_10k": Protocol("efficientnet_lite0", 10_000, "cifar10", reference=10_000),
    "cifar10_lite0_2k": Protocol("efficientnet_lite0", 2_000, "cifar10", reference=10_000, ema=False),
    # Of any colour images. Small sets hold few back for testing, and 1280 features want many rows.
    "color_lite0_2k": Protocol("efficientnet_lite0", 2_000, split="train", ema=False),
    "cifar10_fid_50k_legacy": _cifar10_fid("legacy"),
    "cifar10_fid_50k_clean": _cifar10_fid("clean"),
    "cifar10_fid_50k_torch": _cifar10_fid("torch"),
}
"""The short ones are for use during training: their numbers are other numbers, and have another name."""

PUBLISHED = {
    "frechet_distance": "fid",
    "frechet_distance_infinity": "fid_infinity",
    "kernel_distance": "kid",
    "class_score": "inception_score",
}
"""What numbers are called where they are those of the literature: Inception-v3, 50,000 samples, the customary split."""


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

    ``facts`` are ``features`` and ``reference``, what numbers were measured with, ``model``, what they are of
    (``Context.model``), and more.
    """
    settings = {key: value for key, value in dataclasses.asdict(protocol).items() if key != "features"}
    return {"protocol": name, "version": VERSION, "settings": {**settings, "rounding": "uint8"}, **facts}


def comparable(first: dict[str, Any], second: dict[str, Any]) -> str | None:
    """Why numbers of two cards can't be compared, in one line; None when they can.

    What they were measured with must be the same: ``protocol``, ``version``, ``settings``, ``features`` and
    ``reference``. Of what they are of, ``model``, the weights (averaged or not) and the dtype must be the same, and the
    settings of sampling within one family. Families sample each in its own way, so between two of them these may
    differ: how a model samples is part of what is compared then.
    """
    for key in ("protocol", "version", "settings", "features", "reference"):
        if line := _difference(key, first.get(key), second.get(key)):
            return line
    models = [{**card.get("model", {})} for card in (first, second)]
    if models[0].get("family") != models[1].get("family"):
        models = [{key: value for key, value in m.items() if key in ("weights", "dtype")} for m in models]
    return _difference("model", *models)


def _difference(name: str, first: Any, second: Any) -> str | None:
    """The first setting, by its dotted name, in which two records differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        lines = (_difference(f"{name}.{key}", first.get(key), second.get(key)) for key in {**first, **second})
        return next(filter(None, lines), None)
    return None if first == second else f"{name} is {first!r} in one and {second!r} in the other"


def measure(protocol: Protocol, real: Seen, fake: Seen) -> Measured:
    """Every number of a protocol.

    The Fréchet distance is biased upwards by the number of samples; ``frechet_distance_infinity`` has that part taken
    away. Intervals speak of other samples of the same model, the reference held: of the Fréchet distance by the scatter
    of blocks about it, of the kernel distance by its standard error, of precision and coverage as proportions. By
    class: the mean of the classes' distances, where samples were asked to be of one. What needs more rows than there
    are (twice the features for the limit, one more than the features in each class) is left out.

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
    scalars, intervals = _frechet(protocol, reference, fake.features)
    size = min(protocol.subset_size, len(real.features), len(fake.features))
    kernel = kernel_distance(
        real.features, fake.features, subsets=protocol.subsets, subset_size=size, seed=protocol.seed
    )
    manifold = manifold_metrics(real.features, fake.features, k=protocol.neighbours)
    scalars |= {
        "kernel_distance": kernel.mean,
        **manifold._asdict(),
        "class_score": inception_score(fake.logits, splits=protocol.splits).mean,
    }
    intervals |= {
        "kernel_distance": _around(kernel.mean, kernel.standard_error),
        "precision": wilson_interval(manifold.precision * len(fake.features), len(fake.features)),
        "coverage": wilson_interval(manifold.coverage * len(real.features), len(real.features)),
    }
    if (by_class := _class_distance(real, fake)) is not None:
        scalars["class_frechet_distance"] = by_class
    names = PUBLISHED if protocol.fid else {}
    scalars, intervals = ({names.get(k, k): v for k, v in values.items()} for values in (scalars, intervals))
    return Measured(scalars, intervals)


def _frechet(
    protocol: Protocol, reference: Gaussian, rows: np.ndarray
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """The distance and its limit of infinitely many samples, with intervals."""
    value = frechet_distance(fit(rows), reference)
    blocks = block_interval(
        lambda rows: frechet_distance(fit(rows), reference), [rows], blocks=protocol.blocks, seed=protocol.seed
    )
    half = 0.5 * (blocks.high - blocks.low)
    scalars, intervals = {"frechet_distance": value}, {"frechet_distance": (max(value - half, 0.0), value + half)}
    if len(rows) // 2 > rows.shape[1]:
        limit = frechet_infinity(rows, reference, points=_POINTS, seed=protocol.seed)
        quantile = student_t_quantile(0.975, _POINTS - 2)
        scalars["frechet_distance_infinity"] = limit.value
        intervals["frechet_distance_infinity"] = _around(limit.value, limit.standard_error, quantile)
    return scalars, intervals


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
