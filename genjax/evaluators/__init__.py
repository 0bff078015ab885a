"""Evaluators: a metric or a picture, with its data, its settings and a family function."""

from genjax.evaluators.numbers import Classification, ImportanceBound, Mean
from genjax.evaluators.pictures import Interpolations, Reconstructions, Samples

EVALUATORS = {
    "mean": Mean,
    "classification": Classification,
    "importance_bound": ImportanceBound,
    "samples": Samples,
    "reconstructions": Reconstructions,
    "interpolations": Interpolations,
}
