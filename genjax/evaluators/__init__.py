"""Evaluators: a metric or a picture, with its data, its settings and a family function."""

from genjax.evaluators.distribution import Distribution
from genjax.evaluators.numbers import BitsPerDim, Classification, ImportanceBound, Mean
from genjax.evaluators.pictures import Interpolations, Reconstructions, Samples

EVALUATORS = {
    "mean": Mean,
    "classification": Classification,
    "importance_bound": ImportanceBound,
    "bits_per_dim": BitsPerDim,
    "distribution": Distribution,
    "samples": Samples,
    "reconstructions": Reconstructions,
    "interpolations": Interpolations,
}
