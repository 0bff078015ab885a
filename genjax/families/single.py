"""The training step of a family with one network, one objective and one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import jax
import jax.numpy as jnp

from genjax import tree
from genjax.families.base import Optimizer, TrainState, scan_slices, update_ema
from genjax.types import Array, Batch, Key, Metrics, Params


class Objective(Protocol):
    """What a single-network family writes itself."""

    def __call__(
        self, variables: Params, batch: Batch, key: Key, hparams: Mapping[str, Array], step: Array
    ) -> tuple[Array, dict[str, Array], Params]:
        """Loss ``[B]``, metrics ``{name: [B] or scalar}`` and the new collections, in training mode."""
        ...


def single_train_step(
    name: str, objective: Objective, optimizer: Optimizer, microbatches: int, ema_decay: float
) -> Callable[[TrainState, Batch, Key], tuple[TrainState, Metrics]]:
    """A train step for network ``name``: gradient of the mean over all slices, one update, averaging.

    The slices are equal in size, so that the mean of their gradients is the gradient of the whole batch.
    """

    def train_step(state: TrainState, batch: Batch, key: Key) -> tuple[TrainState, Metrics]:
        def loss_fn(params, collections, piece, piece_key):
            loss, metrics, collections = objective(
                {"params": params, **collections}, piece, piece_key, state.hparams, state.step
            )
            loss = jnp.mean(loss)
            return loss, ({"loss": loss, **{k: jnp.mean(v) for k, v in metrics.items()}}, collections)

        def body(carry, inputs):
            grads, collections = carry
            new, (metrics, collections) = jax.grad(loss_fn, has_aux=True)(state.params[name], collections, *inputs)
            return (jax.tree.map(jnp.add, grads, new), collections), metrics

        zeros = jax.tree.map(jnp.zeros_like, state.params[name])
        (grads, collections), metrics = scan_slices(
            body, (zeros, state.collections[name]), (batch, jax.random.split(key, microbatches)), microbatches
        )
        grads = jax.tree.map(lambda g: g / microbatches, grads)
        params, opt = optimizer.update(
            grads, state.opt[name], state.params[name], state.hparams[f"learning_rate/{name}"], state.step
        )
        state = state.replace(params={name: params}, collections={name: collections}, opt={name: opt})
        state = update_ema(state, ema_decay)
        metrics = {k: jnp.mean(v) for k, v in metrics.items()} | {"grad_norm": tree.norm(grads)}
        return state.replace(step=state.step + 1), metrics

    return train_step
