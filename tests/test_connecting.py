"""Processes that can't be connected end with one line, and don't crash or wait."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from genjax.train.distributed import connect
from genjax.types import UserError

ROOT = Path(__file__).resolve().parents[1]
ALONE = """
import sys
from genjax.train import distributed
from genjax.types import UserError
distributed.QUIET_SECONDS, distributed.CONNECT_SECONDS = 0.5, 2
try:
    distributed.connect("cpu", *eval(sys.argv[1]))
except UserError as error:
    print("refused:", error)
"""


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("port", ["0", "65536", "99999", "-1", "²"])
def test_a_port_is_1_to_65535(port):
    with pytest.raises(UserError, match=f"--coordinator=here:{port}: accepted: a host and a port from 1 to 65535"):
        connect("cpu", f"here:{port}", 2, 0)


def test_a_port_that_is_taken_and_a_host_that_is_unknown_are_named(taken):
    with pytest.raises(UserError, match=f"--coordinator={taken}: port .* can't be had: Address already in use"):
        connect("cpu", taken, 2, 0)
    for index in (0, 1):
        with pytest.raises(UserError, match="--coordinator=no.invalid:9876: host no.invalid is unknown: "):
            connect("cpu", "no.invalid:9876", 2, index)


def alone(*arguments, **variables):
    """Connects in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", ALONE, repr(arguments)],
        cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("index", [0, 1])
def test_who_waits_in_vain_says_so_and_ends(index):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    done = alone(address, 2, index)
    assert done.returncode == 2, done
    line = f"error: several processes: 2 processes at {address}: not all came in 2 s, or the first can't be reached\n"
    assert done.stderr.endswith(line) and "Traceback" not in done.stderr
    assert done.stdout == (f"waiting for 2 processes at {address}\n" if index == 0 else "")


def test_a_variable_of_slurm_that_is_missing_is_named():
    done = alone(SLURM_STEP_NUM_TASKS="2", SLURM_PROCID="0")
    assert done.returncode == 0, done
    assert done.stdout.startswith("refused: several processes: the processes of this Slurm step")
    assert done.stdout.endswith("variable SLURM_JOB_ID is missing\n")
