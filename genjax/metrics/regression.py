"""Lasso regression of several targets on standardised features: the importance that DCI was first measured with."""

from __future__ import annotations

import dataclasses

import numpy as np

SWEEPS = 20_000
TOLERANCE = 1e-13


@dataclasses.dataclass(frozen=True, eq=False)
class Lasso:
    """``weights`` float64 ``[D, F]`` of standardised features for standardised targets, with what standardises them."""

    weights: np.ndarray
    feature_mean: np.ndarray
    feature_scale: np.ndarray
    target_mean: np.ndarray
    target_scale: np.ndarray

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Targets float64 ``[N, F]`` of features ``[N, D]``, in the targets' own units."""
        standard = (features.astype(np.float64) - self.feature_mean) / self.feature_scale
        return standard @ self.weights * self.target_scale + self.target_mean


def fit_lasso(features: np.ndarray, targets: np.ndarray, alpha: float) -> Lasso:
    """Minimises ``|y - X w|^2 / (2 N) + alpha |w|_1`` for each target (Tibshirani 1996) by coordinate descent.

    Features and targets are standardised first, so that weights compare across features, and ``alpha`` is in [0, 1): at
    1 every weight is 0. A feature that is constant has the weight 0.

    Args:
      features: float ``[N, D]``.
      targets: real ``[N, F]``, none of the columns constant.
      alpha: weight of the penalty.

    Raises:
      ValueError: shapes don't match, a number is not finite, a target is constant, or ``alpha`` is outside [0, 1).
    """
    features, targets = np.asarray(features), np.asarray(targets)
    if features.ndim != 2 or targets.ndim != 2 or len(features) != len(targets) or len(features) < 2:
        raise ValueError(
            f"features are {features.shape} and targets {targets.shape}; accepted: [N, D] and [N, F], N > 1"
        )
    if not 0.0 <= alpha < 1.0:
        raise ValueError(f"alpha is {alpha}; accepted: 0 to below 1")
    features, targets = features.astype(np.float64), targets.astype(np.float64)
    if not (np.isfinite(features).all() and np.isfinite(targets).all()):
        raise ValueError("features or targets hold numbers that are not finite; accepted: finite ones")
    if (np.ptp(targets, axis=0) == 0).any():
        raise ValueError("a target is constant, which nothing can explain; accepted: more than one value in each")
    feature_mean, feature_scale = features.mean(axis=0), features.std(axis=0)
    target_mean, target_scale = targets.mean(axis=0), targets.std(axis=0)
    # The deviation of a constant column is rounding, which divided by itself would be a feature.
    constant = np.ptp(features, axis=0) == 0
    feature_scale = np.where(constant, 1.0, feature_scale)
    x = np.where(constant, 0.0, (features - feature_mean) / feature_scale)
    y = (targets - target_mean) / target_scale
    weights = _descend(x.T @ x / len(x), x.T @ y / len(x), ~constant, alpha)
    return Lasso(weights, feature_mean, feature_scale, target_mean, target_scale)


def _descend(gram: np.ndarray, cross: np.ndarray, active: np.ndarray, alpha: float) -> np.ndarray:
    """Weights ``[D, F]`` of features with the Gram matrix ``[D, D]`` of unit diagonal; all targets at once."""
    weights = np.zeros_like(cross)
    for _ in range(SWEEPS):
        largest = 0.0
        for i in np.flatnonzero(active):
            gradient = cross[i] - gram[i] @ weights + weights[i]  # of all but this weight
            new = np.sign(gradient) * np.maximum(np.abs(gradient) - alpha, 0.0)
            largest = max(largest, float(np.abs(new - weights[i]).max()))
            weights[i] = new
        if largest < TOLERANCE:
            break
    return weights
