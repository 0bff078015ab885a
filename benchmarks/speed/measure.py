"""Measurements in turns: one process for each framework, all started before the first is measured.

While one process works the others wait for a line on stdin. Every ratio is taken within a round, so that whatever the
machine does meanwhile meets both sides.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.speed import workload
from benchmarks.speed.frameworks import FRAMEWORKS, Framework
from benchmarks.speed.process import Worker, WorkerError

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
      device: "cpu" or "gpu".
      networks, frameworks: their names, in the order of the table.
      pythons: interpreter for "genjax", "torch" and "keras".
      rounds: how often everything is measured, in turns.
      seconds: that one measurement should take.
      batch: images in one update.
      examples: images in the training set.
      all_candidates: whether a framework's settings are all tried, or the first is taken.
    """

    device: str
    networks: tuple[str, ...]
    frameworks: tuple[str, ...]
    pythons: Mapping[str, str]
    rounds: int = 5
    seconds: float = 1.5
    batch: int = 128
    examples: int = 60_000
    all_candidates: bool = True


@dataclasses.dataclass
class Result:
    """What came out for one framework and network.

    Attributes:
      rates: for each task one number a round: images/s of "train" and "sample", FLOP/s of "matmul".
      failure: why there is nothing, one line.
      left_out: why nobody tried, one line.
      options: the settings that were the fastest.
      cold, warm: seconds from the start of the process to the end of its first step; None where they do not compare.
      peak_bytes: of training and sampling.
      flops: of one step as the framework counts them, 0 if it does not.
      versions: of its packages.
    """

    rates: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    failure: str = ""
    left_out: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    cold: float | None = None
    warm: float | None = None
    peak_bytes: int = 0
    flops: float = 0.0
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Outcome:
    """All results, and the largest share of a core that all waiting processes together took from a measured one."""

    results: dict[tuple[str, str], Result] = dataclasses.field(default_factory=dict)
    idle_load: float = 0.0


def say(text: str) -> None:
    """Progress, beside the table that goes to stdout."""
    print(text, file=sys.stderr, flush=True)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(device: str, cache: Path) -> dict[str, str]:
    """Variables of a worker whose compiled programs are kept under ``cache``."""
    variables = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "JAX_COMPILATION_CACHE_DIR": str(cache / "jax"),
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # Several processes share the GPU: each takes what it needs and no more.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }
    if device == "cpu":
        variables |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **variables}


def launch(plan: Plan, framework: Framework, network: str, options: Mapping[str, Any], cache: Path) -> Worker:
    settings = {"network": network, "device": plan.device, "batch": plan.batch, "examples": plan.examples}
    arguments = {"module": framework.module, **settings, "threads": cores(), "options": dict(options)}
    command = [plan.pythons[framework.interpreter], "-m", "benchmarks.speed.worker", json.dumps(arguments)]
    variables = environment(plan.device, cache)
    if "omp_wait" in options:
        variables["OMP_WAIT_POLICY"] = options["omp_wait"]
    return Worker(command, variables, ROOT)


def units_for(worker: Worker, task: str, seconds: float) -> tuple[int, float]:
    """How many units of a task fill about ``seconds``, and the units per second; warms up on the way."""
    unit = worker.hello["unit"] if task == "train" else 1
    if unit == 1:
        worker.seconds(task, 1)  # compiles what the first training step did not
    count = unit
    while (taken := worker.seconds(task, count)) < seconds / 4:
        count *= 2 if taken > seconds / 16 else 4
    rate = count / taken
    return max(1, round(seconds * rate / unit)) * unit, rate


