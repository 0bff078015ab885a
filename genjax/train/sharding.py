"""Which devices a run uses and how its arrays lie on them.

A mesh has three axes. "data" and "fsdp" divide every batch; "fsdp" divides large arrays of the state too, of which
parameters are gathered for each step and the rest, moments and averages, is not (Rajbhandari et al. 2020); "tensor"
divides the matrix products of a transformer's blocks (Shoeybi et al. 2019). All of it is placement alone: the step is
the same function.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from genjax import tree
from genjax.train.allocator import keep_freed_memory
from genjax.types import UserError

PLATFORMS = ("auto", "cpu", "gpu", "tpu")
AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

# Of a parameter's name, and of its averages' and moments', which end alike: the axis that "tensor" divides, counted
# from the end. The first product of a pair is divided by its results and the second by what it sums over, so that
# nothing is exchanged between them, and sums once behind both.
TENSOR_RULES = (
    (re.compile(r"block_\d+/(attention/qkv|mlp/in)/kernel$"), -1),
    (re.compile(r"block_\d+/(attention/qkv|mlp/in)/bias$"), -1),
    (re.compile(r"block_\d+/(attention|mlp)/out/kernel$"), -2),
)
FSDP_SIZE = 2**12  # arrays with fewer values lie whole on every device: to gather them would cost more than it saves


def select_platform(platform: str, deterministic: bool = False) -> str:
    """Makes jax use ``platform`` and returns what it is ("cpu", "gpu" or "tpu"); "auto" takes the best there is.

    On a CPU it also tells malloc to keep what steps free, which makes them up to twice as fast. ``deterministic`` is
    about GPUs: XLA then leaves out operations whose order of summation is not fixed, and does not choose kernels by
    measuring them, which may come out otherwise in the next process.

    To be called before the first array. jax falls back to the CPU in silence when a GPU is missing, so this checks.

    Raises:
      UserError: unknown name, or no such device.
    """
    if platform not in PLATFORMS:
        raise UserError(f"accelerator={platform} is unknown; accepted: {', '.join(PLATFORMS)}")
    if platform == "cpu":
        jax.config.update("jax_platforms", "cpu")
    elif deterministic:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()
    if platform in ("auto", "cpu"):
        keep_freed_memory()
    found = jax.default_backend()
    if platform not in ("auto", found):
        raise UserError(
            f"accelerator={platform}: jax finds no {platform.upper()} on this machine, only {found}; "
            f"use accelerator={found} or accelerator=auto, or install jax for it (extras cuda12, cuda13, tpu)"
        )
    return found


def mesh_of(accelerator: Mapping[str, Any]) -> Mesh:
    """The mesh that a config's section ``accelerator`` asks for."""
    return device_mesh(accelerator["devices"], accelerator["fsdp"], accelerator["tensor"])


