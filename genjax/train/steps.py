"""The one place where a family's pure functions are compiled."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from genjax import rng
from genjax.data.order import batch_indices
from genjax.families.base import Family, TrainState
from genjax.train.sharding import over_data, replicated
from genjax.types import Array, Batch, Metrics, UserError

Augment = Callable[[Array, Array], Array]


@dataclasses.dataclass(frozen=True)
class Functions:
    """A family's evaluation functions, compiled; ``num`` is static where one takes it."""

    eval_step: Callable[..., dict[str, Array]]
    sample: Callable[..., Array] | None
    extras: Mapping[str, Callable[..., Any]]


def compile_functions(family: Family) -> Functions:
    """Compiles, lazily, what evaluators may call."""
    return Functions(
        eval_step=jax.jit(family.eval_step),
        sample=jax.jit(family.sample) if family.sample else None,
        extras={name: _compile_extra(function) for name, function in family.extras.items()},
    )


def _compile_extra(function: Callable) -> Callable:
    counted = "num" in inspect.signature(function).parameters
    return jax.jit(function, static_argnames=("num",) if counted else ())


class Trainer:
    """Compiled initialisation and training of one family on one mesh.

    Args:
      family: its functions.
      mesh: with the axis "data", which divides every slice.
      train_size: examples in the training split.
      augment: ``(key, images uint8 [N,H,W,C]) -> images``.

    Raises:
      UserError: the slices can't be divided over the devices.
    """

    def __init__(self, family: Family, mesh: Mesh, train_size: int, augment: Augment):
        if family.slice_size % mesh.size:
            raise UserError(
                f"a batch of {family.slice_size} can't be split over {mesh.size} devices; use a multiple of {mesh.size}"
            )
        self.family, self.mesh, self.train_size, self.augment = family, mesh, train_size, augment
        self._init = jax.jit(self._initial_state, out_shardings=replicated(mesh))
        self._resident = functools.cache(
            lambda steps: self._compile(functools.partial(self._run_resident, steps=steps))
        )
        self._streamed = self._compile(self._run_streamed)

    def _compile(self, function: Callable) -> Callable:
        state = replicated(self.mesh)
        return jax.jit(function, donate_argnums=0, out_shardings=(state, state))

    def _initial_state(self, seed: Array, batch: Batch) -> TrainState:
        state = self.family.init(rng.stream(rng.root(seed), "init"), batch)
        return state.replace(hparams={**state.hparams, "seed": seed})

    def init(self, seed: int, batch: Batch) -> TrainState:
        """The state before the first step; ``batch`` gives shapes only."""
        return self._init(jnp.asarray(seed, jnp.uint32), _device_part(batch))

    def abstract_state(self, batch: Batch) -> TrainState:
        """Shapes, dtypes and shardings of the state, without computing or compiling anything."""
        shapes = jax.eval_shape(self._initial_state, jnp.zeros((), jnp.uint32), _device_part(batch))
        place = replicated(self.mesh)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)

    def indices(self, seed: Any, step: Any, xp: Any) -> Any:
        """Which examples ``step`` sees, ``[M * B]``; the same under NumPy and traced."""
        return batch_indices(seed, step, self.family.examples_per_step, self.train_size, xp)

    def run_resident(self, state: TrainState, data: Batch, steps: int) -> tuple[TrainState, Metrics]:
        """``steps`` steps in one call, gathering from the whole split on the device; metrics are ``[steps]``."""
        return self._resident(steps)(state, data)

    def run_streamed(self, state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        """One step for each of the batches ``[S, M * B, ...]``; metrics are ``[S]``."""
        return self._streamed(state, batches)

    def _run_resident(self, state: TrainState, data: Batch, steps: int) -> tuple[TrainState, Metrics]:
        def body(state, _):
            chosen = self.indices(state.hparams["seed"], state.step, jnp)
            return self._step(state, {name: jnp.take(array, chosen, axis=0) for name, array in data.items()})

        return _scan(body, state, None, steps)

    def _run_streamed(self, state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        return _scan(self._step, state, dict(batches), jax.tree.leaves(batches)[0].shape[0])

    def _step(self, state: TrainState, batch: Mapping[str, Array]) -> tuple[TrainState, Metrics]:
        """One training step on ``[M * B, ...]``: augment, cut into slices, spread over the devices, update."""
        key = rng.step_key(rng.root(state.hparams["seed"]), state.step)
        batch = {**batch, "image": self.augment(rng.stream(key, "augment"), batch["image"])}
        shape = (self.family.microbatches, self.family.slice_size)
        batch = {name: array.reshape(*shape, *array.shape[1:]) for name, array in batch.items()}
        if self.mesh.size > 1:
            batch = jax.lax.with_sharding_constraint(batch, over_data(self.mesh, axis=1))
        return self.family.train_step(state, batch, rng.stream(key, "train"))


def _device_part(batch: Batch) -> Batch:
    return {name: batch[name] for name in ("image", "label") if name in batch}


def _scan(body: Callable, state: TrainState, inputs: Any, length: int) -> tuple[TrainState, Metrics]:
    """``lax.scan``; one step is not wrapped in a loop, in which XLA's CPU backend runs some operations slower."""
    if length == 1:
        state, metrics = body(state, jax.tree.map(lambda x: x[0], inputs))
        return state, jax.tree.map(lambda x: x[None], metrics)
    return jax.lax.scan(body, state, inputs, length)
