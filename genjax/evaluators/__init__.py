"""Evaluators: a metric or a picture, with its data, its settings and a family function."""

from genjax.evaluators.accuracy_score import AccuracyScore
from genjax.evaluators.disentanglement import Disentanglement
from genjax.evaluators.distribution import Distribution
from genjax.evaluators.latents import ActiveUnits
from genjax.evaluators.memorisation import Memorisation
from genjax.evaluators.modes import Modes
from genjax.evaluators.numbers import BitsPerDim, Classification, ImportanceBound, Mean
from genjax.evaluators.pairs import ImagePairs
from genjax.evaluators.pictures import Interpolations, Reconstructions, Samples, Traversals
from genjax.evaluators.spectrum import Spectrum

EVALUATORS = {
    "mean": Mean,
    "classification": Classification,
    "accuracy_score": AccuracyScore,
    "importance_bound": ImportanceBound,
    "bits_per_dim": BitsPerDim,
    "active_units": ActiveUnits,
    "disentanglement": Disentanglement,
    "distribution": Distribution,
    "image_pairs": ImagePairs,
    "memorisation": Memorisation,
    "modes": Modes,
    "spectrum": Spectrum,
    "samples": Samples,
    "reconstructions": Reconstructions,
    "interpolations": Interpolations,
    "traversals": Traversals,
}
