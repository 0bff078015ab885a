"""Several processes, each with its own devices, that train one run."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from genjax.io.files import reason
from genjax.types import UserError

HEARTBEAT_SECONDS = 30  # a process not heard of for so long is lost, and the others end
CONNECT_SECONDS = 300  # that processes wait for each other at the start
QUIET_SECONDS = 10  # before the first of them says that it waits


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
      UserError: some of the three are missing or out of range, the address is of no use, Slurm's variables are not
        complete, or jax has been asked for its devices. Where others don't come, the process ends with status 2.
    """
    by_slurm = int(variables.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in variables
    hosts = variables.get("TPU_WORKER_HOSTNAMES", "").split(",") if platform == "tpu" else []
    arguments: dict[str, Any] = _by_address(coordinator, count, index)
    if arguments and count == 1:
        return False
    if not arguments and by_slurm:
        arguments = {"cluster_detection_method": "slurm"}
    elif not arguments and len(hosts) < 2:
        return False
    if platform == "cpu":
        jax.config.update("jax_platforms", "cpu")
    who = f"{count} processes at {coordinator}" if count else "the processes of this Slurm step or TPU slice"
    leads = (index if count else variables.get("SLURM_PROCID")) in (0, "0")
    _start(arguments, who, leads)
    return True


def _start(arguments: dict[str, Any], who: str, leads: bool) -> None:
    """Raises UserError with one line where jax has a traceback."""
    try:
        with _patience(who, leads):
            jax.distributed.initialize(
                **arguments,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                initialization_timeout=2 * CONNECT_SECONDS,  # past which jax aborts
            )
    except RuntimeError as error:
        if "before any JAX" not in str(error):
            raise UserError(f"several processes: {who} can't be connected: {error}") from error
        raise UserError(
            "several processes: jax was asked for its devices before they were connected; name the accelerator "
            "behind the config (accelerator=cpu, gpu or tpu), for auto has to ask"
        ) from error
    except KeyError as error:
        raise UserError(f"several processes: {who} can't be connected: variable {error.args[0]} is missing") from error
    except ValueError as error:
        raise UserError(f"several processes: {who} can't be connected: {error}") from error


def _by_address(coordinator: str | None, count: int | None, index: int | None) -> dict[str, Any]:
    """What jax is told of processes that are named by an address; empty where they are not."""
    given = {"coordinator": coordinator, "num_processes": count, "process_id": index}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return {}
    if missing:
        raise UserError(f"several processes: {', '.join(missing)} missing; --coordinator=HOST:PORT, "
                        "--num_processes and --process_id belong together")  # fmt: skip
    assert coordinator is not None and count is not None and index is not None
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(f"--coordinator={coordinator}: accepted: a host and a port from 1 to 65535, such as "
                        "127.0.0.1:9876")  # fmt: skip
    if not 0 <= index < count:
        raise UserError(f"--process_id={index}: accepted: 0 to {count - 1}, for --num_processes={count}")
    if count > 1:
        _check_address(coordinator, leads=index == 0)
    return {"coordinator_address": coordinator, "num_processes": count, "process_id": index}


def _check_address(coordinator: str, leads: bool) -> None:
    """Raises UserError where the host is unknown, or its port taken, for which jax would crash or wait."""
    host, _, port = coordinator.rpartition(":")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except (OSError, UnicodeError) as error:
        raise UserError(f"--coordinator={coordinator}: host {host} is unknown: {reason(error)}") from error
    if not leads:
        return
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        socket.create_server(("", int(port)), family=family, dualstack_ipv6=both).close()
    except OSError as error:
        raise UserError(f"--coordinator={coordinator}: port {port} can't be had: {reason(error)}") from error


@contextlib.contextmanager
def _patience(who: str, leads: bool) -> Iterator[None]:
    """Says that this process waits, if it leads, and ends it where the others don't come, which jax does by a crash."""

    def give_up() -> NoReturn:
        print(f"error: several processes: {who}: not all came in {CONNECT_SECONDS} s, or the first can't be reached",
              file=sys.stderr, flush=True)  # fmt: skip
        os._exit(2)  # the main thread does not answer before jax's own deadline

    timers = [threading.Timer(CONNECT_SECONDS, give_up)]
    if leads:
        timers.append(threading.Timer(QUIET_SECONDS, print, (f"waiting for {who}",), {"flush": True}))
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()


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
