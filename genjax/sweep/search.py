"""A search: runs that are chosen one by one from the results of those before."""

from __future__ import annotations

import dataclasses

from genjax.sweep.ranges import Space, checked
from genjax.types import UserError


@dataclasses.dataclass(frozen=True)
class Search:
    """What a config's ``sweep()`` returns for an adaptive search.

    Args:
      space: what varies.
      metric: a scalar of the log, such as ``"eval/elbo"``.
      mode: "max" or "min".
      trials: runs in all.
      sampler: how the next run is chosen.
      pruner: when a run is stopped early.
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
    seed: int = 0

    def __post_init__(self):
        checked(self.space)
        if self.mode not in ("max", "min"):
            raise UserError(f"Search: mode={self.mode!r} is unknown; accepted: max, min")
        if self.trials < 1:
            raise UserError(f"Search: trials={self.trials}: accepted: 1 or more")
