"""Numbers about a classifier's answers on a whole split."""

from __future__ import annotations

import numpy as np


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of examples whose largest logit is the label's, in [0, 1]; logits ``[N, K]``, labels int ``[N]``."""
    return float(np.mean(np.argmax(logits, axis=-1) == labels))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """log p(class), float64 ``[N, K]``."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log p(label) in nats."""
    return float(-np.mean(log_softmax(logits)[np.arange(len(labels)), labels]))


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over equal-width bins of confidence, weighted by their size.

    Guo et al. 2017, eq. 3; 15 bins as there. In [0, 1], 0 for a calibrated classifier.
    """
    confidence = np.exp(log_softmax(logits)).max(axis=-1)
    correct = (np.argmax(logits, axis=-1) == labels).astype(np.float64)
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(bin_of, correct, bins) - np.bincount(bin_of, confidence, bins)
    return float(np.abs(gap).sum() / len(labels))


def confusion_matrix(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Counts int64 ``[K, K]``: row is the true class, column the predicted one."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def by_class(matrix: np.ndarray) -> list[dict[str, float]]:
    """For each class of a confusion matrix: examples, recall with its 95 % interval, precision and F1, in [0, 1].

    Args:
      matrix: counts ``[K, K]``, row the true class, column the predicted one.

    Returns:
      Recall, its bounds and F1 are absent for a class without examples, precision for one that was never predicted.
    """
    table = []
    for number, (actual, predicted) in enumerate(zip(matrix.sum(1).tolist(), matrix.sum(0).tolist(), strict=True)):
        right = int(matrix[number, number])
        row: dict[str, float] = {"examples": actual}
        if actual:
            low, high = wilson_interval(right, actual)
            row |= {"recall": right / actual, "recall_low": low, "recall_high": high}
            row["f1"] = 2 * right / (actual + predicted)
        if predicted:
            row["precision"] = right / predicted
        table.append(row)
    return table


def wilson_interval(successes: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927); sound at 0 and 1 too."""
    p = successes / count
    centre = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    # Rounding must not leave the proportion itself outside.
    return 0.0 if successes <= 0 else float(centre - half), 1.0 if successes >= count else float(centre + half)
