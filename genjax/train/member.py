"""One run among those that advance together: its work folder, its log, its checkpoints, its numbers."""

from __future__ import annotations

import functools
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from genjax import tree
from genjax.evaluators.base import Report
from genjax.families.base import TrainState
from genjax.io.checkpoint import Checkpoints
from genjax.io.files import read_record, write_json
from genjax.io.images import save_png
from genjax.io.leader import from_leader
from genjax.io.workdir import Workdir
from genjax.io.writer import Silent, Writer
from genjax.train.divergence import FLAG, HISTORY, Journal, first_flagged, reseeded
from genjax.train.evaluation import context_of, evaluate, weights_of
from genjax.train.plan import Experiment, Scheduled
from genjax.train.progress import numbers
from genjax.train.steps import Functions
from genjax.types import UserError

# Sections that change what is learnt.
HPARAMS = ("seed", "batch_size", "total", "data", "model", "optim", "divergence", "accelerator")


def checkpoints_of(plan: Experiment, workdir: Workdir, read_only: bool = False) -> Checkpoints:
    """The checkpoints of a run; the best is chosen by the metric the config names."""
    section = plan.config["checkpoint"]
    return Checkpoints(
        workdir.checkpoints,
        keep_every=plan.keep_every,
        best_metric=section["best"] or None,
        best_mode=section["mode"],
        read_only=read_only,
        config=plan.config,
    )


