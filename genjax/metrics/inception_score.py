"""The Inception score (Salimans et al. 2016) of a classifier's answers, and the entropies it is made of.

exp(E_x KL(p(y|x) || p(y))), with p(y) the mean of p(y|x): 1 when every image gets the same answer, K when the
classifier is sure of every image and meets its K classes equally often. It never sees a real image, so it says nothing
of whether the images look like data, and a model that keeps one good image a class has the best score there is.

Its logarithm is the mutual information of image and class, H(y) - H(y|x): the first term says how evenly the classes
are met, the second how unsure the classifier is of an image. p(y) of few images is too near each of them, so the score
is too small on small splits (Barratt & Sharma 2018): compare only scores of equally many images and splits.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from genjax.metrics.classification import log_softmax


class InceptionScore(NamedTuple):
    """Mean and standard deviation (division by their number) of the score over splits, each from 1 to K."""

    mean: float
    standard_deviation: float


class ClassEntropies(NamedTuple):
    """Entropies in nats, each from 0 to log K.

    Attributes:
      marginal: H(y) of the mean answer: log K when all classes are met equally.
      conditional: H(y|x), the mean entropy of an answer: 0 when the classifier is sure of every image.
      information: the first less the second, from 0; the logarithm of the Inception score of one split.
    """

    marginal: float
    conditional: float
    information: float


def inception_score(logits: np.ndarray, *, splits: int = 10) -> InceptionScore:
    """Mean and standard deviation over consecutive splits, in the order of the rows (Salimans et al. 2016, sec. 4).

    Split i has the rows from i N // splits up to (i + 1) N // splits. Rows are not shuffled: images sampled class by
    class must be mixed first, or every split has a p(y) of its few classes and the score is far too small.

    Args:
      logits: ``[N, K]``; log-probabilities are logits too. -inf stands for a probability of 0.
      splits: at least 1; 10 in the paper. Every split needs two rows.

    Raises:
      ValueError: not a matrix, fewer than two rows a split, NaN or +inf, or a row of -inf alone.
    """
    logits = _checked(logits)
    if splits < 1 or len(logits) < 2 * splits:
        raise ValueError(f"{len(logits)} rows in {splits} splits; accepted: at least 1 split and 2 rows in each")
    log_p = log_softmax(logits)
    edges = [i * len(logits) // splits for i in range(splits + 1)]
    scores = np.exp([_entropies(log_p[i:j]).information for i, j in itertools.pairwise(edges)])
    return InceptionScore(float(scores.mean()), float(scores.std()))


def class_entropies(logits: np.ndarray) -> ClassEntropies:
    """H(y), H(y|x) and their difference over all rows; logits or log-probabilities ``[N, K]``.

    Raises:
      ValueError: as ``inception_score``, but one row is enough.
    """
    return _entropies(log_softmax(_checked(logits)))


def _checked(logits: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits)
    if logits.ndim != 2 or not logits.size or logits.dtype.kind not in "fiu":
        raise ValueError(f"logits are {logits.dtype} {logits.shape}; accepted: real numbers [N, K]")
    if not (logits < np.inf).all() or np.isneginf(logits).all(axis=1).any():  # NaN is not below either
        raise ValueError("logits hold NaN, +inf or a row of -inf alone; accepted: finite, and -inf for a probability 0")
    return logits


def _entropies(log_p: np.ndarray) -> ClassEntropies:
    p = np.exp(log_p)
    mean = p.mean(axis=0)
    marginal, conditional = _entropy(mean, np.log(np.where(mean > 0, mean, 1.0))), _entropy(p, log_p) / len(p)
    # Jensen's inequality; rounding can leave the difference below.
    return ClassEntropies(marginal, conditional, max(marginal - conditional, 0.0))


def _entropy(p: np.ndarray, log_p: np.ndarray) -> float:
    """Sum of -p log p, with 0 log 0 = 0."""
    return float(-np.sum(p * np.where(p > 0, log_p, 0.0))) + 0.0  # never -0.0
