"""Figures that others published for what a config trains, declared by the config itself.

A config file says them beside ``get_config``, in a function of the run's whole config, so that they can depend on what
was overridden::

    from configs.references import Reference

    def references(config):
        published = {1: -86.76, 5: -85.54, 50: -84.78}
        if config.model.num_draws not in published or config.evaluators.bound.num_samples != 5000:
            return ()
        value = published[config.model.num_draws]
        return (Reference("bound/importance_bound_5000", value, "Burda et al. 2016, table 1", tolerance=0.3),)

``python -m experiments.report`` puts them next to the means of the runs, and marks what misses them. A config without
the function has none. Only state a figure whose source you have read: where, which table, under which conditions.
A metric that the run has not is an error, so return none where an override measures something else.
"""

from __future__ import annotations

import dataclasses
import math

from genjax.types import UserError


@dataclasses.dataclass(frozen=True)
class Reference:
    """A published figure for one number of a run.

    Attributes:
      metric: EVALUATOR/NUMBER of evaluation.json, such as eval/accuracy, in its unit there.
      value: the figure.
      source: who published it and where, such as "Burda et al. 2016, table 1".
      tolerance: how much worse a mean may be and still reach it; 0 and up. Of a number that has no better side it is
        how far the mean may be on either.

    Raises:
      UserError: the source is missing, the metric is of another form, or a number is out of range.
    """

    metric: str
    value: float
    source: str
    tolerance: float = 0.0

    def __post_init__(self):
        where = f"reference for {self.metric!r}"
        evaluator, _, number = str(self.metric).partition("/")
        if not evaluator or not number:
            raise UserError(f"{where}: accepted: EVALUATOR/NUMBER of evaluation.json, such as eval/accuracy")
        if not isinstance(self.source, str) or not self.source.strip():
            raise UserError(f"{where}: no source; accepted: who published it and where")
        for name in ("value", "tolerance"):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
                raise UserError(f"{where}: {name}={given!r}; accepted: a finite number")
        if self.tolerance < 0:
            raise UserError(f"{where}: tolerance={self.tolerance}; accepted: 0 and up")