class Member:
    """One run: what it has counted and measured, and everything that shows or stores it.

    Args:
      plan: of this run.
      workdir: its folder, open for training.
      name: before each line it prints, empty for a run on its own.
      say: prints a line.

    Attributes:
      evaluated: whether the evaluations due at the present step are done and in the log.
      diverged: the line that says so, empty while training can go on.
      hopeless: why it is not worth going on with, empty while it is.
      setback: whether this run goes back to its last checkpoint before it advances again.
      history: the last steps, with their metrics.
    """

    def __init__(self, plan: Experiment, workdir: Workdir, name: str, say: Callable[[str], None]):
        self.plan, self.workdir, self.name = plan, workdir, name
        self.checkpoints = checkpoints_of(plan, workdir)
        self._say = say
        self._seconds = 0.0  # of this run in earlier processes
        self._begin = time.monotonic()
        self._evaluating = 0.0  # seconds of all evaluations so far
        self._sums: dict[str, float] = {}  # of the training metrics since the last log
        self._counted = 0  # steps in them
        self._writer: Writer | None = None
        self.journal = Journal(workdir.rollbacks, workdir.writes)
        self.history: deque[tuple[int, dict[str, float]]] = deque(maxlen=HISTORY)
        self.evaluated = self.setback = False
        self.diverged = self.hopeless = ""
        if name and workdir.diverged.exists():
            self.diverged = read_record(workdir.diverged, "message")["message"]

    def say(self, line: str) -> None:
        self._say(f"{self.name}: {line}" if self.name else line)

    # From the start to the end of a process.

    def resume(self, step: int, abstract: TrainState, mesh: Mesh) -> TrainState:
        """The state saved at ``step``, and what the rollbacks since made of it."""
        state, metadata = self.checkpoints.restore(step, abstract)
        self._seconds, self.evaluated = metadata["seconds"], metadata["evaluated"]
        self._evaluating = metadata.get("evaluating", 0.0)  # not in checkpoints of earlier versions
        self._sums, self._counted = metadata["sums"], metadata["counted"]
        return self.journal.resume(step, metadata.get("rollbacks", 0), state, mesh)

    def begin(self, state: TrainState, mesh: Mesh) -> TrainState:
        """The state before the first step, from which a run may also have to go on another way."""
        self._seconds, self._evaluating, self._sums, self._counted = 0.0, 0.0, {}, 0
        self.evaluated = False
        return self.journal.resume(0, 0, state, mesh)

    def open(self, step: int, state: TrainState) -> None:
        """Opens the log, without what was logged after ``step``."""
        self._begin, self.setback = time.monotonic(), False
        self.history.clear()
        if self._writer is not None:
            self._writer.close()
        writes = self.workdir.writes
        if writes:
            self.workdir.make_images()
        self._writer = Writer(self.workdir.path, resume_step=step if step else None) if writes else Silent()
        if step == 0:
            if writes and self.workdir.diverged.exists():
                self.workdir.diverged.unlink()
            texts = {"config": _markdown(self.plan.config), "parameters": tree.table(state.params)}
            self.writer.text(0, texts)

    @property
    def writer(self) -> Writer:
        assert self._writer is not None, "the log is not open"
        return self._writer

    @property
    def over(self) -> bool:
        """Whether it goes no further, short of its end."""
        return bool(self.diverged or self.hopeless)

    @property
    def halted(self) -> bool:
        """Whether it does not advance from the state that it has: it is over, or has to go back first."""
        return self.setback or self.over

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of this run so far, evaluations included."""
        return self._seconds + time.monotonic() - self._begin

    @property
    def finished(self) -> bool:
        """Whether ``finish`` has written its record; an evaluation by hand writes one too, but not this mark."""
        return self.workdir.evaluation.exists() and "finished" in read_record(self.workdir.evaluation)

    def close(self) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
        finally:
            self.checkpoints.close()

    # Training metrics.

    def read(self, step: int, metrics: Mapping[str, np.ndarray]) -> tuple[int, dict[str, float]] | None:
        """Counts the metrics ``[count]`` of the steps up to ``step``, ``FLAG`` among them.

        Returns:
          The first step at which training can't go on, with the metrics that say so; None where it can.
        """
        count = len(metrics[FLAG])
        values = {name: np.asarray(value, np.float64) for name, value in metrics.items() if name != FLAG}
        found = first_flagged(metrics, self.plan.divergence.max_grad_norm)
        good = count if found is None else found[0] + 1
        for i in range(max(0, good - HISTORY), good):
            self.history.append((step - count + i + 1, {name: float(value[i]) for name, value in values.items()}))
        if found is not None:
            return step - count + found[0] + 1, found[1]
        for name, value in values.items():  # one by one, so that the sum does not depend on how steps were grouped
            self._sums[name] = sum(value.tolist(), self._sums.get(name, 0.0))
        self._counted += count
        return None

    def diverge(self, step: int, bad: Mapping[str, float], evidence: Mapping[str, Any]) -> None:
        """Ends this run, or makes it go back, as its config says, and writes down why."""
        self.checkpoints.wait()
        rule, behind = self.plan.divergence, len(self.journal.entries)
        limit = f" (max_grad_norm is {rule.max_grad_norm:g})" if all(map(math.isfinite, bad.values())) else ""
        found = f"step {step}: {numbers(bad)}{limit}"
        if rule.policy == "rollback" and behind < rule.rollbacks:
            to, given_up = self._target()
            seed = reseeded(self.plan.config["seed"], behind + 1) if rule.reseed else evidence["seed"]
            entry = {"step": step, "to": to, "seed": seed, "rate_factor": rule.rate_factor, "reason": found}
            more = {} if given_up is None else {"given_up": given_up}
            self.journal.append({**entry, **more, "evidence": evidence})
            if given_up is not None:  # after the journal, which a run that is killed in between would miss
                from_leader(functools.partial(self.checkpoints.give_up, given_up))
            self.setback = True
            how = [f"learning rates times {rule.rate_factor:g}"] if rule.rate_factor != 1 else []
            how += [f"seed {seed}"] if rule.reseed else []
            self.say(f"{found}; rollback {behind + 1} of {rule.rollbacks} to step {to}, with {' and '.join(how)}")
            return
        latest = self.checkpoints.latest_step()
        saved = "No checkpoint was saved before" if latest is None else f"The last checkpoint is step {latest}"
        tried = f" after {behind} rollbacks" if behind else ""
        self.diverged = f"{found}; training stopped{tried}. {saved}; try a lower learning rate"
        record = {"step": step, "metrics": bad, "message": self.diverged, "evidence": evidence}
        self._record(self.workdir.diverged, record)

    def _target(self) -> tuple[int, int | None]:
        """The step to go back to, 0 for the beginning, and a newer one to be given up, if any.

        A run that diverges again before its next checkpoint may have been past saving at the last one: it goes back to
        the one before, where there is one.
        """
        newest = from_leader(lambda: self.checkpoints.resume_step(self.say)) or 0
        if self.journal.entries and self.journal.entries[-1]["to"] == newest:
            before = from_leader(lambda: self.checkpoints.step_before(newest))
            if before is not None:
                return before, newest
        return newest, None

    def log(self, step: int, speed: Mapping[str, float]) -> dict[str, float]:
        """Writes the means over the steps since the last log, with ``speed``, and returns them."""
        means = {name: value / self._counted for name, value in self._sums.items()}
        scalars = {f"train/{name}": value for name, value in means.items()}
        self.workdir.check_in_place()
        self.writer.scalars(step, scalars | {f"speed/{name}": value for name, value in speed.items()})
        self._sums, self._counted = {}, 0
        return means

    # Evaluations and checkpoints.

    def evaluate(
        self,
        step: int,
        state: TrainState,
        functions: Functions,
        mesh: Mesh,
        evaluators: list[Scheduled],
        stop: Callable[[], bool],
        logged: bool = False,
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Scalars and protocols, which are logged unless they are already. Raises Stopped when interrupted."""
        start = time.monotonic()
        report, protocols = evaluate(context_of(self.plan, functions, state, mesh, stop=stop), evaluators)
        scalars = {f"eval/{name}": value for name, value in report.scalars.items()}
        if logged:
            return scalars, protocols
        self.workdir.check_in_place()
        seconds = time.monotonic() - start
        self._evaluating += seconds
        share = self._evaluating / self.seconds
        if scalars:
            speed = {"speed/evaluation_seconds": seconds, "speed/evaluation_share": share}
            self.writer.scalars(step, scalars | speed)
            self.writer.hparams(flatten({name: self.plan.config[name] for name in HPARAMS}), scalars)
            shown = {name: value for name, value in report.scalars.items() if "/" not in name}
            self.say(
                f"evaluation at step {step}: {numbers(shown)}  ({seconds:.1f} s; evaluations {share:.0%} of the run)"
            )
        self._write_images(step, report)
        return scalars, protocols

    def check_best(self, scalars: Mapping[str, float], evaluators: Sequence[Scheduled]) -> None:
        """Raises UserError where all evaluators of the training have run and none gives ``checkpoint.best``."""
        best, during = self.plan.config["checkpoint"]["best"], [s for s in self.plan.evaluators if s.every is not None]
        if best and best not in scalars and len(evaluators) == len(during):
            given = ", ".join(sorted(scalars)) or "none, for there are only images"
            raise UserError(f"checkpoint.best={best}: no evaluation during training gives it; accepted: {given}")

    def _write_images(self, step: int, report: Report) -> None:
        if not report.images or not self.workdir.writes:
            return
        self.writer.images(step, report.images)
        try:
            for name, image in report.images.items():
                save_png(self.workdir.images / f"{name}.png", image, parents=False)
        except UserError:
            self.workdir.check_in_place()  # says more of a drive that is gone
            raise

    def save(self, step: int, state: TrainState, scalars: Mapping[str, float], replace: bool = False) -> None:
        """Starts saving ``state`` with what a continued run has to know."""
        self.workdir.check_in_place()
        self.writer.sync()
        metadata = {
            "step": step,
            "seconds": self.seconds,
            "evaluated": self.evaluated,
            "evaluating": self._evaluating,
            "sums": self._sums,
            "counted": self._counted,
            "rollbacks": len(self.journal.entries),
        }
        self.checkpoints.save(step, state, dict(scalars), metadata, replace=replace)

    def finish(
        self, state: TrainState, evaluate: Callable[..., tuple[dict[str, float], dict[str, Any]]], trained: float
    ) -> None:
        """All evaluators on the last state, the last checkpoint, and the record of results.

        Args:
          state: after the last step.
          evaluate: ``(evaluators, logged) -> (scalars, protocols)`` of this member.
          trained: seconds of training.
        """
        step = self.plan.total_steps
        scalars, protocols = evaluate([s for s in self.plan.evaluators if s.every is not None], logged=self.evaluated)
        if not self.evaluated:
            self.evaluated = True
            self.save(step, state, scalars, replace=True)
        self.checkpoints.wait()  # before the long ones, so that nothing trained can be lost
        _, more_protocols = evaluate([s for s in self.plan.evaluators if s.every is None], logged=False)
        record = evaluation_record(self.plan, state, "latest", protocols | more_protocols)
        if self.journal.entries:
            record["rollbacks"] = len(self.journal.entries)
        times = {"training_seconds": round(trained, 1), "evaluation_seconds": round(self._evaluating, 1)}
        self._record(self.workdir.evaluation, record | times | {"finished": True})

    def _record(self, path: Path, content: Mapping[str, Any]) -> None:
        if self.workdir.writes:
            self.workdir.check_in_place()
            write_json(path, content, parents=False)


def evaluation_record(
    plan: Experiment,
    state: TrainState,
    checkpoint: str,
    protocols: Mapping[str, Any],
    rebuilt: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What ``evaluation.json`` holds: each evaluator's numbers under its name, with what fixes their meaning.

    ``rebuilt`` is what ``posthoc.rebuild`` says of the averages, where they are not the stored ones.
    """
    evaluations = plan.family.evaluations
    return {
        "family": plan.family.name,
        "step": int(state.step),
        "examples_seen": int(state.step) * plan.family.examples_per_step,
        "checkpoint": checkpoint,
        "weights": weights_of(state, rebuilt),
        **({} if rebuilt is None else {"ema": dict(rebuilt)}),
        **({} if evaluations is None else {"evaluations_per_sample": evaluations}),
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
