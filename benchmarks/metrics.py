"""Times of the metrics of sets, and the memory of those of nearest neighbours: ``python -m benchmarks.metrics``.

``--rows`` features of ``--dims`` dimensions against as many. Every metric runs once, in a process of its own; memory is
the most that this process held before the metric, with the libraries and the features, and the most until its end.
``--only`` picks metrics by a part of the name, as in ``--rows=50000 --only=neighbours``. No time is asserted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

CLASSES = 10


def features(rows: int, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sets float32 ``[rows, dims]`` whose spread falls with the dimension, as a network's does; a little apart."""
    rng = np.random.default_rng(0)
    real, generated = (rng.standard_normal((rows, dims), np.float32) for _ in range(2))
    for rows_of_set in (real, generated):
        rows_of_set *= np.linspace(1.0, 0.05, dims, dtype=np.float32)  # in place, or memory would show a copy
    generated += np.float32(0.02)
    return real, generated


def metrics(real: np.ndarray, generated: np.ndarray) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    from genjax.metrics import frechet, inception_score, intervals, kernel, manifold

    labels = np.arange(len(real)) % CLASSES
    logits = 5.0 * generated[:, :CLASSES]

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return frechet.frechet_distance(frechet.fit(a), frechet.fit(b))

    return {
        "Fréchet distance": lambda: distance(real, generated),
        "Fréchet distance, to infinitely many rows": lambda: frechet.frechet_infinity(generated, frechet.fit(real)),
        "Fréchet distance by class": lambda: frechet.class_frechet_distances(generated, labels, real, labels).mean,
        "Fréchet distance, interval of 10 blocks": lambda: intervals.block_interval(distance, [real, generated]),
        "kernel distance, 100 subsets of 1000": lambda: kernel.kernel_distance(real, generated),
        "kernel distance, all rows": lambda: kernel.full_kernel_distance(real, generated),
        "Inception score": lambda: inception_score.inception_score(logits),
        "nearest neighbours: precision, recall": lambda: manifold.precision_recall(real, generated),
        "nearest neighbours: density, coverage": lambda: manifold.density_coverage(real, generated),
        "nearest neighbours: all four": lambda: manifold.manifold_metrics(real, generated),
        "bootstrap of a mean, 1000 resamples": lambda: intervals.bootstrap_interval(np.mean, [real[:, 0]]),
    }


def held() -> float:
    """The most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure(name: str, rows: int, dims: int) -> tuple[float, float, float, str]:
    """Seconds, MiB before and at most, and the value."""
    run = metrics(*features(rows, dims))[name]
    before, start = held(), time.perf_counter()
    found = run()
    return time.perf_counter() - start, before, held(), shown(found)


def shown(found: Any) -> str:
    if isinstance(found, float):
        return f"{found:.4g}"
    return ", ".join(f"{name} {value:.4g}" for name, value in found._asdict().items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000, help="of each set, at least 1000")
    parser.add_argument("--dims", type=int, default=128)
    parser.add_argument("--only", default="", help="a part of the metrics' names")
    args = parser.parse_args()
    names = [name for name in metrics(*features(CLASSES, CLASSES)) if args.only.lower() in name.lower()]
    print(f"{args.rows:,} x {args.dims} float32 features against as many")
    print(f"{'':44}{'seconds':>9}{'MiB before':>12}{'at most':>9}")
    total = 0.0
    for name in names:
        # A process that was forked would start with its parent's memory.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, before, most, value = pool.apply(measure, (name, args.rows, args.dims))
        total += seconds
        print(f"{name:44}{seconds:9.2f}{before:12.0f}{most:9.0f}  {value}", flush=True)
    print(f"{'all':44}{total:9.2f}")


if __name__ == "__main__":
    main()
