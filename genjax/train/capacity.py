"""How many members of a population fit: into the memory of a device, and into the files a process may have open."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from genjax.data.base import ArraySource
from genjax.train.plan import Experiment
from genjax.train.steps import Trainer

_SHARE = 0.8  # of the free memory; the rest is for evaluations and for what allocators lose
_FILES = 4  # of a member: lock, log, events, and one for what is written now and then
_OWN_FILES = 128  # of the process


def most_members(plan: Experiment, mesh: Mesh, together: bool) -> int:
    """The most members that can train at once, at least 1. Where they are one program, the step of one is compiled."""
    return min(fitting(free_memory(mesh), *needed(plan, mesh, together), together), most_open())


def fitting(memory: int, shared: int, state: int, work: int, together: bool) -> int:
    """Members that fit into ``memory``, at least 1; everything in bytes.

    Args:
      memory: free on a device.
      shared: what is there once, however many members there are.
      state: of one member.
      work: what one member's step needs besides; at once for all that are one program, else for one at a time.
      together: whether they are one program. Their states lie there twice while they are stacked and taken apart, of
        those that take turns one does, while it is evaluated or saved.
    """
    usable = int(_SHARE * memory) - shared
    count = usable // (2 * state + work) if together else (usable - state - work) // state
    return max(count, 1)


def needed(plan: Experiment, mesh: Mesh, together: bool) -> tuple[int, int, int]:
    """``shared``, ``state`` and ``work`` of ``fitting`` on each device; ``work`` is 0 for members that take turns."""
    trainer = Trainer(plan.family, mesh, len(plan.train), plan.augment)
    example = plan.train.gather(np.zeros(1, np.int64))
    leaves = jax.tree.leaves(trainer.abstract_state(example))
    state = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)
    shared = ahead = 0
    if isinstance(plan.train, ArraySource):
        shared = plan.train.nbytes
    else:  # batches wait on the device, for each member its own
        accelerator = plan.config["accelerator"]
        calls = max(accelerator["prefetch"], 1) + 1
        ahead = calls * accelerator["steps_per_call"] * plan.family.examples_per_step * plan.train.spec.pixels
    analysis = trainer.compile_step(example).memory_analysis() if together else None
    return shared, state + ahead, analysis.temp_size_in_bytes if analysis else 0


def free_memory(mesh: Mesh) -> int:
    """Bytes that are free on the device of the mesh with the fewest; those of a CPU share the machine's."""
    devices = mesh.local_devices
    if devices[0].platform == "cpu":
        return host_memory() // len(devices)
    stats = [device.memory_stats() for device in devices]
    return min(s["bytes_limit"] - s["bytes_in_use"] if s else host_memory() for s in stats)


def host_memory(root: Path = Path("/")) -> int:
    """Bytes that this process can still get, by the machine and by the limits of its control group (version 2).

    Args:
      root: where ``proc`` and ``sys`` are.
    """
    return min(_machine_memory(root), *_group_memory(root), 2**62)


def _machine_memory(root: Path) -> int:
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _group_memory(root: Path) -> Iterator[int]:
    """What the control groups above this process leave, of those that have a limit."""
    top = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    own = next((line[3:].strip("/") for line in lines if line.startswith("0::")), None)
    if own is None:
        return
    for folder in (top / own, *(top / own).parents):
        if folder == top.parent:
            return
        try:
            limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
            stats = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except OSError:
            continue  # the topmost has no limit
        if limit != "max":
            yield max(int(limit) - int(used) + int(stats["inactive_file"]), 0)


def most_open(limit: int | None = None) -> int:
    """Members whose files this process can have open, at least 1; ``limit`` is the system's unless given."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if limit is None else limit
    return max((limit - _OWN_FILES) // _FILES, 1) if limit != resource.RLIM_INFINITY else 2**31
