"""A long run of the smallest config: does its memory grow, does it get slower?

  python -m tests.drills.soak                                  200,000 steps
  python -m tests.drills.soak --steps=5000 --every=50 --output=soak.png

Trains in this process, so that the arrays that live on the device can be counted; logs, evaluates and saves as any run.
Prints a table by parts of the run and the slopes of least-squares lines through its later three quarters, and draws
them. Memory is that of the process (VmRSS) and of all live arrays of jax.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import re
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

PARTS = 10
EVALUATED = 10  # logs from one evaluation to the next
SKIPPED = 0.25  # share of the run in which caches still fill


@dataclasses.dataclass(frozen=True)
class Sample:
    """A moment: step, seconds since the start, memory of the process, bytes and number of live arrays."""

    step: int
    seconds: float
    resident: int
    device: int
    arrays: int


def resident() -> int:
    """Bytes of memory that this process holds."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def sample(step: int, start: float) -> Sample:
    """Now. Called between two steps, so that nothing is on its way."""
    import jax

    arrays = jax.live_arrays()
    size = sum(array.nbytes for array in arrays)
    return Sample(step, time.monotonic() - start, resident(), size, len(arrays))


def train(steps: int, folder: Path, every: int) -> list[Sample]:
    """Trains the smallest config and takes a sample at each log."""
    from configs.vae import digits_conv
    from genjax import build
    from genjax.io.workdir import Workdir
    from genjax.train.loop import train
    from genjax.train.member import Member
    from genjax.train.sharding import mesh_of, select_platform

    config = digits_conv.get_config("accelerator=cpu")
    config.total = f"{steps} steps"
    config.log_every = f"{every} steps"
    config.checkpoint.every = f"{every * 5} steps"
    config.model.network.width, config.model.network.hidden, config.model.network.latent_dim = 4, 8, 2
    for name in ("eval", "samples", "reconstructions", "interpolations"):
        config.evaluators[name].every = f"{every * EVALUATED} steps"
    config.evaluators.bound.num_samples = 2
    plain = build.to_plain(config)
    select_platform(plain["accelerator"]["platform"])
    plan = build.experiment(plain)
    samples: list[Sample] = []
    start, log = time.monotonic(), Member.log

    def log_and_sample(self: Member, step: int, speed) -> dict[str, float]:
        result = log(self, step, speed)
        samples.append(sample(step, start))
        return result

    Member.log = log_and_sample
    try:
        with Workdir.open_for_training(folder, plan.config) as workdir:
            interrupt = train(plan, workdir, mesh_of(plan.config["accelerator"]))
    finally:
        Member.log = log
    if interrupt.signal is not None:
        raise SystemExit("interrupted")
    return samples


@dataclasses.dataclass(frozen=True)
class Slope:
    """Of a least-squares line: change over the whole run, relative to the mean, with its standard error."""

    change: float
    error: float


def slope(steps: np.ndarray, values: np.ndarray) -> Slope:
    """Change of ``values`` [N] over ``steps`` [N] (at least 3 of them), as a share of their mean."""
    centred = steps - steps.mean()
    spread = float((centred**2).sum())
    gradient = float((centred * values).sum()) / spread
    rest = values - values.mean() - gradient * centred
    error = np.sqrt(float((rest**2).sum()) / (len(values) - 2) / spread)
    length = float(steps[-1] - steps[0])
    return Slope(gradient * length / float(values.mean()), error * length / float(values.mean()))


def curves(samples: Sequence[Sample]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> steps [N] and values [N].

    A step's time is the median over ten logs, in one of which an evaluation falls.
    """
    steps = np.array([s.step for s in samples], float)
    each = np.diff([s.seconds for s in samples]) / np.diff(steps) * 1e3
    whole = len(each) // EVALUATED * EVALUATED
    return {
        "process memory, MB": (steps, np.array([s.resident for s in samples]) / 1e6),
        "live arrays, MB": (steps, np.array([s.device for s in samples]) / 1e6),
        "live arrays": (steps, np.array([s.arrays for s in samples], float)),
        "ms per step": (
            steps[1 : whole + 1].reshape(-1, EVALUATED)[:, -1],
            np.median(each[:whole].reshape(-1, EVALUATED), axis=1),
        ),
    }


def table(samples: Sequence[Sample]) -> str:
    """Markdown: medians of ten parts of the run, and the slopes."""
    found = curves(samples)
    lines = [f"| until step | {' | '.join(found)} |", "|---|" + "---|" * len(found)]
    last = samples[-1].step
    for part in range(PARTS):
        low, high = last * part / PARTS, last * (part + 1) / PARTS
        within = [values[(steps > low) & (steps <= high)] for steps, values in found.values()]
        cells = [f"{np.median(values):.4g}" if len(values) else "" for values in within]
        lines.append(f"| {high:,.0f} | {' | '.join(cells)} |")
    slopes = []
    for steps, values in found.values():
        late = steps > last * SKIPPED
        line = slope(steps[late], values[late])
        slopes.append(f"{line.change:+.2%} ± {line.error:.2%}")
    lines.append(f"| change over the last {1 - SKIPPED:.0%} | {' | '.join(slopes)} |")
    return "\n".join(lines)


def draw(samples: Sequence[Sample], path: Path) -> None:
    """Four panels over the steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(4, 1, figsize=(7, 7), sharex=True, layout="constrained")
    for panel, (name, (steps, values)) in zip(panels, curves(samples).items(), strict=True):
        panel.plot(steps, values, linewidth=0.8)
        panel.set_ylim(0, float(np.quantile(values, 0.995)) * 1.3)
        panel.set_ylabel(name, fontsize=8)
    panels[-1].set_xlabel("step")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200_000, help="default 200000")
    parser.add_argument("--every", type=int, default=100, help="steps from one sample to the next (default 100)")
    parser.add_argument("--output", type=Path, help="a PNG file, such as docs/results/soak.png")
    options = parser.parse_args()
    if options.steps < PARTS * EVALUATED * options.every:
        parser.error(f"--steps={options.steps}; accepted: at least {PARTS * EVALUATED} times --every={options.every}")
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        samples = train(options.steps, Path(folder) / "run", options.every)
    gc.collect()
    print(table(samples))
    print(f"threads: {threading.active_count()}; {samples[-1].seconds:.0f} s")
    if options.output:
        draw(samples, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
