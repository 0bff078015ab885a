"""Cost of a population of eight against one member: ``python -m benchmarks.population [--output=docs/performance.md]``.

One member, eight in turns and eight together advance alternately in this one process, so that load on the machine meets
all alike. A cost is the time of a step of everybody over the time of a step of the one; 8 is no loss and no gain. No
ratio is asserted.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from benchmarks.speed import workload
from benchmarks.speed.genjax_job import family
from benchmarks.speed.report import machine, spread, write
from genjax.data.base import ArraySource
from genjax.train.feed import make_feeds
from genjax.train.population import InTurns, Together
from genjax.train.sharding import data_mesh, select_platform
from genjax.train.steps import Trainer
from genjax.types import ImageSpec

MEMBERS = 8
SPEC = ImageSpec(workload.SIZE, workload.SIZE, workload.CHANNELS, workload.CLASSES)


def runner(network: str, batch: int, members: int, together: bool, per_call: int) -> Callable[[int], None]:
    """A function that advances the members by a number of calls and waits."""
    images, labels = workload.examples(10_000)
    source = ArraySource(SPEC, "noise", {}, images, labels)
    model, mesh = family(network, batch), data_mesh(1)
    one = Trainer(model, mesh, len(source), lambda key, images: images)
    example = source.gather(np.zeros(1, np.int64))
    states = [one.init(seed, example) for seed in range(members)]
    trainer = Trainer(model, mesh, len(source), lambda key, images: images, members=True) if together else one
    steps = lambda: ((i * per_call, per_call) for i in itertools.count())  # noqa: E731
    feeds = functools.partial(make_feeds, trainer, source, steps, 1)
    population = (Together if together else InTurns)(feeds, states)

    def run(calls: int) -> None:
        read = []
        for _ in range(calls):
            read = population.run(per_call, [True] * members)
        for metrics in read:
            metrics()

    return run


def costs(network: str, batch: int, per_call: int, rounds: int, seconds: float) -> tuple[float, list[list[float]]]:
    """Milliseconds of a step of one member, and the cost of eight in turns and of eight together in every round."""
    runs = [
        runner(network, batch, members, together, per_call)
        for members, together in ((1, False), (MEMBERS, False), (MEMBERS, True))
    ]
    calls = []
    for run in runs:
        run(1)  # compiles
        start = time.perf_counter()
        run(2)
        calls.append(max(1, round(seconds / ((time.perf_counter() - start) / 2))))
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for column, run, count in zip(times, runs, calls, strict=True):
            start = time.perf_counter()
            run(count)
            column.append((time.perf_counter() - start) / (count * per_call))
    alone = times[0]
    return 1e3 * statistics.median(alone), [[t / a for t, a in zip(c, alone, strict=True)] for c in times[1:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement")
    parser.add_argument("--output", type=Path, metavar="FILE.md", help="also put the table between this file's markers")
    args = parser.parse_args()
    select_platform(args.device)
    per_call = {"cpu": 1, "gpu": 20}[args.device]
    lines = [
        f"- Machine: {machine()}; {jax.devices()[0].device_kind}; jax {jax.__version__}.",
        f"- Command: `python -m benchmarks.population --device={args.device} --batch={args.batch}`; "
        f"{args.rounds} rounds; {per_call} step(s) a call.",
        "",
        f"| network | one member, ms a step | {MEMBERS} in turns, cost | {MEMBERS} together, cost |",
        "|---|---|---|---|",
    ]
    for network, title in workload.NETWORKS.items():
        alone, (turns, together) = costs(network, args.batch, per_call, args.rounds, args.seconds)
        lines.append(f"| {title} | {alone:.3g} | {spread(turns)} | {spread(together)} |")
        print(lines[-1], flush=True)
    block = "\n".join(lines)
    print(block)
    if args.output:
        write(args.output, f"{args.device} population", block)


if __name__ == "__main__":
    main()