def candidates_of(plan: Plan, framework: Framework, results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """Settings to try, with those of the framework it follows."""
    own = framework.candidates[plan.device][: None if plan.all_candidates else 1]
    base: Mapping[str, Any] = {}
    if framework.follows:
        leader = results.get(framework.follows, Result())
        base = leader.options or FRAMEWORKS[framework.follows].candidates[plan.device][0]
    return [{**base, **options} for options in own]


def open_best(plan: Plan, name: str, network: str, caches: Path, results: Mapping[str, Result]) -> Worker:
    """The worker of a framework with its fastest settings, started twice: with an empty cache, and with its own."""
    framework, result = FRAMEWORKS[name], results[name]
    candidates = candidates_of(plan, framework, results)
    folder = caches / f"{network}-{name}"
    if not framework.has_first_step:
        result.options = candidates[0]
        return launch(plan, framework, network, candidates[0], folder)
    tried: list[tuple[float, float, int]] = []
    failures: list[str] = []
    for i, options in enumerate(candidates):
        try:
            worker = launch(plan, framework, network, options, folder / str(i))
        except WorkerError as error:
            failures.append(str(error))
            continue
        try:
            rate = units_for(worker, "train", plan.seconds)[1] if len(candidates) > 1 else 0.0
            tried.append((rate, worker.started, i))
        except WorkerError as error:
            failures.append(str(error))
        finally:
            worker.close()
    if not tried:
        raise WorkerError(failures[0])
    _, result.cold, best = max(tried)
    result.options = candidates[best]
    worker = launch(plan, framework, network, candidates[best], folder / str(best))
    result.warm = worker.started
    return worker


def prepare(plan: Plan, name: str, network: str, worker: Worker, result: Result) -> dict[str, int]:
    """Warms a worker up and asks it about itself. Returns the units of each task in one measurement."""
    result.versions = worker.hello["versions"]
    tasks = [t for t in FRAMEWORKS[name].tasks if not (t == "sample" and network == "cnn")]
    counts = {task: units_for(worker, task, plan.seconds)[0] for task in tasks if task != "matmul"}
    # Before the matrices are made, which are no part of the training's memory.
    facts = worker.ask(run="facts")
    result.peak_bytes, result.flops = facts["peak_bytes"], facts.get("flops", 0.0)
    return counts | {task: units_for(worker, task, plan.seconds / 2)[0] for task in tasks if task == "matmul"}


def work_of(plan: Plan, network: str, task: str) -> float:
    """Images, or floating-point operations, in one unit of a task."""
    return {
        "train": plan.batch,
        "sample": workload.SAMPLES.get(network, 0),
        "matmul": 2.0 * workload.MATRIX[plan.device] ** 3,
    }[task]


def measure_round(
    plan: Plan, network: str, workers: dict[str, Worker], counts: dict, results: dict[str, Result]
) -> float:
    """One measurement of everything, in turns; returns the load that the waiting processes made, in cores."""
    load = 0.0
    for name in list(workers):
        worker = workers[name]
        others = [w for other, w in workers.items() if other != name]
        try:
            for task, count in counts[name].items():
                before = sum(w.cpu_seconds() for w in others)
                seconds = worker.seconds(task, count)
                load = max(load, (sum(w.cpu_seconds() for w in others) - before) / seconds)
                results[name].rates.setdefault(task, []).append(count * work_of(plan, network, task) / seconds)
        except WorkerError as error:
            results[name] = Result(failure=str(error))
            workers.pop(name).close()
    return load


def measure_network(plan: Plan, network: str, caches: Path, tell: Callable[[str], None] = say) -> tuple[dict, float]:
    """Results of all frameworks for one network, and the load of the waiting processes."""
    reasons = {name: FRAMEWORKS[name].left_out.get(plan.device, {}).get(network, "") for name in plan.frameworks}
    results = {name: Result(left_out=reason) for name, reason in reasons.items()}
    workers: dict[str, Worker] = {}
    counts: dict[str, dict[str, int]] = {}
    load = 0.0
    try:
        for name in (name for name, reason in reasons.items() if not reason):
            try:
                workers[name] = open_best(plan, name, network, caches, results)
                counts[name] = prepare(plan, name, network, workers[name], results[name])
                tell(f"{network}: {name} is ready, first step after {workers[name].started:.1f} s")
            except WorkerError as error:
                results[name] = Result(failure=str(error))
                if name in workers:
                    workers.pop(name).close()
                tell(f"{network}: {name} is not available: {error}")
        for i in range(plan.rounds):
            load = max(load, measure_round(plan, network, workers, counts, results))
            tell(f"{network}: round {i + 1} of {plan.rounds} is done")
    finally:
        for worker in workers.values():
            worker.close()
    return results, load


def measure(plan: Plan, caches: Path, tell: Callable[[str], None] = say) -> Outcome:
    outcome = Outcome()
    for network in plan.networks:
        results, load = measure_network(plan, network, caches, tell)
        outcome.results |= {(network, name): result for name, result in results.items()}
        outcome.idle_load = max(outcome.idle_load, load)
    return outcome
