"""One framework with one network in a process of its own: ``python -m benchmarks.speed.worker JSON``.

It takes the first training step, says that it is ready, and then waits for lines on stdin:

    {"run": "train", "count": 30}  ->  {"seconds": 1.52}
    {"run": "facts"}               ->  {"peak_bytes": ..., ...}

It ends with its stdin. What fails is answered with ``{"error": "one line"}``.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from benchmarks.speed.workload import Settings


@dataclasses.dataclass(frozen=True)
class Job:
    """What a framework offers to measure.

    Attributes:
      tasks: by name; each does ``count`` units of work and returns when they are finished on the device.
      versions: of the packages it runs with, and the device's name where it has one.
      facts: what can be said after the measurements, such as ``flops`` of a step.
      unit: training steps in one call; counts of "train" are multiples of it.
      peak_bytes: of the device's memory; None to take the process's own.
    """

    tasks: Mapping[str, Callable[[int], None]]
    versions: Mapping[str, str]
    facts: Callable[[], dict[str, Any]] = dict
    unit: int = 1
    peak_bytes: Callable[[], int] | None = None


def lazy(make: Callable[[], Callable[[int], None]]) -> Callable[[int], None]:
    """A task that is made when it is first run: until then it needs no memory."""
    made = functools.cache(make)
    return lambda count: made()(count)


def process_peak() -> int:
    """Most bytes that this process has had in memory."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def answer(job: Job, command: Mapping[str, Any]) -> dict[str, Any]:
    if command["run"] == "facts":
        # The peak comes first: looking into a program may need memory that training did not.
        return {"peak_bytes": (job.peak_bytes or process_peak)(), **job.facts()}
    task = job.tasks[command["run"]]
    start = time.perf_counter()
    task(command["count"])
    return {"seconds": time.perf_counter() - start}


def describe(error: BaseException) -> str:
    """One line of what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def serve(make: Callable[[], Job], commands: TextIO, answers: TextIO) -> int:
    """Answers commands until there are no more. Returns the exit status."""

    def send(message: Mapping[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        job = make()
        job.tasks["train"](job.unit)
        send({"ready": True, "unit": job.unit, "versions": dict(job.versions)})
        for line in commands:
            send(answer(job, json.loads(line)))
    except Exception as error:  # whatever a framework can raise is a result: "not available: ..."
        send({"error": describe(error)})
        return 1
    return 0


def main() -> int:
    # Frameworks print to stdout as they like; the answers have the original to themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    arguments = json.loads(sys.argv[1])
    module = arguments.pop("module")
    return serve(lambda: importlib.import_module(module).build(Settings(**arguments)), sys.stdin, answers)


if __name__ == "__main__":
    sys.exit(main())
