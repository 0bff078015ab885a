"""Records what disentanglement_lib (Locatello et al. 2019) gives for codes of known factors: `make verify-metrics`.

In an environment with tests/reference/metrics_requirements.txt and that package, from the root of the repository,

    PYTHONPATH=. python tests/reference/disentanglement_metrics.py

writes disentanglement.npz beside this file and the table of docs/evaluation.md; with --check it compares. The package
is of TensorFlow 1; of it run the functions of these scores, which are NumPy and scikit-learn, without TensorFlow.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from genjax.metrics import disentanglement
from genjax.metrics.disentanglement import lasso_importance
from tests.reference.comparison import Case, Record, main, other

SEED, TRAIN, BINS = 20190612, 1500, 20
PACKAGE = "disentanglement-lib"
RECORD = Record(
    "disentanglement_metrics", Path(__file__).with_name("disentanglement.npz"), ("gin-config", "numpy", "scikit-learn")
)
KINDS = (3, 6, 10, 4)
VOTES = {"train_votes": 400, "test_votes": 200, "batch_size": 5}  # so few that votes go wrong


def codes_of(factors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Codes float64 ``[N, 6]`` of factors ``[N, 4]``: mixtures, noise, and one that hardly moves."""
    mix = np.array([[1.0, 0, 0, 0], [0, 0.6, 0, 0.5], [0, 0.1, 0.4, 0], [0.1, 0, 0, 0.6], [0, 0, 0, 0], [0, 0, 0, 0]])
    noise = rng.normal(size=(len(factors), 6)) * [0.3, 0.3, 0.3, 0.3, 0.5, 0.01]
    return factors @ mix.T + noise


def codes_and_factors() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(SEED)
    factors = np.stack([rng.integers(0, kinds, 2000) for kinds in KINDS], axis=1)
    return codes_of(factors, rng), factors


def sharing(rng: np.random.Generator) -> Callable[[int, int], np.ndarray]:
    """Batches for the FactorVAE score, the same for both sides: other values at random, one shared."""

    def draw(factor: int, count: int) -> np.ndarray:
        factors = np.stack([rng.integers(0, kinds, count) for kinds in KINDS], axis=1)
        factors[:, factor] = factors[0, factor]
        return codes_of(factors, rng)

    return draw


# What the package gives.


@functools.cache
def package() -> SimpleNamespace:
    """Its modules of scores, with the settings of the study."""
    gin = other("gin")
    logging.getLogger().setLevel(logging.ERROR)  # a newer Gin warns of old names of arguments
    # That name is of Gin with TensorFlow; the scores want its decorators only.
    sys.modules["gin.tf"] = gin.tf = gin
    names = ("utils", "mig", "modularity_explicitness", "sap_score", "dci", "factor_vae")
    modules = {name: other(f"disentanglement_lib.evaluation.metrics.{name}") for name in names}
    gin.bind_parameter("discretizer.discretizer_fn", modules["utils"]._histogram_discretize)
    gin.bind_parameter("histogram_discretizer.num_bins", BINS)
    gin.bind_parameter("discretizer.num_bins", BINS)
    gin.bind_parameter("prune_dims.threshold", 0.05)
    return SimpleNamespace(**modules)


def fixed() -> tuple[np.ndarray, np.ndarray, Callable]:
    """Codes as observations, factors ``[F, N]``, and the representation of an observation, which is itself."""
    codes, factors = codes_and_factors()
    return codes, factors.T, lambda observations: observations


def seed() -> None:
    """Their models draw from NumPy's global state."""
    np.random.seed(SEED)  # noqa: NPY002


def their_mig():
    return package().mig.compute_mig_on_fixed_data(*fixed())["discrete_mig"]


def their_modularity():
    codes, factors = codes_and_factors()
    utils = package().utils
    information = utils.discrete_mutual_info(utils.make_discretizer(codes.T), factors.T)
    return package().modularity_explicitness.modularity(information)


