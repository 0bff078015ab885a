"""Which modes a generator reaches, and how usefully: stacked digits, and classifiers trained on samples.

Stacked digits are images of three digits, one in each colour channel, so that they have 1000 modes that a classifier
of single digits can name (Metz et al. 2017; Lin et al. 2018).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from genjax.metrics.classification import wilson_interval


@dataclasses.dataclass(frozen=True)
class ModeCoverage:
    """``found`` modes of ``modes`` with at least one sample, and ``kl`` = KL(samples || target) in nats, at least 0."""

    found: int
    modes: int
    kl: float


@dataclasses.dataclass(frozen=True, eq=False)
class AccuracyScore:
    """``accuracy`` in [0, 1], its 95 % interval, and ``per_class`` float64 ``[K]``, NaN for a class without images."""

    accuracy: float
    low: float
    high: float
    per_class: np.ndarray


def mode_numbers(digits: np.ndarray, classes: int = 10) -> np.ndarray:
    """The mode of each stacked image: its digits read as one number, int64 ``[N]`` in [0, classes^S).

    Args:
      digits: int ``[N, S]``, the predicted class of each of S channels; S = 3 for stacked digits.
      classes: how many classes a channel has.

    Raises:
      ValueError: digits are no integers ``[N, S]``, or lie outside [0, classes).
    """
    digits = np.asarray(digits)
    if digits.ndim != 2 or 0 in digits.shape or digits.dtype.kind not in "iu":
        raise ValueError(f"digits are {digits.dtype} {digits.shape}; accepted: integers [N, S], such as [N, 3]")
    if digits.min() < 0 or digits.max() >= classes:
        raise ValueError(f"digits span {digits.min()} to {digits.max()}; accepted: 0 to {classes - 1}")
    return digits.astype(np.int64) @ classes ** np.arange(digits.shape[1] - 1, -1, -1)


def mode_coverage(modes: np.ndarray, count: int = 1000, target: np.ndarray | None = None) -> ModeCoverage:
    """How many of the modes the samples reach, and how far their frequencies are from the target's.

    ``KL(p || q) = sum_k p_k log(p_k / q_k)`` with p the samples' frequencies (Metz et al. 2017). N samples of K equal
    modes themselves miss about ``K (1 - 1/K)^N`` modes and have a KL of about ``(K - 1) / (2 N)``, so both are to be
    compared at the same N; Lin et al. 2018 take 26,000 samples for 1000 modes.

    Args:
      modes: int ``[N]`` in [0, count): ``mode_numbers``, or any classifier's answers.
      count: K, how many modes there are.
      target: q, float ``[K]``, probabilities that sum to 1; uniform unless given.

    Returns:
      The KL is in [0, log K] for a uniform target, 0 the best; infinite with samples where the target has none.

    Raises:
      ValueError: modes are no integers ``[N]`` in range, or the target is no distribution over ``count`` modes.
    """
    modes = np.asarray(modes)
    if modes.ndim != 1 or not len(modes) or modes.dtype.kind not in "iu":
        raise ValueError(f"modes are {modes.dtype} {modes.shape}; accepted: integers [N], at least one")
    if modes.min() < 0 or modes.max() >= count:
        raise ValueError(f"modes span {modes.min()} to {modes.max()}; accepted: 0 to {count - 1}")
    target = np.full(count, 1.0 / count) if target is None else np.asarray(target, np.float64)
    if target.shape != (count,) or not (target >= 0).all() or abs(target.sum() - 1.0) > 1e-6:
        raise ValueError(f"the target has shape {target.shape}; accepted: [{count}] probabilities that sum to 1")
    frequency = np.bincount(modes, minlength=count) / len(modes)
    there = frequency > 0
    with np.errstate(divide="ignore"):
        kl = (frequency[there] * (np.log(frequency[there]) - np.log(target[there]))).sum()
    return ModeCoverage(int(there.sum()), count, float(max(kl, 0.0)))  # rounding can leave it below


def classification_accuracy_score(logits: np.ndarray, labels: np.ndarray, top: int = 1) -> AccuracyScore:
    """Accuracy on real images of a classifier that was trained on samples alone (Ravuri & Vinyals 2019).

    The difference to a classifier of the same kind trained on real images is what the samples lack; the classes that
    lose most are those that the generator does not cover.

    Args:
      logits: float ``[N, K]`` of that classifier on held-out real images.
      labels: int ``[N]`` in [0, K), their classes.
      top: an answer is right where the class is among the ``top`` largest; 1 and 5 in the paper. A class whose logit
        ties with others is behind all of them.

    Raises:
      ValueError: shapes don't match, labels out of range, a logit that is NaN, or ``top`` outside [1, K].
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.ndim != 2 or 0 in logits.shape or labels.shape != logits.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"logits are {logits.shape} with labels {labels.dtype} {labels.shape}; accepted: [N, K] and int [N]"
        )
    classes = logits.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels span {labels.min()} to {labels.max()}; accepted: 0 to {classes - 1}")
    if not 1 <= top <= classes:
        raise ValueError(f"top is {top}; accepted: 1 to {classes}")
    if np.isnan(logits).any():
        raise ValueError("logits hold NaN; accepted: numbers")
    own = logits[np.arange(len(labels)), labels]
    right = (logits >= own[:, None]).sum(axis=1) <= top
    low, high = wilson_interval(float(right.sum()), len(labels))
    with np.errstate(invalid="ignore"):
        per_class = np.bincount(labels, right, classes) / np.bincount(labels, minlength=classes)
    return AccuracyScore(float(right.mean()), low, high, per_class)
