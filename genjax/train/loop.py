"""The order of operations of a training run."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from genjax import tree
from genjax.evaluators.base import Report
from genjax.families.base import TrainState
from genjax.io.checkpoint import Checkpoints
from genjax.io.images import save_png
from genjax.io.workdir import Workdir, write_json
from genjax.io.writer import Writer
from genjax.train.evaluation import context_of, evaluate
from genjax.train.feed import make_feed
from genjax.train.interrupt import Interrupt
from genjax.train.plan import Experiment, Scheduled, calls
from genjax.train.progress import Progress, clock, numbers
from genjax.train.steps import Trainer, compile_functions
from genjax.types import Metrics


class DivergedError(Exception):
    """A training metric is not finite; the message names it and the step."""


def checkpoints_of(plan: Experiment, workdir: Workdir, read_only: bool = False) -> Checkpoints:
    """The checkpoints of a run; the best is chosen by the metric the config names."""
    section = plan.config["checkpoint"]
    return Checkpoints(
        workdir.checkpoints, best_metric=section["best"] or None, best_mode=section["mode"], read_only=read_only
    )


def train(plan: Experiment, workdir: Workdir, mesh: Mesh) -> Interrupt:
    """Trains to the end or to an interruption, continuing from the latest checkpoint in ``workdir``.

    Returns:
      The interruption, whose ``signal`` is None when the run is finished.

    Raises:
      DivergedError: a metric became NaN or infinite; checkpoints from before are kept.
      UserError: a checkpoint does not fit or an image can't be read.
    """
    with Interrupt() as interrupt, checkpoints_of(plan, workdir) as checkpoints:
        loop = _Loop(plan, workdir, mesh, checkpoints, interrupt)
        try:
            loop.run()
        finally:
            loop.close()
    return interrupt


class _Loop:
    """One run: the state, and everything around it that counts, shows and stores."""

    def __init__(self, plan: Experiment, workdir: Workdir, mesh: Mesh, checkpoints: Checkpoints, interrupt: Interrupt):
        self.plan, self.workdir, self.mesh = plan, workdir, mesh
        self.checkpoints, self.interrupt = checkpoints, interrupt
        self.trainer = Trainer(plan.family, mesh, len(plan.train), plan.augment)
        self.functions = compile_functions(plan.family)
        self.seconds = 0.0  # of this run in earlier processes
        self.state, self.step = self._start()
        self.first_step = self.step
        self.begin = self.window_begin = time.monotonic()
        self.window: list[dict[str, np.ndarray]] = []
        self.pending: tuple[int, Metrics] | None = None
        config = plan.config
        self.cadences = plan.cadences()
        self.per_call = config["accelerator"]["steps_per_call"]
        self.feed = make_feed(
            self.trainer, plan.train, self._calls(), config["seed"], config["accelerator"]["prefetch"]
        )
        self.writer = Writer(workdir.path, resume_step=self.step if self.step else None)
        self.progress = Progress(plan.total_steps, self.step)
        self.described = False  # whether TensorBoard's HParams table has this run

    def _calls(self):
        return calls(self.step, self.plan.total_steps, self.per_call, self.cadences)

    def _start(self) -> tuple[TrainState, int]:
        example = self.plan.train.gather(np.zeros(1, np.int64))
        latest = self.checkpoints.latest_step()
        if latest is None:
            return self.trainer.init(self.plan.config["seed"], example), 0
        state, metadata = self.checkpoints.restore(latest, self.trainer.abstract_state(example))
        self.seconds = metadata["seconds"]
        print(f"continuing from step {latest} of {self.plan.total_steps}", flush=True)
        return state, latest

    def run(self) -> None:
        if self.step >= self.plan.total_steps and self.workdir.evaluation.exists():
            self.progress.say(f"this run is finished: step {self.step} of {self.plan.total_steps}")
            return
        self._describe()
        for _, count in self._calls():
            if self.interrupt.signal is not None:
                break
            self._advance(count)
        self._read_pending()
        if self.interrupt.signal is None:
            self._finish()
        if self.interrupt.signal is not None:
            self._save({})
            self.checkpoints.wait()
            self.progress.say(
                f"interrupted by {self.interrupt.signal.name}: saved step {self.step} of {self.plan.total_steps}; "
                "the same command continues from there"
            )

    def close(self) -> None:
        self.progress.close()
        self.feed.close()
        self.writer.close()

    def _describe(self) -> None:
        sizes = {name: tree.size(params) for name, params in self.state.params.items()}
        parameters = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        self.progress.say(f"{self.plan.family.name} on {self.plan.train.name}: parameters {parameters}")
        if self.step == 0:
            self.writer.text(0, {"config": _markdown(self.plan.config), "parameters": tree.table(self.state.params)})

    def _advance(self, count: int) -> None:
        """One compiled call, then what is due; the metrics of the call before are read while this one runs."""
        start = time.monotonic()
        self.state, metrics = self.feed.run(self.state, count)
        first = self.step == self.first_step
        if first:
            jax.block_until_ready(metrics)
            self.progress.say(f"first step after {time.monotonic() - start:.1f} s, compilation included")
            self.window_begin = time.monotonic()
        self.step += count
        self._read_pending()
        self.pending = (self.step, metrics)
        if self.step % self.plan.log_every == 0:
            self._log(skipped=count if first else 0)
        self._due()

    def _read_pending(self) -> None:
        """Brings the last call's metrics to the host and stops the run at the first one that is not finite."""
        if self.pending is None:
            return
        (step, metrics), self.pending = self.pending, None
        values = {name: np.asarray(value, np.float64) for name, value in metrics.items()}
        count = len(next(iter(values.values())))
        bad = {name: value for name, value in values.items() if not np.isfinite(value).all()}
        if bad:
            at = {name: int(np.flatnonzero(~np.isfinite(value))[0]) for name, value in bad.items()}
            first = min(at.values())
            named = {name: value[first] for name, value in bad.items() if at[name] == first}
            raise DivergedError(
                f"step {step - count + first + 1}: {numbers(named)}; training stopped. "
                f"The last checkpoint is step {self.checkpoints.latest_step()}; try a lower learning rate"
            )
        self.window.append(values)

    def _log(self, skipped: int) -> None:
        """Writes the means over the steps since the last log."""
        self._read_pending()
        means = {name: float(np.mean(np.concatenate([w[name] for w in self.window]))) for name in self.window[0]}
        steps = sum(len(next(iter(w.values()))) for w in self.window) - skipped
        seconds = max(time.monotonic() - self.window_begin, 1e-9)
        scalars = {f"train/{name}": value for name, value in means.items()}
        rate = steps / seconds
        if steps:
            scalars["speed/images_per_second"] = rate * self.plan.family.examples_per_step
            scalars["speed/milliseconds_per_step"] = 1000.0 / rate
            left = (self.plan.total_steps - self.step) / rate
            headline = {name: means[name] for name in self.plan.family.headline}
            self.progress.update(self.step, scalars["speed/images_per_second"], left, headline)
        self.writer.scalars(self.step, scalars)
        self.window, self.window_begin = [], time.monotonic()

    def _due(self) -> None:
        """Evaluations and checkpoints of this step; their time does not count as training speed."""
        start = time.monotonic()
        done = self.step == self.plan.total_steps
        due = [s for s in self.plan.evaluators if s.every is not None and self.step % s.every == 0]
        scalars: dict[str, float] = {}
        if due and not done:  # at the end every evaluator runs, in _finish
            scalars, _ = self._evaluate(due)
        best_seen = self.plan.config["checkpoint"]["best"] in scalars
        if not done and (best_seen or self.step % self.plan.checkpoint_every == 0):
            self._read_pending()  # a state whose metrics are not finite must not be saved
            self._save(scalars)
        self.window_begin += time.monotonic() - start

    def _evaluate(self, evaluators: list[Scheduled]) -> tuple[dict[str, float], dict[str, Any]]:
        self._read_pending()
        start = time.monotonic()
        interrupted = lambda: self.interrupt.signal is not None  # noqa: E731
        context = context_of(self.plan, self.functions, self.state, self.mesh, stop=interrupted)
        report, protocols = evaluate(context, evaluators)
        scalars = {f"eval/{name}": value for name, value in report.scalars.items()}
        if scalars:
            self.writer.scalars(self.step, {**scalars, "speed/evaluation_seconds": time.monotonic() - start})
            if not self.described:
                self.writer.hparams(flatten(self.plan.config), scalars)
                self.described = True
            shown = {name: value for name, value in report.scalars.items() if "/" not in name}
            self.progress.say(f"evaluation at step {self.step}: {numbers(shown)}")
        self._write_images(report)
        return scalars, protocols

    def _write_images(self, report: Report) -> None:
        if report.images:
            self.writer.images(self.step, report.images)
        for name, image in report.images.items():
            save_png(self.workdir.images / f"{name}.png", image)

    def _save(self, scalars: Mapping[str, float]) -> None:
        metadata = {"seconds": self.seconds + time.monotonic() - self.begin, "step": self.step}
        self.checkpoints.save(self.step, self.state, dict(scalars), metadata)

    def _finish(self) -> None:
        """All evaluators on the last state, the last checkpoint, and the record of results."""
        trained = self.seconds + time.monotonic() - self.begin
        scalars, protocols = self._evaluate([s for s in self.plan.evaluators if s.every is not None])
        self._save(scalars)
        self.checkpoints.wait()  # before the long ones, so that nothing trained can be lost
        _, more_protocols = self._evaluate([s for s in self.plan.evaluators if s.every is None])
        if self.interrupt.signal is not None:
            return
        record = evaluation_record(self.plan, self.state, "latest", protocols | more_protocols)
        write_json(self.workdir.evaluation, record | {"training_seconds": round(trained, 1)})
        self.progress.say(f"finished {self.plan.total_steps} steps in {clock(trained)}")


def evaluation_record(
    plan: Experiment, state: TrainState, checkpoint: str, protocols: Mapping[str, Any]
) -> dict[str, Any]:
    """What ``evaluation.json`` holds: each evaluator's numbers under its name, with what fixes their meaning."""
    return {
        "family": plan.family.name,
        "step": int(state.step),
        "checkpoint": checkpoint,
        "weights": "averaged" if state.ema else "last",
        "evaluators": dict(protocols),
    }


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"optim.learning_rate": 0.001, ...}``, with anything that is no number, string or bool as a string."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            plain = isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))
            flat[f"{prefix}{name}"] = value if plain else str(value)
    return flat


def _markdown(config: Mapping[str, Any]) -> str:
    rows = [f"| {name} | {value} |" for name, value in flatten(config).items()]
    return "\n".join(["| setting | value |", "|---|---|", *rows])
