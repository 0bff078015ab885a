"""Whether each dimension of a code stands for one factor of variation, and each factor for one dimension.

For data whose factors are known. Definitions are those of the comparison by Locatello et al. 2019 where papers leave a
choice: 20 bins of equal width for mutual information, weighted means in DCI, pruning in the FactorVAE score. Codes are
float ``[N, D]``, as a rule the means of an encoder; factors int ``[N, F]``, the value of each factor. All scores are in
[0, 1] with 1 the best, unless said otherwise, and none of them alone tells all: a code can be modular (each dimension
about one factor) and not compact (each factor in one dimension), or the reverse.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from genjax.metrics.information import discretise, entropy, mutual_information
from genjax.metrics.regression import fit_lasso

Draw = Callable[[int, int, np.random.Generator], np.ndarray]
"""``draw(factor, count, rng)``: codes ``[count, D]`` of examples that share one random value of that factor."""


@dataclasses.dataclass(frozen=True)
class DCI:
    """``disentanglement`` and ``completeness`` in [0, 1]; ``informativeness`` at most 1; larger is better for all."""

    disentanglement: float
    completeness: float
    informativeness: float


def mutual_information_matrix(codes: np.ndarray, factors: np.ndarray, bins: int = 20) -> np.ndarray:
    """I(c_i; v_j) in nats of each discretised dimension and each factor, float64 ``[D, F]``.

    Raises:
      ValueError: codes and factors don't match, or what ``discretise`` refuses.
    """
    codes, factors = _matched(codes, factors)
    found = discretise(codes, bins)
    return np.array([[mutual_information(code, factor) for factor in factors.T] for code in found.T])


def mig(codes: np.ndarray, factors: np.ndarray, bins: int = 20) -> float:
    """Mutual information gap (Chen et al. 2018, eq. 6).

    Mean over factors of the difference between the two dimensions that say most of it, divided by its entropy. It asks
    for one dimension per factor, and says nothing of a dimension that holds several.

    Args:
      codes: float ``[N, D]``, D at least 2.
      factors: int ``[N, F]``, none of them constant.
      bins: of each dimension.

    Raises:
      ValueError: fewer than two dimensions, a constant factor, or what ``mutual_information_matrix`` refuses.
    """
    information = mutual_information_matrix(codes, factors, bins)
    if len(information) < 2:
        raise ValueError("codes have 1 dimension, and a gap needs two; accepted: [N, D] with D at least 2")
    entropies = np.array([entropy(factor) for factor in np.asarray(factors).T])
    if (entropies == 0).any():
        raise ValueError(f"factor {int(entropies.argmin())} is constant; accepted: more than one value in each")
    return float(np.mean(_gap(information) / entropies))


def modularity(codes: np.ndarray, factors: np.ndarray, bins: int = 20) -> float:
    """Modularity (Ridgeway & Mozer 2018): how much each dimension says of one factor only.

    Mean over dimensions of ``1 - sum_{j not best} I_ij^2 / ((F - 1) max_j I_ij^2)``; a dimension that says nothing of
    any factor counts 0. The bias of estimated mutual information keeps unused dimensions from saying exactly nothing,
    so they score like a mixture of all factors.

    Args:
      codes: float ``[N, D]``.
      factors: int ``[N, F]``, F at least 2.
      bins: of each dimension.

    Raises:
      ValueError: fewer than two factors, or what ``mutual_information_matrix`` refuses.
    """
    information = mutual_information_matrix(codes, factors, bins)
    if information.shape[1] < 2:
        raise ValueError("there is 1 factor, and modularity needs others; accepted: [N, F] with F at least 2")
    squares = np.square(information)
    best = squares.max(axis=1)
    others = (squares.sum(axis=1) - best) / (np.where(best > 0, best, 1.0) * (squares.shape[1] - 1))
    return float(np.mean(np.where(best > 0, 1.0 - others, 0.0)))


def squared_correlation(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """R^2 of a linear regression of each factor on each dimension alone, float64 ``[D, F]`` in [0, 1].

    The SAP score's measure for ordered factors (Kumar et al. 2018, section 3); 0 for a dimension that is constant.

    Raises:
      ValueError: codes and factors don't match, are not finite, or a factor is constant.
    """
    codes, factors = _matched(codes, factors)
    codes, factors = _finite(codes), factors.astype(np.float64)
    if (np.ptp(factors, axis=0) == 0).any():
        raise ValueError("a factor is constant; accepted: more than one value in each")
    x, y = codes - codes.mean(axis=0), factors - factors.mean(axis=0)
    active = np.ptp(codes, axis=0) > 0
    scale = np.where(active, np.square(x).sum(axis=0), 1.0)[:, None] * np.square(y).sum(axis=0)
    return np.where(active[:, None], np.minimum(np.square(x.T @ y) / scale, 1.0), 0.0)


def sap(scores: np.ndarray) -> float:
    """Separated attribute predictability (Kumar et al. 2018, section 3).

    Mean over factors of the difference between the two dimensions that predict it best.

    Args:
      scores: float ``[D, F]``, how well dimension i alone predicts factor j, larger the better and 0 for not at all:
        ``squared_correlation`` for ordered factors. For categories the paper takes the balanced accuracy of
        thresholds, Locatello et al. 2019 that of a linear support vector machine; the scale of the score is theirs.

    Raises:
      ValueError: scores are no ``[D, F]`` of finite numbers with D at least 2.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or len(scores) < 2 or not scores.shape[1] or not np.isfinite(scores).all():
        raise ValueError(f"scores have shape {scores.shape}; accepted: finite [D, F] with D at least 2")
    return float(np.mean(_gap(scores)))


