"""Memory that is freed stays with the process, so that taking it again costs no page faults."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from tests.cli.commands import ROOT

PROGRAM = """
import resource, sys
import numpy as np
from genjax.train.allocator import keep_freed_memory

told = keep_freed_memory() if "keep" in sys.argv else False
def step():
    for _ in range(2):
        np.ones(10 * 2**20)  # 80 MB, more than malloc ever keeps by itself
step()
before = resource.getrusage(resource.RUSAGE_SELF)
for _ in range(5):
    step()
after = resource.getrusage(resource.RUSAGE_SELF)
print(told, after.ru_minflt - before.ru_minflt, after.ru_maxrss)
"""


def measure(*arguments: str, **variables: str) -> tuple[bool, int, int]:
    """Whether malloc was told, page faults of taking memory again, and the peak in kB."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**environment, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    told, faults, peak = done.stdout.split()
    return told == "True", int(faults), int(peak)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_taken_again_without_page_faults():
    told, faults, peak = measure("keep")
    plain_told, plain_faults, plain_peak = measure()
    assert told and not plain_told
    assert plain_faults > 100, "this system gives memory without page faults"
    assert faults < plain_faults / 20
    assert peak < plain_peak + 64 * 1024  # it holds on to what it had, not to more


def test_what_the_user_told_malloc_stays():
    assert measure("keep", MALLOC_ARENA_MAX="2")[0] is False
    assert measure("keep", GLIBC_TUNABLES="glibc.malloc.arena_max=2")[0] is False
