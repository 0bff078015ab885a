"""What an executor is: a function that trains the runs of a sweep, each in its own work folder.

::

    def train(sweep: Sweep, queue: Queue, options: Options) -> int

It takes runs from the queue until there are none, and returns the signal that interrupted it, 0 for none. It reports
nothing else: how a run ended is in its folder, written by the training itself (``evaluation.json``, ``diverged.json``)
or, where the training could not, by ``failed`` and ``stopped`` below. Whatever trains a run trains what
``Sweep.arguments`` says, so a run begun by one executor can be continued by another, or by hand.

An executor
- leaves a run alone that fails, and goes on with the others;
- asks ``Queue.verdict`` about each running run every second or so, and interrupts one that it calls hopeless;
- tells ``Queue.ended`` about each that does not run any more;
- passes SIGINT and SIGTERM on to what it started, so that everything is saved, and leaves at once at the second.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from experiments.sweep_folder import ENDED, Sweep, SweepRun
from genjax.io.files import read_json, write_json

if TYPE_CHECKING:
    from genjax.train.plan import Experiment


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says about executors; each reads what concerns it.

    Attributes:
      plans: the checked experiment of each run that is known beforehand, by name.
      jobs: processes at once.
      members: of one program at most, None for as many as memory allows.
      together: whether members are one program, None for "on an accelerator".
    """

    plans: Mapping[str, Experiment]
    jobs: int = 1
    members: int | None = None
    together: bool | None = None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Why a run is not worth going on with, found at a step."""

    reason: str
    step: int


class Queue(Protocol):
    """Where runs come from: a list, or a search that chooses the next one from what the others have reached."""

    def take(self) -> SweepRun | None:
        """A run to train now, None when there is none now: asked again after a run has ended, and at each end."""
        ...

    def everything(self) -> Sequence[SweepRun]:
        """All runs, for executors that start them together.

        Raises:
          UserError: they are not known beforehand.
        """
        ...

    def verdict(self, run: SweepRun) -> Verdict | None:
        """Whether a run that trains is hopeless."""
        ...

    def ended(self, run: SweepRun) -> None:
        """A run that was taken does not run any more; ``run.state`` says how it stands."""
        ...


class Listed:
    """The queue of runs that are known beforehand; those that have ended already are left out."""

    def __init__(self, runs: Iterable[SweepRun]):
        self._runs = [run for run in runs if run.state not in ENDED]
        self._next = 0

    def take(self) -> SweepRun | None:
        self._next += 1
        return self._runs[self._next - 1] if self._next <= len(self._runs) else None

    def everything(self) -> Sequence[SweepRun]:
        return self._runs

    def verdict(self, run: SweepRun) -> Verdict | None:
        return None

    def ended(self, run: SweepRun) -> None:
        pass


class Executor(Protocol):
    def __call__(self, sweep: Sweep, queue: Queue, options: Options) -> int: ...


def failed(run: SweepRun, reason: str, status: int) -> None:
    """Notes in the folder of a run that it could not be trained to its end.

    Args:
      reason: one line.
      status: of its process, negative for a signal that killed it.
    """
    path = run.workdir.failure
    attempts = read_json(path)["attempts"] if path.exists() else 0
    record = {"reason": reason, "status": status, "attempts": attempts + 1, "time": round(time.time(), 3)}
    write_json(path, record)


def stopped(run: SweepRun, verdict: Verdict) -> None:
    """Notes in the folder of a run that it was stopped early. ``experiments.train`` by hand goes on with it."""
    write_json(run.workdir.stopped, dataclasses.asdict(verdict))


def cleared(run: SweepRun) -> None:
    """Forgets the failure of a run that has gone well since."""
    run.workdir.failure.unlink(missing_ok=True)