def disentanglement(importance: np.ndarray) -> float:
    """D of DCI (Eastwood & Williams 2018, section 2): how much each dimension matters to one factor only.

    ``sum_i rho_i (1 - H_F(P_i))``, the entropy to base F of a dimension's importances divided by their sum, and rho the
    dimension's part of all importance, so that dimensions which matter to no factor don't count.

    Args:
      importance: ``[D, F]``, at least 0, F at least 2: how much a model that predicts factor j from the code makes of
        dimension i. ``lasso_importance``, or the importances of boosted trees (as in Locatello et al. 2019).

    Returns:
      In [0, 1]; where nothing matters to any factor 0, as in Locatello et al. 2019.

    Raises:
      ValueError: importances are no ``[D, F]`` of finite numbers at least 0, or there is one factor.
    """
    return _concentration(_importance(importance, 1, "factor"))


def completeness(importance: np.ndarray) -> float:
    """C of DCI (Eastwood & Williams 2018, section 2): how much each factor depends on one dimension only.

    ``disentanglement`` with dimensions and factors exchanged: entropies to base D of the columns, and the mean weighted
    by a factor's part of all importance, as in Locatello et al. 2019.

    Raises:
      ValueError: as ``disentanglement``, with one dimension in place of one factor.
    """
    return _concentration(_importance(importance, 0, "dimension").T)


def lasso_importance(codes: np.ndarray, factors: np.ndarray, alpha: float = 0.02) -> np.ndarray:
    """Absolute weights ``[D, F]`` of a lasso regression (``fit_lasso``), the L1 variant of Eastwood & Williams 2018.

    Linear: a dimension that tells a factor in another way has no importance. Scores with it are not those of boosted
    trees.

    Raises:
      ValueError: codes and factors don't match, or what ``fit_lasso`` refuses.
    """
    codes, factors = _matched(codes, factors)
    return np.abs(fit_lasso(codes, factors, alpha).weights)


def dci_lasso(
    codes: np.ndarray, factors: np.ndarray, test_codes: np.ndarray, test_factors: np.ndarray, alpha: float = 0.02
) -> DCI:
    """DCI with importances and predictions of the lasso (Eastwood & Williams 2018, sections 2 and 4).

    Informativeness is here the mean R^2 of the predictions of other examples: 1 for perfect ones, 0 for those that
    only know the mean. The paper's is their normalised error, ``sqrt(1 - R^2)`` for each factor.

    Args:
      codes, factors: float ``[N, D]`` and int ``[N, F]``, which the regression is fitted to; D and F at least 2.
      test_codes, test_factors: others of the same kind.
      alpha: weight of the L1 penalty.

    Raises:
      ValueError: codes and factors don't match, a factor is constant, or what ``disentanglement``, ``completeness`` or
        ``fit_lasso`` refuses.
    """
    codes, factors = _matched(codes, factors)
    test_codes, test_factors = _matched(test_codes, test_factors)
    if test_codes.shape[1] != codes.shape[1] or test_factors.shape[1] != factors.shape[1]:
        given = f"{test_codes.shape} and {test_factors.shape} after {codes.shape} and {factors.shape}"
        raise ValueError(f"test codes and factors are {given}; accepted: the same D and F")
    if (np.ptp(test_factors, axis=0) == 0).any():
        raise ValueError("a factor of the test is constant; accepted: more than one value in each")
    model = fit_lasso(codes, factors, alpha)
    importance = np.abs(model.weights)
    error = np.square(model.predict(_finite(test_codes)) - test_factors).mean(axis=0)
    explained = 1.0 - error / test_factors.astype(np.float64).var(axis=0)
    return DCI(disentanglement(importance), completeness(importance), float(explained.mean()))


