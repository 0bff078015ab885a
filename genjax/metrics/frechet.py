"""The Fréchet distance between Gaussians fitted to features, as in the FID (Heusel et al. 2017).

What is computed is the square, d^2 of their eq. 6 (Dowson & Landau 1982), which is what papers report.

It is biased: a sample of N images of the very distribution it is compared with does not give 0, but a positive number
that falls about as 1/N (Chong & Forsyth 2020), from the error of the mean alone tr(S) / N. It is larger the more
dimensions there are, and reaches further than that where N is not well above them. So compare numbers of the same N,
the same reference and the same features only; those of another network are on another scale, the Inception network's
of the published FID among them.
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean float64 ``[D]`` and covariance float64 ``[D, D]`` of ``count`` rows."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int


class Moments:
    """Mean and covariance of rows that come in padded batches, in float64.

    Sums are of deviations from the mean so far (Chan et al. 1983), so that features far from zero lose no digits.

    Raises:
      ValueError: a batch is no matrix, has another width than the first, or its mask another length.
    """

    def __init__(self):
        self.count = 0
        self._mean = np.zeros(0)
        self._scatter = np.zeros((0, 0))  # sum of the outer products of deviations from the mean

    def add(self, features: np.ndarray, mask: np.ndarray | None = None) -> None:
        """Adds rows ``[B, D]``; mask ``[B]`` with 1 for a real row and 0 for padding, all real unless given."""
        features = np.asarray(features)
        if features.ndim != 2 or (mask is not None and np.shape(mask) != features.shape[:1]):
            given = features.shape if mask is None else f"{features.shape} with a mask of {np.shape(mask)}"
            raise ValueError(f"features are {given}; accepted: [B, D], with a mask of [B]")
        # A padded row may hold anything, NaN included; only real rows are looked at.
        rows = features if mask is None else features[np.asarray(mask) > 0]
        if not len(rows):
            return
        if self.count and rows.shape[1] != len(self._mean):
            raise ValueError(f"features have {rows.shape[1]} dimensions; those before had {len(self._mean)}")
        rows = rows.astype(np.float64)
        mean = rows.mean(axis=0)
        scatter = (rows - mean).T @ (rows - mean)
        if self.count:
            total = self.count + len(rows)
            shift = mean - self._mean
            scatter += self._scatter + np.outer(shift, shift) * (self.count * len(rows) / total)
            mean = self._mean + shift * (len(rows) / total)
        self._mean, self._scatter, self.count = mean, scatter, self.count + len(rows)

    def gaussian(self) -> Gaussian:
        """The Gaussian of these moments, with the unbiased covariance (division by count - 1).

        Raises:
          ValueError: fewer than two rows have no covariance.
        """
        if self.count < 2:
            raise ValueError(f"{self.count} examples have no covariance; accepted: at least 2")
        return Gaussian(self._mean, self._scatter / (self.count - 1), self.count)


def fit(features: np.ndarray) -> Gaussian:
    """The Gaussian of rows ``[N, D]``; raises ValueError as ``Moments``."""
    moments = Moments()
    moments.add(features)
    return moments.gaussian()


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """``|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))``, at least 0; symmetric, in the features' squared unit.

    With S = F F^T for each covariance, the last trace is the sum of the singular values of F_a^T F_b: S_a S_b has the
    squares of these for its eigenvalues. So no square root of a matrix that is not symmetric is needed, and covariances
    without full rank are no special case.

    Raises:
      ValueError: the Gaussians are not of the same number of dimensions, or hold a number that is not finite.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"Gaussians of {len(a.mean)} and {len(b.mean)} dimensions have no distance")
    if not all(np.isfinite(array).all() for array in (a.mean, a.covariance, b.mean, b.covariance)):
        raise ValueError("features that are not finite have no distance")
    cross = np.linalg.svd(_factor(a.covariance).T @ _factor(b.covariance), compute_uv=False).sum()
    spread = np.trace(a.covariance) + np.trace(b.covariance) - 2.0 * cross
    return float(max(np.square(a.mean - b.mean).sum() + spread, 0.0))  # rounding can leave it below


def _factor(covariance: np.ndarray) -> np.ndarray:
    """F ``[D, rank]`` with F F^T the covariance, from its eigenvectors."""
    values, vectors = np.linalg.eigh(covariance)
    # The eigenvalues that are zero come out as rounding of the largest; their square roots would not be small.
    kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])
