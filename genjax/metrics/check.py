"""What the metrics of sets ask of their arrays, refused in one line before anything is computed."""

from __future__ import annotations

import numpy as np


def check_rows(name: str, array: np.ndarray, least: int = 1) -> np.ndarray:
    """``array`` as a NumPy array of its own dtype, once it is a matrix of at least ``least`` rows of finite numbers.

    Raises:
      ValueError: it is not ``[N, D]`` with D at least 1, has fewer rows, or holds what is no finite real number.
    """
    array = np.asarray(array)
    if array.ndim != 2 or not array.shape[1]:
        raise ValueError(f"{name} has shape {array.shape}; accepted: [N, D] with D at least 1")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} has dtype {array.dtype}; accepted: float16, float32, float64 and integers")
    if len(array) < least:
        raise ValueError(f"{name} has {len(array)} rows; accepted: at least {least}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} holds a number that is not finite; accepted: finite numbers")
    return array


def check_pair(names: tuple[str, str], a: np.ndarray, b: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays as of ``check_rows``.

    Raises:
      ValueError: as ``check_rows`` for either, or they are not of the same width.
    """
    a, b = check_rows(names[0], a, least), check_rows(names[1], b, least)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{names[0]} has {a.shape[1]} dimensions, {names[1]} has {b.shape[1]}; accepted: the same number"
        )
    return a, b


def check_labels(name: str, labels: np.ndarray, count: int) -> np.ndarray:
    """``labels`` as an integer array ``[count]``; ValueError otherwise."""
    labels = np.asarray(labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(f"{name} are {labels.dtype} {labels.shape}; accepted: integers, one a row, ({count},)")
    return labels


def check_level(level: float) -> None:
    """ValueError unless ``level`` is a probability that an interval can have."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"level={level} is out of range; accepted: above 0 and below 1, as 0.95")
