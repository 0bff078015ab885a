"""Are samples copies of training images?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from genjax.data.base import Source
from genjax.evaluators.base import Context, Report, check_at_least, spread, to_uint8
from genjax.evaluators.features import FeatureNetwork, shipped
from genjax.evaluators.figures import side_by_side
from genjax.metrics import memorisation
from genjax.types import UserError

PIXELS = "pixels"
_CHUNK = 1000


@dataclasses.dataclass(frozen=True)
class Memorisation:
    """Samples' nearest training images, against those of held-out images, and a picture of the closest pairs.

    Held-out images are those of the test split. The test is that of Meehan et al. 2020: a z well below 0 says that
    samples are nearer to training images than new images are.

    Attributes:
      features: the space of distances: "pixels", or the name of a feature network that was trained on such images.
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
        if self.features != PIXELS:
            shipped(self.features)

    def __call__(self, context: Context) -> Report:
        if context.training is None:
            raise UserError("evaluator 'memorisation' needs the training split, which this evaluation was not given")
        network = self._network(context)
        count = min(self.heldout or len(context.source), context.limit or len(context.source))
        samples = to_uint8(context.samples(context.seed, context.default_labels(self.num_samples)))
        train = [self._seen(context, network, images) for images in _chunks(context.training)]
        heldout = spread(context.source, count)["image"]
        try:
            found = memorisation.memorisation(
                self._seen(context, network, samples),
                np.concatenate(train),
                self._seen(context, network, heldout),
                self.percent,
            )
        except ValueError as error:
            raise UserError(f"evaluator 'memorisation': {error}") from error
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

    def _network(self, context: Context) -> FeatureNetwork | None:
        if self.features == PIXELS:
            return None
        network = shipped(self.features)
        if network.shape != context.spec.shape:
            own = context.spec.shape
            raise UserError(
                f"evaluator 'memorisation': features={self.features!r} looks at images of {network.shape}; those of "
                f"this run are {own}; accepted: {PIXELS}, or a network for them"
            )
        return network

    def _seen(self, context: Context, network: FeatureNetwork | None, images: np.ndarray) -> np.ndarray:
        """Rows whose distances count."""
        return images if network is None else network.of(images, context.compiled)[0]


def _chunks(source: Source) -> Iterator[np.ndarray]:
    """All images, some at a time."""
    for start in range(0, len(source), _CHUNK):
        yield source.gather(np.arange(start, min(start + _CHUNK, len(source))))["image"]
