"""The training step of two players: several discriminator updates, then one of the generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from genjax import rng
from genjax.families.averaging import Averages, update_ema
from genjax.families.base import Optimizer, TrainState, scan_slices
from genjax.families.update import update_network
from genjax.types import Array, Batch, Key, Metrics, Params

GENERATOR, DISCRIMINATOR = "generator", "discriminator"


class Player(Protocol):
    """The loss of one player, given the variables of both."""

    def __call__(
        self, generator: Params, discriminator: Params, batch: Batch, key: Key
    ) -> tuple[Array, dict[str, Array], Params]:
        """Loss ``[B]``, metrics, and the new collections of this player."""
        ...


def discriminator_update(
    state: TrainState, batch: Batch, key: Key, loss: Player, optimizer: Optimizer, accumulation: int
) -> tuple[TrainState, Metrics]:
    """One update of the discriminator on slices ``[accumulation, B, ...]``; the generator is left alone."""
    generator = state.variables(GENERATOR)
    loss_fn = lambda own, piece, piece_key: loss(generator, own, piece, piece_key)  # noqa: E731
    return _update(state, DISCRIMINATOR, loss_fn, optimizer, batch, key, accumulation)


def generator_update(
    state: TrainState, batch: Batch, key: Key, loss: Player, optimizer: Optimizer, accumulation: int
) -> tuple[TrainState, Metrics]:
    """One update of the generator on slices ``[accumulation, B, ...]``; the discriminator is left alone."""
    discriminator = state.variables(DISCRIMINATOR)
    loss_fn = lambda own, piece, piece_key: loss(own, discriminator, piece, piece_key)  # noqa: E731
    return _update(state, GENERATOR, loss_fn, optimizer, batch, key, accumulation)


def _update(
    state: TrainState, name: str, loss_fn: Callable, optimizer: Optimizer, batch: Batch, key: Key, accumulation: int
) -> tuple[TrainState, Metrics]:
    """``update_network`` with noise for each slice; the metrics that both players have are given the player's name."""
    keys = jax.random.split(key, accumulation) if accumulation > 1 else key[None]
    state, metrics = update_network(state, name, loss_fn, optimizer, (batch, keys), accumulation)
    return state, {f"{name}_{k}" if k in ("loss", "grad_norm") else k: value for k, value in metrics.items()}


def adversarial_train_step(
    generator_loss: Player,
    discriminator_loss: Player,
    optimizers: dict[str, Optimizer],
    discriminator_updates: int,
    accumulation: int,
    averages: Averages,
) -> Callable[[TrainState, Batch, Key], tuple[TrainState, Metrics]]:
    """A step that scans the discriminator over its updates and then updates the generator once.

    Each update takes ``accumulation`` of the slices ``[M, B, ...]``; those of the last one serve the generator, too.
    Metrics of several updates are their mean, and of gradient norms the largest, which a limit is for.
    """

    def train_step(state: TrainState, batch: Batch, key: Key) -> tuple[TrainState, Metrics]:
        def body(state, inputs):
            pieces, update_key = inputs
            return discriminator_update(
                state, pieces, update_key, discriminator_loss, optimizers[DISCRIMINATOR], accumulation
            )

        shape = (discriminator_updates, accumulation)
        batches = {name: array.reshape(*shape, *array.shape[1:]) for name, array in batch.items()}
        keys = jax.random.split(rng.stream(key, DISCRIMINATOR), discriminator_updates)
        state, d_metrics = scan_slices(body, state, (batches, keys), discriminator_updates)
        last = {name: array[-1] for name, array in batches.items()}
        state, g_metrics = generator_update(
            state, last, rng.stream(key, GENERATOR), generator_loss, optimizers[GENERATOR], accumulation
        )
        state = update_ema(state, averages)
        metrics = {k: (jnp.max if k.endswith("grad_norm") else jnp.mean)(v) for k, v in d_metrics.items()} | g_metrics
        return state.replace(step=state.step + 1), metrics

    return train_step
