"""Several processes, each with its own devices, that train one run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from genjax.types import UserError

HEARTBEAT_SECONDS = 30  # a process not heard of for so long is lost, and the others end


def connect(
    platform: str,
    coordinator: str | None = None,
    count: int | None = None,
    index: int | None = None,
    variables: Mapping[str, str] = os.environ,
) -> bool:
    """Joins this process to the others of its run; whether there are others.

    They are named by the arguments, or found by what Slurm tells each task of a step (``srun``), or on TPU by what
    every host of a slice is told. Otherwise this process is alone and nothing happens.

    To be called before jax is asked for its devices, so that ``platform`` can't be "auto" where there are others.

    Args:
      platform: "cpu", "gpu", "tpu" or "auto".
      coordinator: host and port where the first process waits for the others.
      count: of processes.
      index: of this process, from 0.
      variables: of the environment.

    Raises:
      UserError: some of the three are missing or out of range, or jax has been asked for its devices.
    """
    given = {"coordinator": coordinator, "num_processes": count, "process_id": index}
    by_slurm = int(variables.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in variables
    hosts = variables.get("TPU_WORKER_HOSTNAMES", "").split(",") if platform == "tpu" else []
    if any(value is not None for value in given.values()):
        missing = [f"--{name}" for name, value in given.items() if value is None]
        if missing:
            raise UserError(f"several processes: {', '.join(missing)} missing; --coordinator=HOST:PORT, "
                            "--num_processes and --process_id belong together")  # fmt: skip
        assert coordinator is not None and count is not None and index is not None
        if not (coordinator.rpartition(":")[0] and coordinator.rpartition(":")[2].isdigit()):
            raise UserError(f"--coordinator={coordinator}: accepted: a host and a port, such as 127.0.0.1:9876")
        if not 0 <= index < count:
            raise UserError(f"--process_id={index}: accepted: 0 to {count - 1}, for --num_processes={count}")
        if count == 1:
            return False
        arguments: dict[str, Any] = {"coordinator_address": coordinator, "num_processes": count, "process_id": index}
    elif by_slurm:
        arguments = {"cluster_detection_method": "slurm"}
    elif len(hosts) > 1:
        arguments = {}
    else:
        return False
    if platform == "cpu":
        jax.config.update("jax_platforms", "cpu")
    try:
        jax.distributed.initialize(**arguments, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except RuntimeError as error:
        if "before any JAX" not in str(error):
            raise
        raise UserError(
            "several processes: jax was asked for its devices before they were connected; name the accelerator "
            "behind the config (accelerator=cpu, gpu or tpu), for auto has to ask"
        ) from error
    return True


class Agreement:
    """The largest of the whole numbers that processes give, without waiting: each call returns that of the one before.

    Every process must call it equally often. The exchange is queued on the devices like any program.
    """

    def __init__(self):
        first: dict[int, Any] = {}
        for device in jax.devices():
            first.setdefault(device.process_index, device)
        mesh = Mesh(np.array([first[process] for process in sorted(first)]), ("process",))
        self._place = NamedSharding(mesh, P("process"))
        self._largest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, P()))
        self._asked: jax.Array | None = None

    def __call__(self, value: int) -> int:
        own = np.array([value], np.int32)
        given = jax.make_array_from_callback((jax.process_count(),), self._place, lambda index: own)
        before, self._asked = self._asked, self._largest(given)
        return 0 if before is None else int(before)
