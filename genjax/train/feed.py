"""How training images reach the device: all of them at once, or call by call ahead of the computation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np

from genjax.data.base import ArraySource, Source
from genjax.families.base import TrainState
from genjax.train.sharding import over_data, replicated
from genjax.train.steps import Trainer
from genjax.types import Metrics

Calls = Iterator[tuple[int, int]]


class ResidentFeed:
    """The split lies on the device and is gathered inside the compiled call."""

    def __init__(self, trainer: Trainer, source: ArraySource):
        everything = source.gather(np.arange(len(source)))
        self._data = jax.device_put(everything, replicated(trainer.mesh))
        self._trainer = trainer

    def run(self, state: TrainState, count: int) -> tuple[TrainState, Metrics]:
        return self._trainer.run_resident(state, self._data, count)

    def close(self) -> None:
        self._data = {}


class StreamedFeed:
    """Batches are gathered on the host by one thread, ``prefetch`` calls ahead, in the order of the resident feed.

    Args:
      calls: (first step, number of steps) of each call to come.
      seed: of the run, which fixes the order; one for each member where the trainer is compiled for members.
    """

    def __init__(self, trainer: Trainer, source: Source, calls: Calls, seed: int | tuple[int, ...], prefetch: int):
        self._trainer, self._source, self._calls, self._seed = trainer, source, calls, seed
        self._pool = ThreadPoolExecutor(1, "genjax-feed")
        self._ready: deque[Future] = deque()
        for _ in range(max(prefetch, 1)):
            self._submit()

    def run(self, state: TrainState, count: int) -> tuple[TrainState, Metrics]:
        """The next call; an error met while reading (a corrupt image) is raised here."""
        batches = self._ready.popleft().result()
        self._submit()
        assert batches["image"].shape[1 if self._trainer.members else 0] == count
        return self._trainer.run_streamed(state, batches)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self) -> None:
        call = next(self._calls, None)
        if call is not None:
            self._ready.append(self._pool.submit(self._gather, *call))

    def _gather(self, first: int, count: int):
        seeds = self._seed if isinstance(self._seed, tuple) else (self._seed,)
        chosen = [self._trainer.indices(seed, first + i, np) for seed in seeds for i in range(count)]
        flat = self._source.gather(np.concatenate(chosen).astype(np.int64))
        leading = (len(seeds), count) if self._trainer.members else (count,)
        batches = {name: array.reshape(*leading, -1, *array.shape[1:]) for name, array in flat.items()}
        return jax.device_put(batches, over_data(self._trainer.mesh, axis=len(leading)))


Feed = ResidentFeed | StreamedFeed


def make_feeds(
    trainer: Trainer,
    source: Source,
    calls: Callable[[], Calls],
    prefetch: int,
    seeds: Sequence[int] | Sequence[tuple[int, ...]],
) -> Sequence[Feed]:
    """A feed for each of the seeds: one resident feed for all when the split is in memory, streamed ones otherwise.

    Args:
      trainer: whose programs the feeds call.
      source: the training split.
      calls: makes the (first step, number of steps) of each call to come.
      prefetch: calls read ahead when the data is streamed.
      seeds: of the runs; where the trainer is compiled for members, a tuple of all theirs.
    """
    if isinstance(source, ArraySource):
        return [ResidentFeed(trainer, source)] * len(seeds)
    return [StreamedFeed(trainer, source, calls(), seed, prefetch) for seed in seeds]
