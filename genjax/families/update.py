"""One optimizer update of one network, whose gradient may be gathered from slices: what both step templates share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from genjax import tree
from genjax.families.base import Optimizer, TrainState, scan_slices
from genjax.types import Array, Metrics, Params

SliceLoss = Callable[..., tuple[Array, dict[str, Array], Params]]
"""``(variables, *slice) -> (loss [B], metrics {name: [B] or scalar}, new collections)``, in training mode."""


def mean_gradient(
    loss_fn: SliceLoss, params: Params, collections: Params, slices: Any, count: int
) -> tuple[Params, Params, Metrics]:
    """The gradient of the mean loss over all slices, which are equal in size, holding one of them in memory at a time.

    Args:
      loss_fn: of one slice. It is given the collections that the slice before left.
      params: what the gradient is taken in.
      collections: the network's other variables, before the first slice.
      slices: trees of arrays ``[count, ...]``, the arguments of ``loss_fn`` behind the variables.
      count: of slices; a single one makes no loop.

    Returns:
      The gradient, the collections after the last slice, and the means of the metrics, "loss" among them.
    """

    def scalar_loss(params, collections, *piece):
        loss, metrics, collections = loss_fn({"params": params, **collections}, *piece)
        loss = jnp.mean(loss)
        return loss, ({"loss": loss, **{k: jnp.mean(v) for k, v in metrics.items()}}, collections)

    def body(carry, piece):
        total, collections = carry
        grads, (metrics, collections) = jax.grad(scalar_loss, has_aux=True)(params, collections, *piece)
        return (jax.tree.map(jnp.add, total, grads), collections), metrics

    zeros = jax.tree.map(jnp.zeros_like, params)
    (total, collections), metrics = scan_slices(body, (zeros, collections), slices, count)
    return jax.tree.map(lambda g: g / count, total), collections, {k: jnp.mean(v) for k, v in metrics.items()}


def update_network(
    state: TrainState, name: str, loss_fn: SliceLoss, optimizer: Optimizer, slices: Any, count: int
) -> tuple[TrainState, Metrics]:
    """The state after one update of network ``name``, and metrics, "loss" and "grad_norm" among them.

    The other networks and the count of steps are left alone; arguments are those of ``mean_gradient``.
    """
    grads, collections, metrics = mean_gradient(loss_fn, state.params[name], state.collections[name], slices, count)
    params, opt = optimizer.update(
        grads, state.opt[name], state.params[name], state.hparams[f"learning_rate/{name}"], state.step
    )
    state = state.replace(
        params={**state.params, name: params},
        collections={**state.collections, name: collections},
        opt={**state.opt, name: opt},
    )
    return state, metrics | {"grad_norm": tree.norm(grads)}
