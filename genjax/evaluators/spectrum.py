"""Power spectra of samples beside those of the test split."""

from __future__ import annotations

import dataclasses

import numpy as np

from genjax.evaluators.base import Context, Report, check_at_least, spread, to_uint8
from genjax.evaluators.figures import curves_figure
from genjax.metrics.spectrum import log_spectrum, log_spectrum_distance, power_spectrum


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """How far the spectrum of samples is from that of the test split, and a picture of both.

    Samples are rounded to uint8, as the images of data sets are: floats would lack the power of the rounding. As many
    training images, where they are known, say in the protocol what distance is no distance.

    Attributes:
      num_samples: samples to draw.

    Raises:
      ValueError: no samples.
    """

    num_samples: int = 1000

    def __post_init__(self):
        check_at_least(1, num_samples=self.num_samples)

    def check(self, context: Context) -> None:
        """Raises UserError where the family can't sample."""
        context.needs_samples()

    def __call__(self, context: Context) -> Report:
        real = []
        for batch in context.batches():
            real.append(power_spectrum(batch["image"][batch["mask"] > 0]))
        real = np.concatenate(real)
        images = to_uint8(context.samples(context.seed, context.default_labels(self.num_samples)))
        made = power_spectrum(images)
        curves = {"test images": log_spectrum(real), "samples": log_spectrum(made)}
        record = {
            "data": context.source.provenance,
            "examples": len(real),
            "samples": self.num_samples,
            "seed": context.seed,
            "rounding": "uint8",
            "decibels": {name: [round(float(value), 3) for value in curve] for name, curve in curves.items()},
        }
        if context.training is not None:
            training = power_spectrum(spread(context.training, self.num_samples)["image"])
            record["log_spectrum_distance_of_training_images"] = log_spectrum_distance(training, real)
        picture = curves_figure(np.arange(real.shape[1]), curves, "cycles per shorter side", "mean power, dB")
        return Report({"log_spectrum_distance": log_spectrum_distance(made, real)}, {"spectrum": picture}, record)
