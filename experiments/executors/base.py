"""What an executor is: a function that trains the runs of a sweep, each in its own work folder.

::

    def train(sweep: Sweep, queue: Queue, options: Options) -> int

It takes runs from the queue until there are none, and returns the signal that interrupted it, 0 for none. It reports
nothing else: how a run ended is in its folder, written by the training itself (``evaluation.json``, ``diverged.json``)
or, where the training could not, by ``failed`` and ``stopped`` below. Whatever trains a run trains what
``Sweep.arguments`` says, so a run begun by one executor can be continued by another, or by hand.

An executor
- leaves a run alone that fails, and goes on with the others;
- asks ``Queue.verdict`` about each running run when it may have logged something, and ends one that is called hopeless
  such that ``experiments.train`` by hand could go on with it;
- tells ``Queue.ended`` about each that does not run any more;
- passes SIGINT and SIGTERM on to what it started, so that everything is saved, and leaves at once at the second; only
  jobs of a cluster go on without it.
"""

from __future__ import annotations

import dataclasses
import re
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from experiments.sweep_folder import ENDED, Sweep, SweepRun
from genjax.io.files import read_record, write_json
from genjax.io.writer import read_metrics
from genjax.types import UserError

if TYPE_CHECKING:
    from genjax.train.plan import Experiment


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says about executors; each reads what concerns it.

    Attributes:
      jobs: at once, None for one process on this machine and every job of a cluster.
      members: of one program at most, None for as many as memory allows.
      together: whether members are one program, None for "on an accelerator".
      slurm: what its jobs are given, by submitit's names.
      wait: for the jobs of a cluster.
    """

    jobs: int | None = None
    members: int | None = None
    together: bool | None = None
    slurm: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    wait: bool = True


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Why a run is not worth going on with, found at a step."""

    reason: str
    step: int


class Queue(Protocol):
    """Where runs come from: a list, or a search that chooses the next one from what the others have reached.

    Attributes:
      adaptive: whether it is a search, of which few runs should be under way at once.
    """

    adaptive: bool

    def take(self) -> SweepRun | None:
        """A run to train now, None when there is none now: asked again after a run has ended, and at each end."""
        ...

    def plan(self, run: SweepRun) -> Experiment:
        """The checked experiment of a run that was taken."""
        ...

    def verdict(self, run: SweepRun) -> Verdict | None:
        """Whether a run that trains is hopeless."""
        ...

    def ended(self, run: SweepRun) -> None:
        """A run that was taken does not run any more; ``run.state`` says how it stands."""
        ...


class Listed:
    """The queue of runs that are known beforehand; those that have ended already are left out.

    Args:
      runs: in the order in which they are taken.
      plans: of the runs, by name; may be empty for an executor that has them trained by other processes.
    """

    adaptive = False

    def __init__(self, runs: Iterable[SweepRun], plans: Mapping[str, Experiment]):
        self.left = [run for run in runs if run.state not in ENDED]
        self._plans, self._next = plans, 0

    def take(self) -> SweepRun | None:
        self._next += 1
        return self.left[self._next - 1] if self._next <= len(self.left) else None

    def plan(self, run: SweepRun) -> Experiment:
        return self._plans[run.name]

    def verdict(self, run: SweepRun) -> Verdict | None:
        return None

    def ended(self, run: SweepRun) -> None:
        pass


def taken(queue: Queue, most: int | None) -> list[SweepRun]:
    """Up to ``most`` runs to train now, all that there are for None."""
    runs: list[SweepRun] = []
    while (most is None or len(runs) < most) and (run := queue.take()) is not None:
        runs.append(run)
    return runs


class Executor(Protocol):
    def __call__(self, sweep: Sweep, queue: Queue, options: Options) -> int: ...


def failed(run: SweepRun, reason: str, status: int) -> None:
    """Notes in the folder of a run that it could not be trained to its end.

    Args:
      reason: one line.
      status: of its process, negative for a signal that killed it.
    """
    record = {"reason": reason, "status": status, "attempts": attempts(run) + 1, "time": round(time.time(), 3)}
    write_json(run.workdir.failure, record)


def attempts(run: SweepRun) -> int:
    """How often a run has failed."""
    path = run.workdir.failure
    return read_record(path, "attempts")["attempts"] if path.exists() else 0


def stopped(run: SweepRun, verdict: Verdict) -> None:
    """Notes in the folder of a run that it was stopped early. ``experiments.train`` by hand goes on with it."""
    write_json(run.workdir.stopped, dataclasses.asdict(verdict))


def cleared(run: SweepRun) -> None:
    """Forgets the failure of a run that has gone well since."""
    run.workdir.failure.unlink(missing_ok=True)


def last_words(log: Path, offset: int, status: int) -> str:
    """Why a training failed, in one line, from what it printed behind a position and its exit status."""
    with open(log, "rb") as file:
        file.seek(offset)
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "")
    said = said.removeprefix("error: ").strip()
    if status >= 0:
        return said or f"exit status {status}"
    return f"killed by {signal.Signals(-status).name}{', out of memory?' if -status == signal.SIGKILL else ''}"


def result(run: SweepRun) -> str:
    """The last of each metric that evaluations logged, in a few words."""
    try:
        records = read_metrics(run.workdir.metrics)
    except UserError:
        return ""
    found = {name: value for record in records for name, value in record.items() if re.match(r"eval/\w+$", name)}
    return " ".join(f"{name.removeprefix('eval/')} {value:.5g}" for name, value in list(found.items())[:3])
