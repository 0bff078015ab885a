"""The Fréchet distance between Gaussians fitted to features, as in the FID (Heusel et al. 2017).

What is computed is the square, d^2 of their eq. 6 (Dowson & Landau 1982), which is what papers report.

It is biased: a sample of N images of the very distribution it is compared with does not give 0, but a positive number
that falls about as 1/N (Chong & Forsyth 2020), from the error of the mean alone tr(S) / N. It is larger the more
dimensions there are, and reaches further than that where N is not well above them. So compare numbers of the same N,
the same reference and the same features only; those of another network are on another scale, the Inception network's
of the published FID among them. ``frechet_infinity`` takes the 1/N part away.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from genjax.metrics.check import check_labels, check_pair, check_rows


@dataclasses.dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean float64 ``[D]`` and covariance float64 ``[D, D]`` of ``count`` rows."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int

    @functools.cached_property
    def factor(self) -> np.ndarray:
        """F float64 ``[D, rank]`` with F F^T the covariance, from its eigenvectors; kept for a reference's next use."""
        values, vectors = np.linalg.eigh(self.covariance)
        # The eigenvalues that are zero come out as rounding of the largest; their square roots would not be small.
        kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
        return vectors[:, kept] * np.sqrt(values[kept])


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
    cross = np.linalg.svd(a.factor.T @ b.factor, compute_uv=False).sum()
    spread = np.trace(a.covariance) + np.trace(b.covariance) - 2.0 * cross
    return float(max(np.square(a.mean - b.mean).sum() + spread, 0.0))  # rounding can leave it below


class FrechetInfinity(NamedTuple):
    """What the distance would be for infinitely many rows.

    Attributes:
      value: the intercept of the line; may be below 0 for rows of the reference's own distribution.
      standard_error: of the value, for the rows as a sample; the reference is taken as it is.
      slope: of the distance against 1 / N; slope / N is the bias of a distance of N rows.
    """

    value: float
    standard_error: float
    slope: float


def frechet_infinity(
    features: np.ndarray, reference: Gaussian, *, points: int = 15, smallest: int | None = None, seed: int = 0
) -> FrechetInfinity:
    """The distance at 1 / N = 0 of a line fitted to the distances of random subsets of N rows (Chong & Forsyth 2020).

    Takes away the part of the bias that falls as 1 / N, on the side of ``features``; the reference's own
    rows bias it still, so it should come from many more. The next part falls as 1 / N^2 and is left: the smallest
    subset should have several times as many rows as dimensions.

    Sizes are spaced evenly from ``smallest`` to all rows, and each subset is drawn anew without replacement. The
    standard error takes the variance of a subset of N rows to be s^2 / N for the distributions, and
    s^2 (1 / N - 1 / all) about the value of all rows, with s^2 from the scatter about the line. It is right on average,
    but from so few points itself uncertain: value -+ 2 standard errors covers about nine times in ten.

    Args:
      features: float ``[N, D]``.
      reference: Gaussian of D dimensions.
      points: sizes, at least 3; 15 in the paper.
      smallest: rows of the smallest subset, above D and at most N / 2; unless given, N / 10 or 5 D, whichever is more,
        but no more than N / 2.
      seed: of the subsets, for ``np.random.default_rng``.

    Raises:
      ValueError: too few rows for this, other widths, or a number that is not finite.
    """
    features = check_rows("features", features)
    count, dims = features.shape
    least = max(count // 10, min(5 * dims, count // 2)) if smallest is None else smallest
    if points < 3:
        raise ValueError(f"points={points} do not show how well a line fits; accepted: at least 3")
    if not dims < least <= count // 2:
        raise ValueError(
            f"smallest={least} of {count} rows of {dims} dimensions; accepted: above {dims} and at most {count // 2}"
        )
    rng = np.random.default_rng(seed)
    sizes = np.unique(np.linspace(least, count, points).round().astype(int))
    subsets = (features[rng.choice(count, size, replace=False)] for size in sizes)
    distances = np.array([frechet_distance(fit(subset), reference) for subset in subsets])
    design = np.stack([np.ones(len(sizes)), 1.0 / sizes], axis=1)
    solve = np.linalg.pinv(design)
    value, slope = solve @ distances
    variances = 1.0 / sizes - 1.0 / count  # of each distance given the rows, over s^2
    residuals = distances - design @ (value, slope)
    # A line bends towards its points, the more the further out they are: 1 - leverage of the variance is left over.
    leverages = np.einsum("ni,in->n", design, solve)
    scatter = np.square(residuals).sum() / ((1.0 - leverages) @ variances)
    error = np.sqrt(scatter * (np.square(solve[0]) @ variances + 1.0 / count))
    return FrechetInfinity(float(value), float(error), float(slope))


class ClassFrechet(NamedTuple):
    """Distances float64 ``[K]`` of the classes ``labels`` int ``[K]``, in ascending order, and their mean."""

    labels: np.ndarray
    distances: np.ndarray
    mean: float


def class_frechet_distances(
    features: np.ndarray,
    labels: np.ndarray,
    reference: np.ndarray,
    reference_labels: np.ndarray,
    *,
    min_rows: int | None = None,
) -> ClassFrechet:
    """Distance of each class to the same class of the reference, and their mean over classes.

    It sees a model that mistakes one class for another, which the distance of all rows does not. Classes have fewer
    rows, so its bias is larger: compare it at the same rows a class only.

    Args:
      features, reference: float ``[N, D]`` and ``[M, D]``.
      labels, reference_labels: int ``[N]`` and ``[M]``.
      min_rows: the fewest rows of a class in either set, at least 2; D + 1 unless given, the fewest whose covariance
        has full rank.

    Raises:
      ValueError: a class has too few rows in either set, or is in one only; other shapes, or a number not finite.
    """
    features, reference = check_pair(("features", "reference"), features, reference, least=2)
    labels = check_labels("labels", labels, len(features))
    reference_labels = check_labels("reference_labels", reference_labels, len(reference))
    least = features.shape[1] + 1 if min_rows is None else min_rows
    if least < 2:
        raise ValueError(f"min_rows={least} have no covariance; accepted: at least 2")
    classes = np.union1d(labels, reference_labels)
    for name, given in (("features", labels), ("reference", reference_labels)):
        counts = (given[:, None] == classes).sum(axis=0)
        if counts.min() < least:
            few = classes[counts.argmin()]
            raise ValueError(f"class {few} has {counts.min()} rows of {name}; accepted: at least min_rows={least}")
    distances = np.array(
        [frechet_distance(fit(features[labels == c]), fit(reference[reference_labels == c])) for c in classes]
    )
    return ClassFrechet(classes, distances, float(distances.mean()))
