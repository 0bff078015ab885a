"""How the members of a population advance: one after the other, or as one program.

A single run is a population of one. Members differ in the numbers of ``state.hparams`` only, the seed among them, so
they share every compiled program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from genjax.families.base import TrainState
from genjax.train.feed import Feed

MemberMetrics = dict[str, np.ndarray]
MakeFeeds = Callable[[Sequence[int] | Sequence[tuple[int, ...]]], Sequence[Feed]]
"""``feed.make_feeds`` with all but the seeds given."""


class InTurns:
    """Members advance one after the other, through one compiled call.

    On a CPU nothing is lost by that: one member's step keeps all cores busy.

    Args:
      feeds: makes a feed for each seed, of a trainer compiled for a single member.
      states: of the members, which are taken over.
    """

    def __init__(self, feeds: MakeFeeds, states: Sequence[TrainState]):
        self._states = list(states)
        seeds = [int(state.hparams["seed"]) for state in states]
        self._feeds = feeds(seeds)

    def run(self, count: int, alive: Sequence[bool]) -> list[Callable[[], MemberMetrics]]:
        """``count`` steps of every living member; what it gives for each reads the metrics, ``[count]``, waiting."""
        read = []
        for i, state in enumerate(self._states):
            if not alive[i]:
                read.append(dict)
                continue
            self._states[i], metrics = self._feeds[i].run(state, count)
            read.append(lambda metrics=metrics: {name: np.asarray(value) for name, value in metrics.items()})
        return read

    def state(self, member: int) -> TrainState:
        """The state of one member, readable until the next ``run``."""
        return self._states[member]

    def close(self) -> None:
        for feed in self._feeds:
            feed.close()


class Together:
    """All members advance in one program: the same step, mapped over stacked states.

    That fills an accelerator which one small network leaves idle. A member that is not alive costs what it did before,
    so that a group of which half is over is better made anew.

    Args:
      feeds: makes one feed for all seeds, of a trainer compiled with ``members``.
      states: of the members, which are taken over.
    """

    def __init__(self, feeds: MakeFeeds, states: Sequence[TrainState]):
        seeds = tuple(int(state.hparams["seed"]) for state in states)
        self._stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        (self._feed,) = feeds([seeds])

    def run(self, count: int, alive: Sequence[bool]) -> list[Callable[[], MemberMetrics]]:
        """As ``InTurns.run``."""
        self._stacked, metrics = self._feed.run(self._stacked, count)
        return [lambda i=i: {name: np.asarray(value)[i] for name, value in metrics.items()} for i in range(len(alive))]

    def state(self, member: int) -> TrainState:
        """A copy of the state of one member."""
        return jax.tree.map(lambda leaf: leaf[member], self._stacked)

    def close(self) -> None:
        self._feed.close()
