"""What a run consists of, once a config has been built and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from genjax.data.base import Source
from genjax.evaluators.base import Evaluator
from genjax.families.base import Family
from genjax.train.divergence import Divergence
from genjax.types import Array, Key


@dataclasses.dataclass(frozen=True)
class Scheduled:
    """An evaluator with its name in the config and its cadence in steps, None for the end of the run only."""

    name: str
    evaluator: Evaluator
    every: int | None


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything a config names, built and checked.

    Attributes:
      config: plain nested dict, as stored in the work folder.
      family: the model.
      train, test: the two splits.
      augment: ``(key, images uint8) -> images uint8`` for the training split.
      evaluators: in the order of the config.
      total_steps, log_every, checkpoint_every: in steps.
      keep_every: in steps; checkpoints at its multiples are kept for good. None for none.
      divergence: what to do where training can't go on.
    """

    config: dict[str, Any]
    family: Family
    train: Source
    test: Source
    augment: Callable[[Key, Array], Array]
    evaluators: tuple[Scheduled, ...]
    total_steps: int
    log_every: int
    checkpoint_every: int
    keep_every: int | None = None
    divergence: Divergence = Divergence()  # noqa: RUF009 (frozen)

    def cadences(self) -> tuple[int, ...]:
        """Every number of steps after which something is due besides training."""
        evaluators = [scheduled.every for scheduled in self.evaluators if scheduled.every is not None]
        kept = [self.keep_every] if self.keep_every else []
        return (self.log_every, self.checkpoint_every, *kept, *evaluators)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due at this step."""
        return step % self.checkpoint_every == 0 or (self.keep_every is not None and step % self.keep_every == 0)


def calls(start: int, total: int, steps_per_call: int, cadences: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(first step, number of steps) of each compiled call: as many as allowed without passing a step with duties."""
    step = start
    while step < total:
        due = min(every - step % every for every in cadences)
        count = min(steps_per_call, total - step, due)
        yield step, count
        step += count
