"""Which devices a run uses and how its arrays lie on them."""

from __future__ import annotations

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from genjax.train.allocator import keep_freed_memory
from genjax.types import UserError

PLATFORMS = ("auto", "cpu", "gpu", "tpu")


def select_platform(platform: str) -> str:
    """Makes jax use ``platform`` and returns what it is ("cpu", "gpu" or "tpu"); "auto" takes the best there is.

    On a CPU it also tells malloc to keep what steps free, which makes them up to twice as fast.

    To be called before the first array. jax falls back to the CPU in silence when a GPU is missing, so this checks.

    Raises:
      UserError: unknown name, or no such device.
    """
    if platform not in PLATFORMS:
        raise UserError(f"accelerator={platform} is unknown; accepted: {', '.join(PLATFORMS)}")
    if platform == "cpu":
        jax.config.update("jax_platforms", "cpu")
    if platform in ("auto", "cpu"):
        keep_freed_memory()
    found = jax.default_backend()
    if platform not in ("auto", found):
        raise UserError(
            f"accelerator={platform}: jax finds no {platform.upper()} on this machine, only {found}; "
            f"use accelerator={found} or accelerator=auto, or install jax for it (extras cuda12, cuda13, tpu)"
        )
    return found


def data_mesh(devices: int) -> Mesh:
    """A mesh with the one axis "data" over ``devices`` devices, -1 for all of them.

    Raises:
      UserError: more are asked for than there are.
    """
    available = jax.device_count()
    count = available if devices == -1 else devices
    if not 1 <= count <= available:
        raise UserError(f"accelerator.devices={devices} does not fit: this machine has {available}; -1 takes all")
    return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def over_data(mesh: Mesh, axis: int) -> NamedSharding:
    """The given axis of an array split over "data"."""
    return NamedSharding(mesh, P(*[None] * axis, "data"))