def their_sap(continuous: bool):
    seed()
    score = package().sap_score.compute_sap_on_fixed_data
    return score(*fixed(), train_percentage=TRAIN / 2000, continuous_factors=continuous)["SAP_score"]


def their_dci():
    seed()
    scores = package().dci.compute_dci_on_fixed_data(*fixed(), train_percentage=TRAIN / 2000)
    return [scores["disentanglement"], scores["completeness"]]


def their_lasso_dci():
    importance = lasso_importance(*codes_and_factors())
    return [package().dci.disentanglement(importance), package().dci.completeness(importance)]


class Data:
    """What their FactorVAE score asks of a data set, giving out codes in place of images."""

    num_factors = len(KINDS)

    def __init__(self):
        self.draw, self.factors, self.factor = sharing(np.random.default_rng(SEED)), np.random.default_rng(SEED), -1

    def randint(self, high: int) -> int:
        """As their source of random numbers: the factor to share."""
        self.factor = int(self.factors.integers(high))
        return self.factor

    def sample_observations(self, num: int, random_state: object) -> np.ndarray:
        return codes_and_factors()[0][:num]

    def sample_factors(self, num: int, random_state: object) -> np.ndarray:
        return np.zeros((num, len(KINDS)))

    def sample_observations_from_factors(self, factors: np.ndarray, random_state: object) -> np.ndarray:
        return self.draw(self.factor, len(factors))


def their_factor_vae():
    data = Data()
    settings = {"batch_size": VOTES["batch_size"], "num_variance_estimate": 2000}
    settings |= {"num_train": VOTES["train_votes"], "num_eval": VOTES["test_votes"]}
    scores = package().factor_vae.compute_factor_vae(data, lambda codes: codes, data, **settings)
    return scores["eval_accuracy"]


def inputs() -> dict[str, np.ndarray]:
    """Importances of their boosted trees and accuracies of their support vector machines, ``[D, F]``."""
    codes, factors = codes_and_factors()
    parts = codes[:TRAIN].T, factors[:TRAIN].T, codes[TRAIN:].T, factors[TRAIN:].T
    seed()
    importance = package().dci.compute_importance_gbt(*parts)[0]
    seed()
    return {"importance": importance, "accuracy": package().sap_score.compute_score_matrix(*parts, False)}


# What is ours.


def our_dci(importance: np.ndarray):
    return [disentanglement.disentanglement(importance), disentanglement.completeness(importance)]


def our_sap():
    codes, factors = codes_and_factors()
    return disentanglement.sap(disentanglement.squared_correlation(codes[:TRAIN], factors[:TRAIN]))


def our_factor_vae():
    draw = sharing(np.random.default_rng(SEED))
    variances = codes_and_factors()[0].var(axis=0, ddof=1)
    return disentanglement.factor_vae_score(lambda f, n, rng: draw(f, n), len(KINDS), variances, SEED, **VOTES)


def cases(given: Mapping[str, np.ndarray]) -> list[Case]:
    """All scores, those of the package's own models with what ``inputs`` gave."""
    return [
        Case("MIG", PACKAGE, their_mig, lambda: disentanglement.mig(*codes_and_factors(), BINS)),
        Case("modularity", PACKAGE, their_modularity, lambda: disentanglement.modularity(*codes_and_factors(), BINS)),
        Case("SAP, correlations", PACKAGE, lambda: their_sap(True), our_sap),
        Case(
            "SAP, support vector machines",
            PACKAGE,
            lambda: their_sap(False),
            lambda: disentanglement.sap(given["accuracy"]),
        ),
        Case("DCI, boosted trees", PACKAGE, their_dci, lambda: our_dci(given["importance"])),
        Case(
            "DCI, lasso's importances",
            PACKAGE,
            their_lasso_dci,
            lambda: our_dci(lasso_importance(*codes_and_factors())),
        ),
        Case("FactorVAE score", PACKAGE, their_factor_vae, our_factor_vae),
    ]


if __name__ == "__main__":
    found = inputs()
    sys.exit(main(RECORD, cases(found), found))
