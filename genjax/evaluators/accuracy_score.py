"""How a classifier does on real images, class by class; of one trained on samples it tells what they lack."""

from __future__ import annotations

import dataclasses

from genjax.evaluators.base import Context, Report, check_at_least
from genjax.evaluators.numbers import logits_and_labels
from genjax.metrics.modes import classification_accuracy_score
from genjax.types import UserError


@dataclasses.dataclass(frozen=True)
class AccuracyScore:
    """Accuracy on the test split: the classification accuracy score where the training images are a model's samples.

    Ravuri & Vinyals 2019. The protocol has its 95 % interval and the accuracy of each class.

    Attributes:
      top: an answer is right where the class is among so many largest logits; 1 and 5 in the paper.

    Raises:
      ValueError: ``top`` is below 1.
    """

    top: int = 1

    def __post_init__(self):
        check_at_least(1, top=self.top)

    def check(self, context: Context) -> None:
        """Raises UserError where the family is no classifier, or of fewer classes than ``top``."""
        context.extra("logits", "accuracy_score")
        if self.top > context.spec.classes:
            raise UserError(f"evaluator 'accuracy_score': top={self.top}; accepted: 1 to {context.spec.classes}")

    def __call__(self, context: Context) -> Report:
        self.check(context)
        logits, labels = logits_and_labels(context, "accuracy_score")
        score = classification_accuracy_score(logits, labels, self.top)
        names = context.spec.class_names or tuple(map(str, range(context.spec.classes)))
        record = {
            "data": context.source.provenance,
            "examples": len(labels),
            "top": self.top,
            "interval_95": (score.low, score.high),
            "per_class": dict(zip(names, score.per_class.tolist(), strict=True)),
        }
        name = "accuracy_score" if self.top == 1 else f"accuracy_score_top_{self.top}"
        return Report({name: score.accuracy}, protocol=record)
