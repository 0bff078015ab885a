"""Entropy and mutual information of discrete values, in nats, from their counts."""

from __future__ import annotations

import numpy as np


def discretise(codes: np.ndarray, bins: int = 20) -> np.ndarray:
    """The bin of each value among ``bins`` of equal width from the smallest to the largest value of its column.

    Args:
      codes: float ``[N, D]``.
      bins: 20 in the studies of disentanglement (Locatello et al. 2019).

    Returns:
      int64 ``[N, D]`` in [0, bins); a column that is constant is in one bin.

    Raises:
      ValueError: codes are no ``[N, D]``, hold numbers that are not finite, or there are fewer than two bins.
    """
    codes = np.asarray(codes)
    if codes.ndim != 2 or 0 in codes.shape or codes.dtype.kind not in "fiu":
        raise ValueError(f"codes are {codes.dtype} {codes.shape}; accepted: real numbers [N, D], none of them 0")
    codes = codes.astype(np.float64)
    if not np.isfinite(codes).all():
        raise ValueError("codes hold numbers that are not finite; accepted: finite ones")
    if bins < 2:
        raise ValueError(f"bins is {bins}; accepted: at least 2")
    # Left edges; what is at the right edge of the last bin is in it.
    edges = np.linspace(codes.min(axis=0), codes.max(axis=0), bins + 1)[:-1]
    found = [np.searchsorted(edge, column, side="right") - 1 for edge, column in zip(edges.T, codes.T, strict=True)]
    return np.stack(found, axis=1)


def entropy(values: np.ndarray) -> float:
    """Entropy of the frequencies of int ``[N]``, in [0, log N]; raises ValueError for anything else."""
    return _entropy(np.unique(_discrete(values), return_counts=True)[1])


def mutual_information(first: np.ndarray, second: np.ndarray) -> float:
    """``sum p(a, b) log(p(a, b) / (p(a) p(b)))`` of the joint frequencies of two int ``[N]``.

    It is biased upwards, by about (A - 1) (B - 1) / (2 N) for independent values of A and B kinds.

    Returns:
      At least 0, at most the entropy of either.

    Raises:
      ValueError: values are no integers ``[N]``, or of different lengths.
    """
    first, second = _discrete(first), _discrete(second)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} values are no pairs; accepted: the same number")
    rows, a = np.unique(first, return_inverse=True)
    columns, b = np.unique(second, return_inverse=True)
    if min(len(rows), len(columns)) == 1:
        return 0.0  # which the sum below is only up to rounding, and modularity compares such values
    joint = np.bincount(a * len(columns) + b, minlength=len(rows) * len(columns)).reshape(len(rows), len(columns))
    share = joint / len(first)
    expected = np.outer(share.sum(axis=1), share.sum(axis=0))
    there = joint > 0
    return float(max((share[there] * np.log(share[there] / expected[there])).sum(), 0.0))  # rounding, again


def normalized_mutual_information(first: np.ndarray, second: np.ndarray) -> float:
    """Mutual information over the mean of both entropies, in [0, 1]; 1 where each says which the other is.

    Raises:
      ValueError: as ``mutual_information``, or both are constant.
    """
    information = mutual_information(first, second)
    mean = (entropy(first) + entropy(second)) / 2.0
    if mean == 0.0:
        raise ValueError("both are constant; accepted: values of more than one kind")
    return min(information / mean, 1.0)


def _discrete(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "iub":
        raise ValueError(f"values are {values.dtype} {values.shape}; accepted: integers [N], at least one")
    return values


def _entropy(counts: np.ndarray) -> float:
    share = counts / counts.sum()
    return float(max(-(share * np.log(share)).sum(), 0.0))
