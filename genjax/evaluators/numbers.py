"""Evaluators that give numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from genjax.evaluators.base import Context, Report, check_at_least
from genjax.evaluators.figures import confusion_figure
from genjax.metrics import classification
from genjax.metrics.reduce import MaskedMean


def _protocol(context: Context, count: int) -> dict:
    return {"data": context.source.provenance, "examples": count, "seed": context.seed}


def _mean(context: Context, function: Callable, limit: int) -> tuple[dict[str, float], dict[str, float], int]:
    mean = MaskedMean()
    for batch in context.batches(limit):
        mask = batch.pop("mask")
        mean.add({name: np.asarray(value) for name, value in function(context.place(batch)).items()}, mask)
    return mean.means(), mean.standard_errors(), mean.count


def logits_and_labels(context: Context, evaluator: str) -> tuple[np.ndarray, np.ndarray]:
    """Float32 ``[N, K]`` of a classifier on the split, and its labels int32 ``[N]``; the error names ``evaluator``."""
    logits_of = context.extra("logits", evaluator)
    logits, labels = [], []
    for batch in context.batches():
        real = batch.pop("mask") > 0
        logits.append(np.asarray(logits_of(context.state, context.place(batch)))[real])
        labels.append(batch["label"][real])
    return np.concatenate(logits), np.concatenate(labels)


@dataclasses.dataclass(frozen=True)
class Mean:
    """Means of what the family's ``eval_step`` gives, over the split.

    Attributes:
      limit: examples to look at, 0 for all.
    """

    limit: int = 0

    def __post_init__(self):
        check_at_least(0, limit=self.limit)

    def __call__(self, context: Context) -> Report:
        key = context.key("eval_step")
        means, errors, count = _mean(
            context, lambda batch: context.functions.eval_step(context.state, batch, key), self.limit
        )
        return Report(means, protocol={**_protocol(context, count), "standard_error": errors})


@dataclasses.dataclass(frozen=True)
class Classification:
    """Accuracy, negative log-likelihood, calibration error, confusion matrix and table by class of a classifier.

    Attributes:
      bins: of the calibration error.
    """

    bins: int = 15

    def __post_init__(self):
        check_at_least(1, bins=self.bins)

    def __call__(self, context: Context) -> Report:
        logits, labels = logits_and_labels(context, "classification")
        classes = context.spec.classes
        matrix = classification.confusion_matrix(logits.argmax(-1), labels, classes)
        names = context.spec.class_names or tuple(str(i) for i in range(classes))
        accuracy = classification.accuracy(logits, labels)
        interval = classification.wilson_interval(accuracy * len(labels), len(labels))
        return Report(
            {
                "accuracy": accuracy,
                "nll": classification.negative_log_likelihood(logits, labels),
                "calibration_error": classification.expected_calibration_error(logits, labels, self.bins),
            },
            {"confusion": confusion_figure(matrix, names)},
            {
                **_protocol(context, len(labels)),
                "calibration_bins": self.bins,
                "accuracy_interval_95": interval,
                "confusion": matrix.tolist(),
                "by_class": dict(zip(names, classification.by_class(matrix), strict=True)),
            },
        )


@dataclasses.dataclass(frozen=True)
class ImportanceBound:
    """Importance-weighted bound on log p(x) (Burda et al. 2016); tighter with more draws.

    Attributes:
      num_samples: draws for each example.
      limit: examples to look at, 0 for all.
    """

    num_samples: int = 500
    limit: int = 0

    def __post_init__(self):
        check_at_least(1, num_samples=self.num_samples)
        check_at_least(0, limit=self.limit)

    def __call__(self, context: Context) -> Report:
        bound = context.extra("importance_bound", "importance_bound")
        key, name = context.key("importance_bound"), f"importance_bound_{self.num_samples}"
        means, errors, count = _mean(
            context, lambda batch: {name: bound(context.state, batch, key, num=self.num_samples)}, self.limit
        )
        return Report(
            means, protocol={**_protocol(context, count), "draws": self.num_samples, "standard_error": errors}
        )


@dataclasses.dataclass(frozen=True)
class BitsPerDim:
    """Bound on the bits per image value by the probability-flow ODE (Song et al. 2021, section 4.3).

    Attributes:
      num_steps: of the solver, two evaluations of the network and its derivative each.
      limit: examples to look at, 0 for all.
    """

    num_steps: int = 50
    limit: int = 1000

    def __post_init__(self):
        check_at_least(1, num_steps=self.num_steps)
        check_at_least(0, limit=self.limit)

    def __call__(self, context: Context) -> Report:
        bits = context.extra("bits_per_dim", "bits_per_dim")
        key = context.key("bits_per_dim")
        means, errors, count = _mean(
            context, lambda batch: {"bits_per_dim": bits(context.state, batch, key, num=self.num_steps)}, self.limit
        )
        return Report(means, protocol={**_protocol(context, count), "steps": self.num_steps, "standard_error": errors})
