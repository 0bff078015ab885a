"""The training step of a family with one network, one objective and one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import jax

from genjax.families.averaging import Averages, update_ema
from genjax.families.base import Optimizer, TrainState
from genjax.families.update import update_network
from genjax.types import Array, Batch, Key, Metrics, Params


class Objective(Protocol):
    """What a single-network family writes itself."""

    def __call__(
        self, variables: Params, batch: Batch, key: Key, hparams: Mapping[str, Array], step: Array
    ) -> tuple[Array, dict[str, Array], Params]:
        """Loss ``[B]``, metrics ``{name: [B] or scalar}`` and the new collections, in training mode."""
        ...


def single_train_step(
    name: str, objective: Objective, optimizer: Optimizer, microbatches: int, averages: Averages
) -> Callable[[TrainState, Batch, Key], tuple[TrainState, Metrics]]:
    """A train step for network ``name``: gradient of the mean over all slices, one update, averaging."""

    def train_step(state: TrainState, batch: Batch, key: Key) -> tuple[TrainState, Metrics]:
        def loss_fn(variables, piece, piece_key):
            return objective(variables, piece, piece_key, state.hparams, state.step)

        slices = (batch, jax.random.split(key, microbatches))
        after, metrics = update_network(state, name, loss_fn, optimizer, slices, microbatches)
        after = update_ema(after, averages)
        return after.replace(step=after.step + 1), metrics

    return train_step
