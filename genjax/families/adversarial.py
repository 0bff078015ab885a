"""The training step of two players: several discriminator updates, then one of the generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from genjax import rng, tree
from genjax.families.base import Optimizer, TrainState, scan_slices, update_ema
from genjax.types import Array, Batch, Key, Metrics, Params

GENERATOR, DISCRIMINATOR = "generator", "discriminator"


class Player(Protocol):
    """The loss of one player, given the variables of both."""

    def __call__(
        self, generator: Params, discriminator: Params, batch: Batch, key: Key
    ) -> tuple[Array, dict[str, Array], Params]:
        """Loss ``[B]``, metrics, and the new collections of this player."""
        ...


def _update(state: TrainState, name: str, loss_fn: Callable, optimizer: Optimizer) -> tuple[TrainState, Metrics]:
    """One optimizer update of one player: ``loss_fn(variables) -> (loss [B], metrics, collections)``."""

    def scalar_loss(params):
        loss, metrics, collections = loss_fn({"params": params, **state.collections[name]})
        return jnp.mean(loss), ({k: jnp.mean(v) for k, v in metrics.items()}, collections)

    (loss, (metrics, collections)), grads = jax.value_and_grad(scalar_loss, has_aux=True)(state.params[name])
    params, opt = optimizer.update(
        grads, state.opt[name], state.params[name], state.hparams[f"learning_rate/{name}"], state.step
    )
    state = state.replace(
        params={**state.params, name: params},
        collections={**state.collections, name: collections},
        opt={**state.opt, name: opt},
    )
    return state, {f"{name}_loss": loss, f"{name}_grad_norm": tree.norm(grads), **metrics}


def discriminator_update(
    state: TrainState, batch: Batch, key: Key, loss: Player, optimizer: Optimizer
) -> tuple[TrainState, Metrics]:
    """One update of the discriminator on a slice ``[B, ...]``; the generator is left alone."""
    generator = state.variables(GENERATOR)
    return _update(state, DISCRIMINATOR, lambda own: loss(generator, own, batch, key), optimizer)


def generator_update(
    state: TrainState, batch: Batch, key: Key, loss: Player, optimizer: Optimizer
) -> tuple[TrainState, Metrics]:
    """One update of the generator; the discriminator is left alone."""
    discriminator = state.variables(DISCRIMINATOR)
    return _update(state, GENERATOR, lambda own: loss(own, discriminator, batch, key), optimizer)


def adversarial_train_step(
    generator_loss: Player,
    discriminator_loss: Player,
    optimizers: dict[str, Optimizer],
    discriminator_updates: int,
    ema_decay: float,
) -> Callable[[TrainState, Batch, Key], tuple[TrainState, Metrics]]:
    """A step that scans the discriminator over its slices ``[M, B, ...]`` and then updates the generator once."""

    def train_step(state: TrainState, batch: Batch, key: Key) -> tuple[TrainState, Metrics]:
        def body(state, inputs):
            piece, piece_key = inputs
            return discriminator_update(state, piece, piece_key, discriminator_loss, optimizers[DISCRIMINATOR])

        keys = jax.random.split(rng.stream(key, DISCRIMINATOR), discriminator_updates)
        state, d_metrics = scan_slices(body, state, (batch, keys), discriminator_updates)
        last = jax.tree.map(lambda x: x[-1], batch)
        state, g_metrics = generator_update(
            state, last, rng.stream(key, GENERATOR), generator_loss, optimizers[GENERATOR]
        )
        state = update_ema(state, ema_decay)
        metrics = {k: jnp.mean(v) for k, v in d_metrics.items()} | g_metrics
        return state.replace(step=state.step + 1), metrics

    return train_step
