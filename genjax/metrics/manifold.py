"""How much of the generated set lies among the real one, and how much of the real one it reaches.

Each set is stood for by balls about its rows that reach to their k-th nearest neighbour of the same set, the row
itself not counted. Improved precision and recall (Kynkäänniemi et al. 2019) ask whether a row lies in any ball of the
other set; density and coverage (Naeem et al. 2020) use the balls of the real set only, because one outlier among
generated rows has a ball wide enough to hold everything. Balls are closed (d <= r, Kynkäänniemi et al. 2019, eq. 1), so
that identical sets have precision and recall 1 even where rows are repeated. All four depend on k and on the numbers of
rows: compare at the same ones.

Squared distances come as |x|^2 + |y|^2 - 2 x.y, one matrix product, from features centred on their common mean. That
loses digits where rows are nearer each other than to the mean, so it is only trusted up to a bound on its rounding
error: a pair that the bound leaves undecided is computed again as the sum of (x - y)^2, from the features as given. So
every decision is that of the direct sum in float64; a copied row is at distance 0, and ties stay ties. Undecided pairs
are few, but for sets of which a good part differs by rounding alone: those take the time of direct sums.

Memory is the features', plus a few arrays of block_size x block_size in float64 (8 MiB each at 1024).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from genjax.metrics.check import check_pair, check_rows
from genjax.types import check_positive

# Rows and columns of a block: large enough for the matrix product, small enough to stay near the processor.
BLOCK_SIZE = 1024
_CHUNK = 2**20  # values of a chunk of direct differences


class PrecisionRecall(NamedTuple):
    """Shares of rows, each in [0, 1]."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Density, at least 0 and about 1 for equal distributions, and coverage in [0, 1]."""

    density: float
    coverage: float


class ManifoldMetrics(NamedTuple):
    """``PrecisionRecall`` and ``DensityCoverage`` at one k."""

    precision: float
    recall: float
    density: float
    coverage: float


def nearest_distances(features: np.ndarray, k: int, *, block_size: int = BLOCK_SIZE) -> np.ndarray:
    """Distance of every row to its k-th nearest other row, float64 ``[N]``; 0 where k other rows are copies of it.

    Args:
      features: float ``[N, D]``.
      k: from 1 to N - 1.
      block_size: rows and columns of a block of distances; changes memory and time, not the result.

    Raises:
      ValueError: fewer than k + 1 rows, or a number that is not finite.
    """
    check_positive(k=k, block_size=block_size)
    features = _checked_k("features", check_rows("features", features), k)
    return np.sqrt(_radii(features, k, block_size))


def precision_recall(
    real: np.ndarray, generated: np.ndarray, *, k: int = 3, block_size: int = BLOCK_SIZE
) -> PrecisionRecall:
    """Share of generated rows in a ball of the real set, and of real rows in a ball of the generated one.

    Kynkäänniemi et al. 2019, eq. 1 and 2; k = 3 as there.

    Args:
      real, generated: features, float ``[N, D]`` and ``[M, D]``.
      k: the neighbour that a ball reaches to, from 1 to the rows of the smaller set less 1.
      block_size: rows and columns of a block of distances; changes memory and time, not the result.

    Raises:
      ValueError: fewer than k + 1 rows, other widths, or a number that is not finite.
    """
    real, generated = _checked(real, generated, k, block_size)
    _, inside_real = _balls(real, generated, _radii(real, k, block_size), block_size)
    _, inside_generated = _balls(generated, real, _radii(generated, k, block_size), block_size)
    return PrecisionRecall(float(inside_real.mean()), float(inside_generated.mean()))


def density_coverage(
    real: np.ndarray, generated: np.ndarray, *, k: int = 5, block_size: int = BLOCK_SIZE
) -> DensityCoverage:
    """Balls of the real set that a generated row lies in, over k; and share of these balls that hold a generated row.

    Naeem et al. 2020, sec. 3; k = 5 as there. For equal distributions density is 1 on average, and coverage
    1 - (N - 1)...(N - k) / ((N + M - 1)...(N + M - k)), which is about 1 - 2^-k for N = M (their sec. 3, too).

    Args and errors: as ``precision_recall``, but the generated set may have a single row.
    """
    real, generated = _checked(real, generated, k, block_size, least_generated=1)
    counts, _ = _balls(real, generated, _radii(real, k, block_size), block_size)
    return DensityCoverage(float(counts.sum() / (k * len(generated))), float((counts > 0).mean()))


def manifold_metrics(
    real: np.ndarray, generated: np.ndarray, *, k: int = 5, block_size: int = BLOCK_SIZE
) -> ManifoldMetrics:
    """Precision, recall, density and coverage at the same k, for less than the two functions apart.

    Args and errors: as ``precision_recall``.
    """
    real, generated = _checked(real, generated, k, block_size)
    counts, inside_real = _balls(real, generated, _radii(real, k, block_size), block_size)
    _, inside_generated = _balls(generated, real, _radii(generated, k, block_size), block_size)
    density = counts.sum() / (k * len(generated))
    means = inside_real.mean(), inside_generated.mean(), density, (counts > 0).mean()
    return ManifoldMetrics(*(float(mean) for mean in means))


