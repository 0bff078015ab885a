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
from genjax.evaluators.base import Report, Stopped
from genjax.families.base import TrainState
from genjax.io.checkpoint import Checkpoints
from genjax.io.images import save_png
from genjax.io.workdir import Workdir, read_json, write_json
from genjax.io.writer import Writer
from genjax.train.evaluation import context_of, evaluate
from genjax.train.feed import make_feed
from genjax.train.interrupt import Interrupt
from genjax.train.plan import Experiment, Scheduled, calls
from genjax.train.progress import Progress, clock, numbers
from genjax.train.steps import Trainer, compile_functions
from genjax.types import Metrics

_HPARAMS = ("seed", "batch_size", "total", "data", "model", "optim")  # sections that change what is learnt


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
        self.sums: dict[str, float] = {}  # of the training metrics since the last log
        self.counted = self.timed = 0  # steps in them, and those of this process whose time counts
        self.evaluated = False  # whether the evaluations due at this step are done and in the log
        self.state, self.step = self._start()
        self.first_step = self.step
        self.begin = self.window_begin = time.monotonic()
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
        self.seconds, self.evaluated = metadata["seconds"], metadata["evaluated"]
        self.sums, self.counted = metadata["sums"], metadata["counted"]
        print(f"continuing from step {latest} of {self.plan.total_steps}", flush=True)
        return state, latest

    def run(self) -> None:
        if self.step >= self.plan.total_steps and self._finished():
            self.progress.say(f"this run is finished: step {self.step} of {self.plan.total_steps}")
            return
        self._describe()
        if 0 < self.step < self.plan.total_steps and not self.evaluated:
            self._due()
        for _, count in self._calls():
            if self.interrupt.signal is not None:
                break
            self._advance(count)
        self._read_pending()
        if self.interrupt.signal is None:
            try:
                self._finish()
            except Stopped:
                pass  # what the interruption was for
        if self.interrupt.signal is not None and not self._finished():
            self._save({})
            self.checkpoints.wait()
            self.progress.say(
                f"interrupted by {self.interrupt.signal.name}: saved step {self.step} of {self.plan.total_steps}; "
                "the same command continues from there"
            )

    def _finished(self) -> bool:
        """Whether ``_finish`` has written its record; an evaluation by hand writes one too, but not this mark."""
        return self.workdir.evaluation.exists() and "finished" in read_json(self.workdir.evaluation)

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
        self.evaluated = False
        self.timed += 0 if first else count
        if self.step % self.plan.log_every == 0:
            self._log()
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
                f"{self._last_checkpoint()}; try a lower learning rate"
            )
        for name, value in values.items():  # one by one, so that the sum does not depend on how steps were grouped
            self.sums[name] = sum(value.tolist(), self.sums.get(name, 0.0))
        self.counted += count

    def _last_checkpoint(self) -> str:
        self.checkpoints.wait()
        latest = self.checkpoints.latest_step()
        return "No checkpoint was saved before" if latest is None else f"The last checkpoint is step {latest}"

    def _log(self) -> None:
        """Writes the means over the steps since the last log."""
        self._read_pending()
        means = {name: value / self.counted for name, value in self.sums.items()}
        seconds = max(time.monotonic() - self.window_begin, 1e-9)
        scalars = {f"train/{name}": value for name, value in means.items()}
        rate = self.timed / seconds
        if self.timed:
            scalars["speed/images_per_second"] = rate * self.plan.family.examples_per_step
            scalars["speed/milliseconds_per_step"] = 1000.0 / rate
            left = (self.plan.total_steps - self.step) / rate
            headline = {name: means[name] for name in self.plan.family.headline}
            self.progress.update(self.step, scalars["speed/images_per_second"], left, headline)
        self.writer.scalars(self.step, scalars)
        self.sums, self.counted, self.timed = {}, 0, 0
        self.window_begin = time.monotonic()

    def _due(self) -> None:
        """Evaluations and checkpoints of this step; their time does not count as training speed.

        When the evaluations are interrupted, ``run`` saves the state and the next process begins with them.
        """
        start = time.monotonic()
        done = self.step == self.plan.total_steps
        due = [s for s in self.plan.evaluators if s.every is not None and self.step % s.every == 0]
        scalars: dict[str, float] = {}
        if due and not done:  # at the end every evaluator runs, in _finish
            try:
                scalars, _ = self._evaluate(due)
            except Stopped:
                return
        self.evaluated = not done
        again = self.step == self.first_step  # the state is saved, without these evaluations
        best_seen = self.plan.config["checkpoint"]["best"] in scalars
        if not done and (best_seen or again or self.step % self.plan.checkpoint_every == 0):
            self._read_pending()  # a state whose metrics are not finite must not be saved
            self._save(scalars, replace=again)
        self.window_begin += time.monotonic() - start

    def _evaluate(self, evaluators: list[Scheduled], logged: bool = False) -> tuple[dict[str, float], dict[str, Any]]:
        """Scalars and protocols, which are logged unless they are already. Raises Stopped when interrupted."""
        self._read_pending()
        start = time.monotonic()
        interrupted = lambda: self.interrupt.signal is not None  # noqa: E731
        context = context_of(self.plan, self.functions, self.state, self.mesh, stop=interrupted)
        report, protocols = evaluate(context, evaluators)
        scalars = {f"eval/{name}": value for name, value in report.scalars.items()}
        if logged:
            return scalars, protocols
        if scalars:
            self.writer.scalars(self.step, {**scalars, "speed/evaluation_seconds": time.monotonic() - start})
            if not self.described:
                chosen = {name: self.plan.config[name] for name in _HPARAMS}
                self.writer.hparams(flatten(chosen), scalars)
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

    def _save(self, scalars: Mapping[str, float], replace: bool = False) -> None:
        metadata = {
            "step": self.step,
            "seconds": self.seconds + time.monotonic() - self.begin,
            "evaluated": self.evaluated,
            "sums": self.sums,
            "counted": self.counted,
        }
        self.checkpoints.save(self.step, self.state, dict(scalars), metadata, replace=replace)

    def _finish(self) -> None:
        """All evaluators on the last state, the last checkpoint, and the record of results."""
        trained = self.seconds + time.monotonic() - self.begin
        periodic = [s for s in self.plan.evaluators if s.every is not None]
        scalars, protocols = self._evaluate(periodic, logged=self.evaluated)
        if not self.evaluated:
            self.evaluated = True
            self._save(scalars, replace=True)
        self.checkpoints.wait()  # before the long ones, so that nothing trained can be lost
        _, more_protocols = self._evaluate([s for s in self.plan.evaluators if s.every is None])
        record = evaluation_record(self.plan, self.state, "latest", protocols | more_protocols)
        write_json(self.workdir.evaluation, record | {"training_seconds": round(trained, 1), "finished": True})
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
