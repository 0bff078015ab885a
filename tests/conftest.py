"""Sets the environment of the tests before anything imports jax.

Environment variables:
  GENJAX_TEST_OPT    optimisation level of the CPU compiler; 0 unless given, which compiles twice as fast and runs
                     slower. Give 3 to test what training runs.
  GENJAX_TEST_FUSED  0 leaves out XLA's newer generator of code for fused operations, where there is a choice (before
                     jax 0.11), and compiles faster by another third. For some families other numbers of steps in a
                     call then give other bits, so it is not for tests/contract and tests/cli.
  GENJAX_TEST_CACHE  0 turns off the cache of compiled programs in pytest's cache directory.
  JAX_PLATFORMS      another platform to test on; cpu unless given.
"""

from __future__ import annotations

import gc
import importlib.metadata
import os
import sys

import hypothesis
import pytest


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["MPLBACKEND"] = "Agg"
    level = os.environ.get("GENJAX_TEST_OPT", "0")
    flags = [os.environ.get("XLA_FLAGS", ""), f"--xla_backend_optimization_level={level}"]
    if os.environ.get("GENJAX_TEST_FUSED", "1") == "0" and importlib.metadata.version("jaxlib").startswith("0.10."):
        flags.append("--xla_cpu_use_fusion_emitters=false")
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()
    cache = getattr(config, "cache", None)
    if cache is not None and os.environ.get("GENJAX_TEST_CACHE", "1") != "0":
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache.mkdir("compiled"))
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


# A new shape compiles a new program, so examples are few, have no deadline, and are the same in every run.
hypothesis.settings.register_profile("genjax", deadline=None, max_examples=20, derandomize=True)
hypothesis.settings.load_profile("genjax")


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Each compiled program keeps memory mapped, and the system allows a process some 65,000 mappings."""
    yield
    for benches in vars(sys.modules.get("tests.contract.checks", object)).values():
        if hasattr(benches, "cache_clear"):
            benches.cache_clear()
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture
def x64():
    """float64 where a test asks for it: ``pytestmark = pytest.mark.usefixtures("x64")`` for all of a file."""
    import jax

    with jax.enable_x64(True):
        yield
