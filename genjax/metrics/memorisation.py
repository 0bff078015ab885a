"""Whether samples are copies of training images.

Everything rests on distances to the nearest image, in the space the caller chooses: pixels, or features of a network.
A copy is nearer to its training image than a new image of the same kind would be; how near those come is what held-out
images tell. So the held-out images have to be of the distribution that the training images are of, and unseen.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Nearest:
    """Of each of N rows: float64 ``[N]`` distances to the nearest reference, and its place, int64 ``[N]``."""

    distances: np.ndarray
    indices: np.ndarray


@dataclasses.dataclass(frozen=True)
class RankTest:
    """``z`` is standard normal where both groups are distributed alike; ``p_value`` = P(Z <= z), small for copying."""

    z: float
    p_value: float


@dataclasses.dataclass(frozen=True, eq=False)
class CellTest:
    """``score`` is C_T, the weighted mean of ``z`` float64 ``[K]``, the tests of the ``cells`` ``[K]`` that count."""

    score: float
    cells: np.ndarray
    z: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Memorisation:
    """What distances to the nearest images say of N samples.

    to_train, to_heldout: the nearest image of each sample, with its distance, for pictures of pairs.
    test: ``copying_test`` of the samples' distances to training images against those of held-out images.
    copied_share: ``copied_share`` of the same distances, and copied_expected what it is where nothing is copied.
    nearer_share: share of samples nearer to a training image than to any held-out one, ties counting half; in [0, 1].
    nearer_expected: what that is where nothing is copied, the training images' share of all references.
    """

    to_train: Nearest
    to_heldout: Nearest
    test: RankTest
    copied_share: float
    copied_expected: float
    nearer_share: float
    nearer_expected: float


def memorisation(
    samples: np.ndarray, train: np.ndarray, heldout: np.ndarray, percent: float = 1.0, block: int = 1024
) -> Memorisation:
    """Compares samples ``[N, ...]`` with training images ``[T, ...]`` and held-out ones ``[H, ...]``.

    Args:
      samples, train, heldout: images or features, any real dtype, all of the same units; flattened to rows.
      percent: the share of held-out images, in %, that ``copied_share`` takes for suspiciously near.
      block: rows that are compared at a time, see ``nearest``.

    Raises:
      ValueError: what ``nearest``, ``copying_test`` or ``copied_share`` refuses.
    """
    to_train, to_heldout = nearest(samples, train, block), nearest(samples, heldout, block)
    own = nearest(heldout, train, block).distances
    nearer = np.sign(to_heldout.distances - to_train.distances)
    share, expected = copied_share(to_train.distances, own, percent)
    return Memorisation(
        to_train=to_train,
        to_heldout=to_heldout,
        test=copying_test(to_train.distances, own),
        copied_share=share,
        copied_expected=expected,
        nearer_share=float((nearer.mean() + 1.0) / 2.0),
        nearer_expected=len(train) / (len(train) + len(heldout)),
    )


def nearest(rows: np.ndarray, references: np.ndarray, block: int = 1024) -> Nearest:
    """The nearest reference of each row in the Euclidean distance.

    Found by |x|^2 + |y|^2 - 2 x y about a common centre; the distance to the one found is then taken from its
    difference, so that a copy is at exactly 0. Which of several references that are equally near up to rounding is
    found is left open.

    Args:
      rows: ``[N, ...]``, flattened to ``[N, D]``, any real dtype.
      references: ``[M, ...]``, of the same D.
      block: rows and references that are in float64 at a time: memory is about 8 block (2 D + 2 block) bytes.

    Raises:
      ValueError: no rows, rows of different sizes, numbers that are not finite, or a block below 1.
    """
    rows, references = _flat(rows, "rows"), _flat(references, "references")
    if rows.shape[1] != references.shape[1]:
        raise ValueError(f"rows have {rows.shape[1]} values and references {references.shape[1]}; accepted: the same")
    if block < 1:
        raise ValueError(f"block is {block}; accepted: at least 1")
    centre = references[:block].astype(np.float64).mean(axis=0)
    distances, indices = np.empty(len(rows)), np.empty(len(rows), np.int64)
    for start, part in _blocks(rows, block, "rows"):
        best, found = np.full(len(part), np.inf), np.zeros(len(part), np.int64)
        moved = part - centre
        for offset, others in _blocks(references, block, "references"):
            others = others - centre
            # |x|^2 is the same for all references, so it does not matter for which one is nearest.
            squares = np.square(others).sum(axis=1) - 2.0 * (moved @ others.T)
            own = squares.argmin(axis=1)
            value = squares[np.arange(len(part)), own]
            better = value < best
            best[better], found[better] = value[better], own[better] + offset
        distances[start : start + len(part)] = np.sqrt(np.square(part - references[found]).sum(axis=1))
        indices[start : start + len(part)] = found
    return Nearest(distances, indices)


def copying_test(sample_distances: np.ndarray, heldout_distances: np.ndarray) -> RankTest:
    """Mann-Whitney test of whether samples are nearer to the training images than held-out images are.

    Z_U of Meehan et al. 2020: U counts the pairs in which the sample is further from its nearest training
    image than the held-out one is, ``z = (U - m n / 2) / sqrt(m n (m + n + 1) / 12)``. Ties count half and narrow the
    deviation accordingly. Well below 0: copying; well above: samples are further from the training images than new
    images are, as with a model that underfits.

    Args:
      sample_distances: ``[m]``, from ``nearest(samples, train)``.
      heldout_distances: ``[n]``, from ``nearest(heldout, train)``.

    Raises:
      ValueError: distances are no vectors of at least two finite numbers.
    """
    own, other = _vector(sample_distances, "sample"), _vector(heldout_distances, "held-out")
    m, n = len(own), len(other)
    _, place, counts = np.unique(np.concatenate([own, other]), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[place]
    u = ranks[:m].sum() - m * (m + 1) / 2.0
    total = m + n
    ties = (counts.astype(np.float64) ** 3 - counts).sum() / (total * (total - 1))
    variance = m * n * (total + 1 - ties) / 12.0
    # Where all distances are the same there is nothing to tell the groups apart.
    z = float((u - m * n / 2.0) / math.sqrt(variance)) if variance > 0 else 0.0
    return RankTest(z, 0.5 * math.erfc(-z / math.sqrt(2.0)))


def c_t(
    samples: np.ndarray,
    heldout: np.ndarray,
    train: np.ndarray,
    cells: tuple[np.ndarray, np.ndarray, np.ndarray],
    least_share: float = 0.0,
    block: int = 1024,
) -> CellTest:
    """C_T of Meehan et al. 2020: the mean z of ``copying_test`` over cells of a partition of the space.

    Where some regions are denser than others, a sample's distance says little beside those of another region, and
    copying in one of them goes unseen in a test of the whole space. Within a cell like is compared with like. Cells are
    weighted by the held-out images in them; the z of a single cell tells of copying that the mean hides.

    Args:
      samples, heldout, train: as in ``memorisation``.
      cells: int ``[N]``, ``[H]`` and ``[T]``, the cell of each sample, held-out and training image, for instance
        the nearest of the centres that k-means finds for the training images.
      least_share: cells with no more than this share of the samples are left out; those with fewer than two always are.

    Returns:
      A score below 0 for copying; where nothing is copied, its deviation is at most 1, and the smaller the more cells.

    Raises:
      ValueError: cells don't match the images, a cell that counts has fewer than two held-out images or no training
        image, none is left, or what ``nearest`` refuses.
    """
    groups = (samples, heldout, train)
    cells = (np.asarray(cells[0]), np.asarray(cells[1]), np.asarray(cells[2]))
    if any(cell.shape != (len(group),) for cell, group in zip(cells, groups, strict=True)):
        raise ValueError("cells are not one number for each image; accepted: [N], [H] and [T]")
    kept, scores, weights = [], [], []
    for cell in np.unique(cells[0]):
        inside = [group[own == cell] for group, own in zip(groups, cells, strict=True)]
        if len(inside[0]) < 2 or len(inside[0]) <= least_share * len(samples):
            continue
        if len(inside[1]) < 2 or len(inside[2]) < 1:
            raise ValueError(
                f"cell {cell} has {len(inside[1])} held-out and {len(inside[2])} training images; "
                "accepted: at least 2 and 1, as with fewer cells"
            )
        own, other = (nearest(group, inside[2], block).distances for group in inside[:2])
        kept.append(cell)
        scores.append(copying_test(own, other).z)
        weights.append(len(inside[1]))
    if not scores:
        raise ValueError(f"no cell has more than {least_share:g} of the samples; accepted: a smaller least_share")
    return CellTest(float(np.average(scores, weights=weights)), np.array(kept), np.array(scores))


def copied_share(
    sample_distances: np.ndarray, heldout_distances: np.ndarray, percent: float = 1.0
) -> tuple[float, float]:
    """Share of samples nearer to a training image than the nearest ``percent`` % of held-out images are.

    The bound is the k-th smallest held-out distance, k being ``percent`` % of the n held-out images rounded down, so
    that of fresh images ``k / (n + 1)`` are expected below it whatever the distribution. It is the share that a test
    of a single sample would call unauthentic (after Alaa et al. 2022, with held-out images as the measure).

    Returns:
      The share in [0, 1] and the one expected where nothing is copied.

    Raises:
      ValueError: distances as in ``copying_test``, or a ``percent`` that is less than one held-out image or over 100.
    """
    own, other = _vector(sample_distances, "sample"), _vector(heldout_distances, "held-out")
    # 29 % of 100 is 28.999999999999996 in floating point, and 29 are meant.
    k = math.floor(percent * len(other) / 100.0 + 1e-9) if math.isfinite(percent) else 0
    if not 1 <= k <= len(other):
        raise ValueError(f"{percent} % of {len(other)} held-out distances; accepted: 1 of them to all")
    return float(np.mean(own < np.sort(other)[k - 1])), k / (len(other) + 1)


def _flat(array: np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(array)
    if array.ndim < 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise ValueError(f"{name} are {array.dtype} {array.shape}; accepted: real numbers [N, ...], none of them 0")
    return array.reshape(len(array), -1)


def _blocks(array: np.ndarray, block: int, name: str) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(array), block):
        part = array[start : start + block].astype(np.float64)
        if not np.isfinite(part).all():
            raise ValueError(f"{name} hold numbers that are not finite; accepted: finite ones")
        yield start, part


def _vector(distances: np.ndarray, name: str) -> np.ndarray:
    distances = np.asarray(distances, np.float64)
    if distances.ndim != 1 or len(distances) < 2 or not np.isfinite(distances).all():
        raise ValueError(f"{name} distances have shape {distances.shape}; accepted: [N] of at least 2 finite numbers")
    return distances