def factor_vae_score(
    draw: Draw,
    num_factors: int,
    variances: np.ndarray,
    seed: int,
    train_votes: int = 10_000,
    test_votes: int = 5_000,
    batch_size: int = 64,
    threshold: float = 0.05,
) -> float:
    """FactorVAE score (Kim & Mnih 2018, section 4): accuracy of naming the factor that a batch shares.

    Each vote draws a factor at random and a batch that shares its value; the dimension whose variance, divided by its
    variance over all data, is smallest is what the vote is about. Each dimension then stands for the factor that most
    votes of the first part give it, and the score is how often that is right in the second part. Dimensions with a
    deviation below the threshold, which the model leaves unused, take no part.

    Args:
      draw: ``draw(factor, count, rng)`` gives codes ``[count, D]``.
      num_factors: F; factors are 0 to F - 1.
      variances: float ``[D]``, of the codes over all data.
      seed: of all that is drawn.
      train_votes, test_votes, batch_size: as in Locatello et al. 2019.
      threshold: least deviation of a dimension in use.

    Returns:
      In [0, 1]; guessing gives 1 / F, and codes without a dimension in use 0.

    Raises:
      ValueError: counts below 1, a batch below 2, variances that are no ``[D]`` of finite numbers at least 0, or codes
        drawn in another shape or with numbers that are not finite.
    """
    variances = np.asarray(variances, np.float64)
    if variances.ndim != 1 or not len(variances) or not np.isfinite(variances).all() or variances.min() < 0:
        raise ValueError(f"variances have shape {variances.shape}; accepted: [D] finite numbers, at least 0")
    if min(num_factors, train_votes, test_votes) < 1 or batch_size < 2:
        raise ValueError(
            f"{num_factors} factors, {train_votes} and {test_votes} votes, batches of {batch_size}; "
            "accepted: at least 1, 1, 1 and 2"
        )
    active = np.sqrt(variances) >= max(threshold, np.finfo(np.float64).tiny)
    if not active.any():
        return 0.0
    rng = np.random.default_rng(seed)
    votes = np.zeros((2, num_factors, len(variances)), np.int64)
    for part, count in enumerate((train_votes, test_votes)):
        for factor in rng.integers(num_factors, size=count):
            codes = np.asarray(draw(int(factor), batch_size, rng), np.float64)
            if codes.shape != (batch_size, len(variances)) or not np.isfinite(codes).all():
                raise ValueError(f"drawn codes are {codes.shape}; accepted: finite {(batch_size, len(variances))}")
            relative = codes.var(axis=0, ddof=1)[active] / variances[active]
            votes[part, factor, np.flatnonzero(active)[relative.argmin()]] += 1
    stands_for = votes[0].argmax(axis=0)
    return float(votes[1][stands_for, np.arange(len(variances))].sum() / test_votes)


def _matched(codes: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes, factors = np.asarray(codes), np.asarray(factors)
    shaped = codes.ndim == factors.ndim == 2 and len(codes) == len(factors) and 0 not in codes.shape + factors.shape
    if not shaped or factors.dtype.kind not in "iu":
        given = f"codes are {codes.shape} and factors {factors.dtype} {factors.shape}"
        raise ValueError(f"{given}; accepted: [N, D] and int [N, F] of the same N, none of them 0")
    return codes, factors


def _finite(codes: np.ndarray) -> np.ndarray:
    codes = codes.astype(np.float64)
    if not np.isfinite(codes).all():
        raise ValueError("codes hold numbers that are not finite; accepted: finite ones")
    return codes


def _gap(scores: np.ndarray) -> np.ndarray:
    """The largest of each column less the second."""
    ordered = np.sort(scores, axis=0)
    return ordered[-1] - ordered[-2]


def _importance(importance: np.ndarray, axis: int, name: str) -> np.ndarray:
    importance = np.asarray(importance, np.float64)
    if importance.ndim != 2 or 0 in importance.shape or not np.isfinite(importance).all() or importance.min() < 0:
        raise ValueError(f"importances have shape {importance.shape}; accepted: [D, F] finite numbers, at least 0")
    if importance.shape[axis] < 2:
        raise ValueError(f"there is 1 {name}, and an entropy over them needs more; accepted: at least 2")
    return importance


def _concentration(importance: np.ndarray) -> float:
    """1 less the entropy of each row, to the base of its length; mean weighted by the rows' sums."""
    total = importance.sum(axis=1)
    if not total.any():
        return 0.0
    share = importance / np.where(total > 0, total, 1.0)[:, None]
    spread = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1) / np.log(importance.shape[1])
    return float(((1.0 - spread) * total).sum() / total.sum())