def device_mesh(devices: int, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh over ``devices`` devices of each process, -1 for all of them.

    Args:
      devices: of each process.
      fsdp: length of that axis.
      tensor: length of that axis; neighbours along it are neighbouring devices, which exchange most. What is left of
        all devices is the axis "data".

    Raises:
      UserError: more are asked for than there are, or the axes don't divide them.
    """
    available = jax.local_device_count()
    count = available if devices == -1 else devices
    if not 1 <= count <= available:
        raise UserError(f"accelerator.devices={devices} does not fit: this machine has {available}; -1 takes all")
    first: dict[int, list[Any]] = {}
    for device in jax.devices():
        first.setdefault(device.process_index, []).append(device)
    chosen = [device for process in sorted(first) for device in first[process][:count]]
    if fsdp < 1 or tensor < 1 or len(chosen) % (fsdp * tensor):
        raise UserError(
            f"accelerator.fsdp={fsdp}, accelerator.tensor={tensor}: their product must divide the {len(chosen)} devices"
        )
    shape = (len(chosen) // (fsdp * tensor), fsdp, tensor)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=chosen)


def data_mesh(devices: int) -> Mesh:
    """``device_mesh`` of copies that share nothing but the batch."""
    return device_mesh(devices)


def batch_parts(mesh: Mesh) -> int:
    """Into how many parts a batch is divided."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def over_data(mesh: Mesh, axis: int) -> NamedSharding:
    """The given axis of an array, the examples of a batch, divided."""
    return NamedSharding(mesh, P(*[None] * axis, BATCH_AXES))


def state_shardings(state: Any, mesh: Mesh, leading: int = 0) -> Any:
    """How each array of a training state lies on the mesh, by its name and shape; the same tree.

    Optimizer moments and averages have the names and shapes of their parameters behind them and lie beside these.

    Args:
      state: arrays, or their shapes.
      leading: axes in front (members of a population) that are not looked at and not divided.
    """
    return tree.map_named(
        lambda name, leaf: NamedSharding(mesh, _spec(name, leaf.shape[leading:], mesh, leading)), state
    )


def _spec(name: str, shape: tuple[int, ...], mesh: Mesh, leading: int) -> P:
    axes: list[str | None] = [None] * len(shape)
    for pattern, axis in TENSOR_RULES:
        if mesh.shape["tensor"] > 1 and pattern.search(name) and shape[axis] % mesh.shape["tensor"] == 0:
            axes[axis] = "tensor"
    if mesh.shape["fsdp"] > 1 and np.prod(shape, dtype=np.int64) >= FSDP_SIZE:
        # Of a kernel the channels only: divided in space, XLA's partitioner gets some transposed convolutions wrong.
        last = range(len(shape))[-2:]
        fitting = [i for i in last if axes[i] is None and shape[i] % mesh.shape["fsdp"] == 0]
        if fitting:
            axes[max(fitting, key=lambda i: shape[i])] = "fsdp"
    return P(*[None] * leading, *axes) if any(axes) else P()


def gathered(values: Any, mesh: Mesh) -> Any:
    """Inside a compiled step: parameters and the like without the division by "fsdp"; the same tree.

    Left to itself XLA divides the activations as their kernels are, by channels, and exchanges many times as much.
    """
    if mesh.shape["fsdp"] == 1:
        return values
    whole = lambda axis: None if axis == "fsdp" else axis  # noqa: E731
    places = jax.tree.map(lambda s: NamedSharding(mesh, P(*map(whole, s.spec))), state_shardings(values, mesh))
    return jax.lax.with_sharding_constraint(values, places)


def check_divisible(state: Any, mesh: Mesh) -> None:
    """Raises UserError where an axis of the mesh would have nothing to divide in such a state."""
    used = {axis for sharding in jax.tree.leaves(state_shardings(state, mesh)) for axis in sharding.spec if axis}
    if mesh.shape["tensor"] > 1 and "tensor" not in used:
        raise UserError(
            f"accelerator.tensor={mesh.shape['tensor']} finds nothing to divide; accepted: 1, or a transformer "
            "(dit, jit) whose width and heads it divides"
        )
    if mesh.shape["fsdp"] > 1 and "fsdp" not in used:
        raise UserError(
            f"accelerator.fsdp={mesh.shape['fsdp']} finds nothing to divide; accepted: 1, or a network with arrays of "
            f"{FSDP_SIZE} values or more of which it divides a side"
        )


def put(values: Any, sharding: NamedSharding) -> Any:
    """Host arrays (or keys) on the devices of a mesh, whose other processes hold the same values."""
    if sharding.is_fully_addressable:
        return jax.device_put(values, sharding)

    def one(value: Any) -> Any:
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(value)), impl=jax.random.key_impl(value))
        host = np.asarray(value)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(one, values)


def spread(values: Any, mesh: Mesh) -> Any:
    """Examples on the devices, divided among them where their number allows, else whole on each."""

    def one(value: Any) -> Any:
        even = np.ndim(value) > 0 and np.shape(value)[0] % batch_parts(mesh) == 0
        return put(value, over_data(mesh, axis=0) if even else replicated(mesh))

    return jax.tree.map(one, values)
