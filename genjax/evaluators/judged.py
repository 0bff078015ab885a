"""Samples as a trained classifier sees them: which classes, whether those asked for, and how far from real images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from genjax.evaluators.base import Context, Report, spread, to_uint8
from genjax.metrics.classification import wilson_interval
from genjax.metrics.frechet import Gaussian, Moments, fit, frechet_distance
from genjax.types import UserError


@dataclasses.dataclass(frozen=True)
class Judge:
    """A trained classifier.

    Attributes:
      classes_of: ``images uint8 [N, H, W, C] -> class int [N]``.
      features_of: ``images uint8 [N, H, W, C] -> float32 [N, D]``, what it tells the classes apart by.
      identity: what it is, for the protocol.
      class_names: one for each class.
    """

    classes_of: Callable[[np.ndarray], np.ndarray]
    features_of: Callable[[np.ndarray], np.ndarray]
    identity: dict[str, Any]
    class_names: tuple[str, ...]

    def real(self, context: Context) -> Gaussian:
        """The Gaussian of the features of the split, all of it unless ``context.limit`` says otherwise.

        Raises:
          UserError: that is fewer than two examples.
          Stopped: as ``context.batches``.
        """
        moments = Moments()
        for batch in context.batches():
            moments.add(self.features_of(batch["image"]), batch["mask"])
        if moments.count < 2:
            raise UserError(f"frechet_distance needs at least 2 test examples; there are {moments.count}")
        return moments.gaussian()

    def shares(self, images: np.ndarray, labels: np.ndarray | None) -> tuple[dict[str, float], dict[str, Any]]:
        """Scalars and facts about the classes seen in ``images``, and how many are those of ``labels`` if given."""
        seen = self.classes_of(images)
        shares = np.bincount(seen, minlength=len(self.class_names)) / len(seen)
        present = shares[shares > 0]
        scalars = {
            "smallest_class_share": float(shares.min()),
            "class_entropy": float(-(present * np.log(present)).sum()),
            **{f"share/{name}": float(share) for name, share in zip(self.class_names, shares, strict=True)},
        }
        if labels is None:
            return scalars, {}
        right = int((seen == labels).sum())
        interval = wilson_interval(right, len(seen))
        return {"label_accuracy": right / len(seen), **scalars}, {"label_accuracy_interval_95": interval}

    def distance(self, images: np.ndarray, real: Gaussian) -> float:
        """Fréchet distance of the features of ``images`` from ``real``."""
        return frechet_distance(fit(self.features_of(images)), real)


@dataclasses.dataclass(frozen=True)
class Judged:
    """What a classifier says about samples: a collapsed generator leaves classes out, a blurred one is far away.

    The distance of ``num`` training images goes into the protocol, for comparison: not 0, because ``frechet_distance``
    is biased, and because the judge may have learnt them by heart.

    Attributes:
      judge: the classifier.
      num: samples to draw.
      labelled: whether samples are of the class they were asked to be, and the judge knows these classes.

    Raises:
      ValueError: ``num`` is below 2, and a single sample has no covariance.
    """

    judge: Judge
    num: int = 1000
    labelled: bool = False

    def __post_init__(self):
        if self.num < 2:
            raise ValueError(f"num={self.num} is too small; accepted: at least 2")

    def facts(self, context: Context, real: Gaussian) -> dict[str, Any]:
        """The protocol: what was compared with what."""
        facts = {
            "samples": self.num,
            "seed": context.seed,
            "data": context.source.provenance,
            "examples": real.count,
            "feature_dims": len(real.mean),
            "classifier": self.judge.identity,
        }
        if context.training is not None and len(context.training) > 1:
            value = self.judge.distance(spread(context.training, self.num)["image"], real)
            facts["frechet_distance_of_training_images"] = float(f"{value:.5g}")
        return facts

    def draw(self, context: Context) -> tuple[np.ndarray, np.ndarray]:
        """Samples uint8 ``[num, H, W, C]`` and the labels int32 ``[num]`` asked for, every class in turn."""
        labels = context.default_labels(self.num)
        return to_uint8(context.samples(context.seed, labels)), labels

    def look(self, images: np.ndarray, labels: np.ndarray, real: Gaussian) -> tuple[dict[str, float], dict[str, Any]]:
        """Scalars about such samples, and facts to go into the protocol."""
        scalars, facts = self.judge.shares(images, labels if self.labelled else None)
        return {"frechet_distance": self.judge.distance(images, real), **scalars}, facts

    def __call__(self, context: Context) -> Report:
        real = self.judge.real(context)
        scalars, facts = self.look(*self.draw(context), real)
        return Report(scalars, protocol={**self.facts(context, real), **facts})
