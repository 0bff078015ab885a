"""Are samples copies of training images?"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from genjax.data.base import Source
from genjax.evaluators.base import Context, Report, Stopped, check_at_least, spread, to_uint8
from genjax.evaluators.features import PRETRAINED, SHIPPED, feature_network
from genjax.evaluators.figures import side_by_side
from genjax.metrics import memorisation
from genjax.types import UserError, lookup

PIXELS = "pixels"
_CHUNK = 1000


@dataclasses.dataclass(frozen=True)
class Memorisation:
    """Samples' nearest training images, against those of held-out images, and a picture of the closest pairs.

    Held-out images are those of the test split. The test is that of Meehan et al. 2020: a z well below 0 says that
    samples are nearer to training images than new images are.

    Attributes:
      features: the space of distances: "pixels", or the name of a feature network.
      num_samples: samples to draw.
      heldout: images of the test split, spread evenly; 0 for all.
      percent: share of held-out images, in %, that ``copied_share`` takes for suspiciously near.
      pairs: samples in the picture, each above its nearest training image, the closest first.

    Raises:
      ValueError: a number below what is of use.
      UserError: there is no feature network of this name.
    """

    features: str = PIXELS
    num_samples: int = 1000
    heldout: int = 0
    percent: float = 1.0
    pairs: int = 16

    def __post_init__(self):
        check_at_least(2, num_samples=self.num_samples)
        check_at_least(0, heldout=self.heldout)
        check_at_least(1, pairs=self.pairs)
        lookup({PIXELS: None, **SHIPPED, **PRETRAINED}, self.features, "features")

    def check(self, context: Context) -> None:
        """Raises UserError where a call would refuse the run or the counts."""
        context.needs_samples()
        if context.training is None:
            raise UserError("evaluator 'memorisation' needs the training split, which this evaluation was not given")
        count = self._count(context)
        if self.percent * count / 100.0 < 1.0 or self.percent > 100.0:
            given = f"percent={self.percent:g} of {count} held-out images"
            raise UserError(f"evaluator 'memorisation': {given}; accepted: what is one of them to all")
        if self.features == PIXELS:
            return
        if (line := feature_network(self.features).misfit(context.spec)) is not None:
            raise UserError(f"evaluator 'memorisation': features={self.features!r} {line}; accepted: also {PIXELS!r}")

    def _count(self, context: Context) -> int:
        """Of held-out images."""
        return min(self.heldout or len(context.source), context.limit or len(context.source), len(context.source))

    def __call__(self, context: Context) -> Report:
        self.check(context)
        assert context.training is not None
        network = None if self.features == PIXELS else feature_network(self.features)
        compiled = functools.cache(context.compiled)

        def seen(images: np.ndarray) -> np.ndarray:
            if context.stop():
                raise Stopped
            return images if network is None else network.of(images, compiled)[0]

        samples = to_uint8(context.samples(context.seed, context.default_labels(self.num_samples)))
        heldout = spread(context.source, self._count(context))["image"]
        train = np.concatenate([seen(part) for part in _chunks(context.training)])
        found = memorisation.memorisation(seen(samples), train, seen(heldout), self.percent)
        closest = np.argsort(found.to_train.distances, kind="stable")[: self.pairs]
        nearest = context.training.gather(found.to_train.indices[closest])["image"]
        scalars = {
            "copying_z": found.test.z,
            "copied_share": found.copied_share,
            "nearer_train_share": found.nearer_share,
            "nearest_train_distance": float(np.median(found.to_train.distances)),
        }
        record = {
            "data": context.source.provenance,
            "training_data": context.training.provenance,
            "space": PIXELS if network is None else network.facts,
            "samples": self.num_samples,
            "training_images": len(context.training),
            "heldout_images": len(heldout),
            "percent": self.percent,
            "seed": context.seed,
            "rounding": "uint8",
            "p_value": found.test.p_value,
            "expected": {"copied_share": found.copied_expected, "nearer_train_share": found.nearer_expected},
        }
        return Report(scalars, {"nearest_training_images": side_by_side(samples[closest], nearest)}, record)


def _chunks(source: Source) -> Iterator[np.ndarray]:
    """All images, some at a time."""
    for start in range(0, len(source), _CHUNK):
        yield source.gather(np.arange(start, min(start + _CHUNK, len(source))))["image"]
