"""Which of the modes of stacked digits a generator reaches."""

from __future__ import annotations

import dataclasses

import numpy as np

from genjax.evaluators.base import Context, Report, check_at_least, spread, to_uint8
from genjax.evaluators.features import SHIPPED, Classifier, shipped
from genjax.evaluators.reference import cached
from genjax.metrics.modes import mode_coverage, mode_numbers
from genjax.types import UserError, lookup


@dataclasses.dataclass(frozen=True)
class Modes:
    """Modes found and KL to uniform modes of samples of stacked digits (Metz et al. 2017; Lin et al. 2018).

    A classifier of single digits names each channel; the three digits are the mode, 1000 in all. The protocol has what
    as many perfect samples would give by chance, and what images of the test split give before the same classifier.

    Attributes:
      classifier: name of a feature network for one channel, "mnist" or "digits".
      num_samples: samples to draw; 26,000 as Lin et al. 2018.

    Raises:
      ValueError: no samples.
      UserError: there is no feature network of this name.
    """

    classifier: str = "mnist"
    num_samples: int = 26_000

    def __post_init__(self):
        check_at_least(1, num_samples=self.num_samples)
        lookup(SHIPPED, self.classifier, "classifier")

    def check(self, context: Context) -> None:
        """Raises UserError where the family can't sample, or the classifier can't name the channels of its images."""
        context.needs_samples()
        height, width, channels = shipped(self.classifier).shape
        if channels != 1 or context.spec.shape != (height, width, 3):
            raise UserError(
                f"evaluator 'modes': classifier={self.classifier!r} names channels of {height}x{width}; images of this "
                f"run are {context.spec.shape}; accepted: stacked digits {(height, width, 3)}"
            )

    def __call__(self, context: Context) -> Report:
        self.check(context)
        network = shipped(self.classifier)
        count = len(network.class_names) ** 3
        images = to_uint8(context.samples(context.seed, context.default_labels(self.num_samples)))
        found = mode_coverage(_modes(context, network, images), count)
        real = mode_coverage(self._real(context, network), count)
        number = self.num_samples
        record = {
            "data": context.source.provenance,
            "classifier": network.facts,
            "samples": number,
            "modes": count,
            "seed": context.seed,
            "rounding": "uint8",
            "expected_by_chance": {
                "modes_found": count * (1.0 - (1.0 - 1.0 / count) ** number),
                "mode_kl": (count - 1) / (2.0 * number),
            },
            "test_images": {
                "modes_found": real.found,
                "mode_kl": real.kl,
                "count": min(number, len(context.source)),
            },
        }
        return Report({"modes_found": float(found.found), "mode_kl": found.kl}, protocol=record)

    def _real(self, context: Context, network: Classifier) -> np.ndarray:
        """The modes of as many test images, kept from one evaluation to the next."""
        count = min(self.num_samples, len(context.source))
        data = {key: value for key, value in context.source.provenance.items() if key != "where"}

        def compute() -> dict[str, np.ndarray]:
            return {"modes": _modes(context, network, spread(context.source, count)["image"])}

        return cached({"modes": network.facts, "reference": {"data": data, "count": count}}, compute)["modes"]


def _modes(context: Context, network: Classifier, images: np.ndarray) -> np.ndarray:
    """The mode int64 ``[N]`` of images uint8 ``[N, H, W, 3]``, red being its first digit."""
    channels = images.transpose(0, 3, 1, 2).reshape(-1, *network.shape)
    _, logits = network.of(channels, context.compiled)
    return mode_numbers(logits.argmax(axis=-1).reshape(-1, 3), len(network.class_names))
