"""A search: runs that are chosen one by one from the results of those before; ``study`` carries it out."""

from __future__ import annotations

import dataclasses

from genjax.sweep.ranges import Space, checked
from genjax.types import UserError

_ACCEPTED = {"mode": ("max", "min"), "sampler": ("tpe", "random"), "pruner": ("asha", "none")}
_LEAST = {"trials": 1, "first_rung": 1, "reduction": 2, "startup": 1, "seed": 0}


@dataclasses.dataclass(frozen=True)
class Search:
    """What a config's ``sweep()`` returns for an adaptive search.

    Args:
      space: what varies.
      metric: a scalar of the log, such as ``"eval/elbo"``; for "asha" one that is logged during the training.
      mode: "max" or "min".
      trials: runs in all; asking for more of them later goes on with the same search.
      sampler: how the next run is chosen: "tpe", by a tree-structured Parzen estimator (Bergstra et al. 2011), which is
        a Bayesian search, or "random".
      pruner: whether a run is stopped early: "asha", by asynchronous successive halving (Li et al. 2020), or "none".
      first_rung: evaluations after which a run is first compared with the others; further rungs are ``reduction`` times
        as far each.
      reduction: of the runs that have come to a rung, the best one in so many goes on.
      startup: random runs before "tpe" begins.
      seed: of the search's own choices.

    Raises:
      UserError: the space is none, or a setting is not understood.
    """

    space: Space
    metric: str
    mode: str = "max"
    trials: int = 50
    sampler: str = "tpe"
    pruner: str = "none"
    first_rung: int = 1
    reduction: int = 3
    startup: int = 10
    seed: int = 0

    def __post_init__(self):
        checked(self.space)
        for name, accepted in _ACCEPTED.items():
            if (value := getattr(self, name)) not in accepted:
                raise UserError(f"Search: {name}={value!r} is unknown; accepted: {', '.join(accepted)}")
        for name, least in _LEAST.items():
            if not isinstance(value := getattr(self, name), int) or value < least:
                raise UserError(f"Search: {name}={value!r}: accepted: {least} or more")
        if not self.metric:
            raise UserError("Search: metric='': accepted: a scalar of the log, such as eval/elbo")