def _checked(
    real: np.ndarray, generated: np.ndarray, k: int, block_size: int, least_generated: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    check_positive(k=k, block_size=block_size)
    real, generated = check_pair(("real", "generated"), real, generated, least=1)
    return _checked_k("real", real, k), _checked_k("generated", generated, k if least_generated is None else 0)


def _checked_k(name: str, features: np.ndarray, k: int) -> np.ndarray:
    if len(features) <= k:
        raise ValueError(f"k={k} is too large for {name} of {len(features)} rows; accepted: at least k + 1 rows")
    return features


class _Block(NamedTuple):
    """Squared distances ``[rows, columns]`` from row ``row`` of the one set and ``column`` of the other on."""

    row: int
    column: int
    squares: np.ndarray
    error: float  # none of the squares is further off than this


class _Distances:
    """Squared distances between rows of two matrices: all of them approximately, by blocks, and any of them exactly."""

    def __init__(self, a: np.ndarray, b: np.ndarray, block_size: int):
        self.a, self.b, self.block_size = a, b, block_size
        self._centre = (a.sum(axis=0, dtype=np.float64) + b.sum(axis=0, dtype=np.float64)) / (len(a) + len(b))
        # With u half of eps, per (|x|^2 + |y|^2): 4 u from centring, D u from the norms and 2 (D + 2) u from the
        # product, to first order; then (D + 2) 2 u of the direct sum it is compared with. Twice that, to be safe.
        self._relative_error = 5.0 * (a.shape[1] + 4) * np.finfo(np.float64).eps

    def blocks(self) -> Iterator[_Block]:
        for i in range(0, len(self.a), self.block_size):
            x, x_squares = self._centred(self.a[i : i + self.block_size])
            # |x|^2 and |y|^2 enter the product as two more columns, which saves two passes over the block.
            left = np.concatenate([x, x_squares, np.ones_like(x_squares)], axis=1)
            for j in range(0, len(self.b), self.block_size):
                y, y_squares = self._centred(self.b[j : j + self.block_size])
                right = np.concatenate([-2.0 * y, np.ones_like(y_squares), y_squares], axis=1)
                yield _Block(i, j, left @ right.T, self._relative_error * float(x_squares.max() + y_squares.max()))

    def exact(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Direct sums, float64 ``[P]``, for P pairs: the same bits for the same two rows wherever they are."""
        squares = np.empty(len(rows))
        step = max(1, _CHUNK // self.a.shape[1])
        for i in range(0, len(rows), step):
            difference = self.a[rows[i : i + step]].astype(np.float64) - self.b[columns[i : i + step]]
            squares[i : i + step] = np.square(difference, out=difference).sum(axis=1)
        return squares

    def _centred(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = rows - self._centre
        return x, np.einsum("nd,nd->n", x, x)[:, None]


def _radii(features: np.ndarray, k: int, block_size: int) -> np.ndarray:
    """Squared distance of every row to its k-th nearest other row, float64 ``[N]``."""
    distances = _Distances(features, features, block_size)
    nearest = np.full((len(features), k), np.inf)  # so far; the largest of a row's is in its last place
    for row, column, squares, error in distances.blocks():
        best = nearest[row : row + len(squares)]
        if row == column:
            np.fill_diagonal(squares, np.inf)
        limits = best[:, -1]
        if np.isinf(limits).any() and squares.shape[1] > k:
            limits = np.minimum(limits, np.partition(squares, k - 1, axis=1)[:, k - 1] + error)
        # The row itself, at inf, is never near enough. And nothing is nearer than 0, which spares sets of copies.
        limits = np.where(best[:, -1] > 0.0, np.minimum(limits + error, np.finfo(np.float64).max), -np.inf)
        rows, columns = np.nonzero(squares <= limits[:, None])
        if len(rows):
            found = distances.exact(rows + row, columns + column)
            best[:] = np.partition(np.concatenate([best, _ragged(rows, found, len(best))], axis=1), k - 1)[:, :k]
    return nearest[:, -1]


def _ragged(rows: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Values in a matrix of ``count`` rows, filled up with inf; ``rows`` says in which, in ascending order."""
    lengths = np.bincount(rows, minlength=count)
    matrix = np.full((count, lengths.max()), np.inf)
    matrix[rows, np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)] = values
    return matrix


def _balls(
    centres: np.ndarray, points: np.ndarray, radii: np.ndarray, block_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Points in each ball, of squared radius ``radii``, int64 ``[N]``; and whether a point is in any, bool ``[M]``."""
    distances = _Distances(centres, points, block_size)
    counts, inside_any = np.zeros(len(centres), np.int64), np.zeros(len(points), bool)
    for row, column, squares, error in distances.blocks():
        limits = radii[row : row + len(squares)]
        squares -= limits[:, None]
        inside = squares <= 0.0
        rows, columns = np.nonzero(np.abs(squares, out=squares) <= error)
        inside[rows, columns] = distances.exact(rows + row, columns + column) <= limits[rows]
        counts[row : row + len(squares)] += np.count_nonzero(inside, axis=1)
        inside_any[column : column + inside.shape[1]] |= inside.any(axis=0)
    return counts, inside_any
