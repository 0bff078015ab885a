"""The one place where a family's pure functions are compiled."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from genjax import rng
from genjax.data.order import batch_indices
from genjax.families.base import Family, TrainState
from genjax.train.compilation import compiler_options
from genjax.train.divergence import FLAG, flagged
from genjax.train.flops import step_flops
from genjax.train.sharding import batch_parts, check_divisible, gathered, over_data, put, replicated, state_shardings
from genjax.types import Array, Batch, Metrics, UserError

Augment = Callable[[Array, Array], Array]


@dataclasses.dataclass(frozen=True)
class Functions:
    """A family's evaluation functions, compiled; ``num`` is static where one takes it.

    Every device, and so every process, gets the whole of what they return.
    """

    eval_step: Callable[..., dict[str, Array]]
    sample: Callable[..., Array] | None
    extras: Mapping[str, Callable[..., Any]]


def compile_functions(family: Family, mesh: Mesh | None = None) -> Functions:
    """Compiles, lazily, what evaluators may call, for one device unless there is a mesh."""
    return Functions(
        eval_step=compiled(family.eval_step, mesh),
        sample=compiled(family.sample, mesh) if family.sample else None,
        extras={name: compiled(function, mesh) for name, function in family.extras.items()},
    )


def compiled(function: Callable, mesh: Mesh | None = None) -> Callable:
    """``function`` compiled for evaluation; ``num`` is static where it takes one."""
    options: dict[str, Any] = {"compiler_options": compiler_options()}
    if "num" in inspect.signature(function).parameters:
        options["static_argnames"] = ("num",)
    if mesh is not None and mesh.size > 1:
        options["out_shardings"] = replicated(mesh)
    return jax.jit(function, **options)


class Trainer:
    """Compiled initialisation and training of one family on one mesh.

    Args:
      family: its functions.
      mesh: of ``sharding.device_mesh``, which divides every slice and, by their names, arrays of the state.
      train_size: examples in the training split.
      augment: ``(key, images uint8 [N,H,W,C]) -> images``.
      members: whether the states, streamed batches and metrics of ``run_...`` have a leading axis of members, which
        one program trains together; ``init`` and ``abstract_state`` are of a single one nevertheless.
      max_grad_norm: above which a gradient counts as divergence; 0 for no limit.

    Raises:
      UserError: the slices can't be divided over the devices.
    """

    def __init__(
        self,
        family: Family,
        mesh: Mesh,
        train_size: int,
        augment: Augment,
        members: bool = False,
        max_grad_norm: float = 0.0,
    ):
        parts = batch_parts(mesh)
        if family.slice_size % parts:
            raise UserError(
                f"a batch of {family.slice_size} can't be split over {parts} devices; use a multiple of {parts}"
            )
        self.family, self.mesh, self.train_size, self.augment = family, mesh, train_size, augment
        self.members, self.max_grad_norm = members, max_grad_norm
        self.flops = 0.0  # of one step, once a program is compiled; see _count
        self._init: Callable | None = None
        self._programs: dict[tuple[str, int, tuple[int, ...]], Callable] = {}

    def _initial_state(self, seed: Array, batch: Batch) -> TrainState:
        state = self.family.init(rng.stream(rng.root(seed), "init"), batch)
        return state.replace(hparams={**state.hparams, "seed": seed})

    def init(self, seed: int, batch: Batch, hparams: Mapping[str, float] | None = None) -> TrainState:
        """The state before the first step.

        Args:
          seed: of the run.
          batch: gives shapes only.
          hparams: where the numbers in ``state.hparams`` start, the family's own unless given.
        """
        # Born where it stays: no device ever holds all of a divided state.
        places = jax.tree.map(lambda x: x.sharding, self.abstract_state(batch))
        if self._init is None:
            self._init = jax.jit(self._initial_state, out_shardings=places)
        state = self._init(np.uint32(seed), _device_part(batch))
        if hparams is None:
            return state
        given = {name: np.asarray(value, np.float32) for name, value in hparams.items()}
        return state.replace(hparams={**put(given, replicated(self.mesh)), "seed": state.hparams["seed"]})

    def abstract_state(self, batch: Batch) -> TrainState:
        """Shapes, dtypes and shardings of the state, without computing or compiling anything.

        Raises:
          UserError: an axis of the mesh has nothing to divide.
        """
        shapes = jax.eval_shape(self._initial_state, jax.ShapeDtypeStruct((), jnp.uint32), _device_part(batch))
        check_divisible(shapes, self.mesh)
        places = state_shardings(shapes, self.mesh)
        return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places)

    def indices(self, seed: Any, step: Any, xp: Any) -> Any:
        """Which examples ``step`` sees, ``[M * B]``; the same under NumPy and traced."""
        return batch_indices(seed, step, self.family.examples_per_step, self.train_size, xp)

    def run_resident(self, state: TrainState, data: Batch, steps: int) -> tuple[TrainState, Metrics]:
        """``steps`` steps in one call, gathering from the whole split on the device; metrics are ``[steps]``.

        Besides the family's there is ``divergence.FLAG``, whether training can go on.
        """
        function = functools.partial(self._run_resident, steps=steps)
        return self._call(("resident", steps), function, (0, None), state, data)

    def run_streamed(self, state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        """One step for each of the batches ``[S, M * B, ...]``; metrics are ``[S]``."""
        steps = jax.tree.leaves(batches)[0].shape[1 if self.members else 0]
        return self._call(("streamed", steps), self._run_streamed, (0, 0), state, dict(batches))

    def _call(self, name: tuple[str, int], function: Callable, axes: tuple, *args: Any) -> tuple[TrainState, Metrics]:
        """Runs the program of that name, for as many members as there are, compiling it before its first call."""
        key = (*name, args[0].step.shape)
        if key not in self._programs:
            self._programs[key] = self._compile(function, axes, name[1], *args)
        return self._programs[key](*args)

    def _compile(self, function: Callable, axes: tuple, steps: int, *args: Any) -> jax.stages.Compiled:
        """Ahead of time, so that a program can be asked what it costs without being compiled a second time."""
        places = state_shardings(args[0], self.mesh, leading=int(self.members)), replicated(self.mesh)
        mapped = jax.vmap(function, axes) if self.members else function
        traced = jax.jit(mapped, donate_argnums=0, out_shardings=places).trace(*args)
        program = traced.lower().compile(compiler_options())
        self.flops = self.flops or self._count(program, traced.jaxpr, steps)
        return program

    def compile_step(self, batch: Batch) -> jax.stages.Compiled:
        """The program of one step on streamed data, compiled from shapes alone to be looked at.

        Args:
          batch: examples of the data set, of which only shapes and dtypes count.
        """
        place, size = over_data(self.mesh, axis=1), self.family.examples_per_step
        batches = {
            name: jax.ShapeDtypeStruct((1, size, *array.shape[1:]), array.dtype, sharding=place)
            for name, array in _device_part(batch).items()
        }
        return self._compile(self._run_streamed, (0, 0), 1, self.abstract_state(batch), batches)

    def _count(self, program: jax.stages.Compiled, traced: Any, steps: int) -> float:
        """Floating-point operations of one step (of all members) on all devices."""
        analysis = program.cost_analysis() or {}
        counted = float(analysis.get("flops", 0.0)) * self.mesh.size
        return step_flops(counted, traced, steps, self.mesh.devices.flat[0].platform)

    def _run_resident(self, state: TrainState, data: Batch, steps: int) -> tuple[TrainState, Metrics]:
        def body(state, _):
            chosen = self.indices(state.hparams["seed"], state.step, jnp)
            return self._step(state, {name: jnp.take(array, chosen, axis=0) for name, array in data.items()})

        return _scan(body, state, None, steps)

    def _run_streamed(self, state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        return _scan(self._step, state, dict(batches), jax.tree.leaves(batches)[0].shape[0])

    def _step(self, state: TrainState, batch: Mapping[str, Array]) -> tuple[TrainState, Metrics]:
        """One training step on ``[M * B, ...]``: augment, cut into slices, spread over the devices, update, judge."""
        key = rng.step_key(rng.root(state.hparams["seed"]), state.step)
        batch = {**batch, "image": self.augment(rng.stream(key, "augment"), batch["image"])}
        shape = (self.family.microbatches, self.family.slice_size)
        batch = {name: array.reshape(*shape, *array.shape[1:]) for name, array in batch.items()}
        if self.mesh.size > 1:
            batch = jax.lax.with_sharding_constraint(batch, over_data(self.mesh, axis=1))
        used = {name: gathered(getattr(state, name), self.mesh) for name in ("params", "collections", "frozen")}
        state, metrics = self.family.train_step(state.replace(**used), batch, rng.stream(key, "train"))
        return state, metrics | {FLAG: flagged(metrics, self.max_grad_norm)}


def _device_part(batch: Batch) -> Batch:
    return {name: batch[name] for name in ("image", "label") if name in batch}


def _scan(body: Callable, state: TrainState, inputs: Any, length: int) -> tuple[TrainState, Metrics]:
    """``lax.scan``; one step is not wrapped in a loop, in which XLA's CPU backend runs some operations slower."""
    if length == 1:
        state, metrics = body(state, jax.tree.map(lambda x: x[0], inputs))
        return state, jax.tree.map(lambda x: x[None], metrics)
    return jax.lax.scan(body, state, inputs, length)
