"""Compiled programs that outlive a process, and how long a run waits for its own."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import time
import warnings
from pathlib import Path
from typing import Any

import jax

CACHE_BYTES = 4 * 2**30  # the oldest programs beyond this are removed


def use_cache() -> Path | None:
    """Keeps compiled programs in the user's cache folder, so that a second start need not compile them again.

    What jax has been told already (``JAX_COMPILATION_CACHE_DIR``, ``JAX_ENABLE_COMPILATION_CACHE=0``) stays.

    Returns:
      The folder, None where jax has been told otherwise or the folder can't be written.
    """
    config: Any = jax.config  # settings are attributes that no stub lists
    if config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
        return None
    # Programs for a CPU hold its instructions: a home folder may be shared by machines of several kinds.
    folder = cache_home() / "genjax" / "compiled" / _machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        prune(folder, CACHE_BYTES)
        if not os.access(folder, os.W_OK):
            return None
    except OSError:
        return None
    # A disk that is full costs time alone; a run that needs room on it says so itself.
    warnings.filterwarnings("ignore", "Error writing persistent compilation cache entry")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


# XLA's CPU backend gives some convolutions to a library (YNNPACK) that runs them on one core here, and is left with its
# own, which use all: half the time on two cores. Matrix products and sums stay where they are.
_CPU_OPTIONS: dict[str, str | bool] = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
}


@functools.cache
def compiler_options() -> dict[str, str | bool] | None:
    """What jit and compile are told for the backend in use, None for nothing.

    An XLA that does not know an option refuses to compile with it, so that each is tried on a program of nothing first.
    """
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=_CPU_OPTIONS).lower().compile()
    except Exception:
        return None  # jaxlib has no name of its own for this error on all the versions there are
    return dict(_CPU_OPTIONS)


def cache_home() -> Path:
    """Where the user's caches are: ``XDG_CACHE_HOME``, or ``.cache`` in the home folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))


def prune(folder: Path, limit: int) -> None:
    """Removes the oldest files until those left have at most ``limit`` bytes, and empty ones.

    jax leaves an empty file where the disk was full, and never writes it again.
    """
    files = []
    for entry in os.scandir(folder):
        try:
            files.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
        except FileNotFoundError:
            pass  # another process was faster
    total = 0
    for _, size, path in sorted(files, reverse=True):
        total += size
        if total > limit or size == 0:
            Path(path).unlink(missing_ok=True)


def _machine() -> str:
    """A name for what compiled CPU code depends on."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        flags = next(line for line in text.splitlines() if line.lower().startswith(("flags", "features")))
    except (OSError, StopIteration):
        flags = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(flags.encode()).hexdigest()[:12]}"


class _Counter:
    """What jax reports of its compilations in this process."""

    def __init__(self):
        self.seconds, self.programs, self.cached = 0.0, 0, 0
        jax.monitoring.register_event_duration_secs_listener(self._duration)
        jax.monitoring.register_event_listener(self._event)

    def _duration(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event.endswith(("/backend_compile_duration", "/jaxpr_to_mlir_module_duration")):
            self.seconds += duration_secs
            self.programs += event.endswith("/backend_compile_duration")

    def _event(self, event: str, **kwargs: str | int) -> None:
        self.cached += event.endswith("/compilation_cache/cache_hits")


_counter: _Counter | None = None  # jax keeps listeners for good, so there is one for all runs of a process


class Compilation:
    """How much of the time until the first step was compilation.

    Args:
      started: ``time.monotonic()`` at the start of what is measured.
    """

    def __init__(self, started: float):
        global _counter
        _counter = _counter or _Counter()
        self._started = started
        self._before = (_counter.seconds, _counter.programs, _counter.cached)
        self.reported = False

    def report(self) -> str:
        """The line for the log, to be asked for when the first step is done."""
        assert _counter is not None
        self.reported = True
        seconds, programs, cached = _counter.seconds, _counter.programs, _counter.cached
        seconds, programs, cached = seconds - self._before[0], programs - self._before[1], cached - self._before[2]
        return (
            f"first step after {time.monotonic() - self._started:.1f} s, {seconds:.1f} s of it compilation "
            f"({cached} of {programs} programs from the cache)"
        )
