"""How training images reach the device: all of them at once, or call by call ahead of the computation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np

from genjax.data.base import ArraySource, Source
from genjax.families.base import TrainState
from genjax.train.sharding import over_data, put, replicated
from genjax.train.steps import Trainer
from genjax.types import Metrics

Calls = Iterator[tuple[int, int]]


class ResidentFeed:
    """The split lies on the device and is gathered inside the compiled call."""

    def __init__(self, trainer: Trainer, source: ArraySource):
        self._data = put(source.gather(np.arange(len(source))), replicated(trainer.mesh))
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
        """Batches ``[count, M * B, ...]``, of which this process reads what its own devices are to have."""
        seeds = self._seed if isinstance(self._seed, tuple) else (self._seed,)
        chosen = np.stack([self._trainer.indices(seed, first + i, np) for seed in seeds for i in range(count)])
        chosen = chosen.reshape(*((len(seeds),) if self._trainer.members else ()), count, -1).astype(np.int64)
        sharding = over_data(self._trainer.mesh, axis=chosen.ndim - 1)
        parts: dict[tuple[int, int], dict[str, np.ndarray]] = {}
        pieces: dict[str, list[jax.Array]] = {}
        for device, index in sharding.addressable_devices_indices_map(chosen.shape).items():
            bounds = (index or (slice(None),))[-1].indices(chosen.shape[-1])[:2]
            if bounds not in parts:
                wanted = chosen[..., slice(*bounds)]
                flat = self._source.gather(wanted.reshape(-1))
                parts[bounds] = {name: x.reshape(*wanted.shape, *x.shape[1:]) for name, x in flat.items()}
            for name, part in parts[bounds].items():
                pieces.setdefault(name, []).append(jax.device_put(part, device))
        shape = lambda piece: (*chosen.shape, *piece.shape[chosen.ndim :])  # noqa: E731
        return {
            name: jax.make_array_from_single_device_arrays(shape(found[0]), sharding, found)
            for name, found in pieces.items()
        }


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
