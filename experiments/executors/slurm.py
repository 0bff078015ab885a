"""Trains runs as jobs of Slurm: arrays of jobs, submitted through submitit, one job for each run.

What a job does is in ``slurm_task``, how jobs are submitted and found again in ``slurm_jobs``. A list of runs is one
array; a search submits the next run when one has ended. This process only waits, and may be ended: the same command
again waits for the jobs that are in the queue and submits those that are not.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from types import FrameType

from experiments.executors.base import Options, Queue, Verdict, attempts, failed, result, stopped, taken
from experiments.executors.slurm_jobs import FOLDER, Answer, Jobs, Unanswered, cancel, ending, in_queue
from experiments.sweep_folder import ENDED, Sweep, SweepRun
from genjax.train.signals import Handled
from genjax.types import UserError

_ASK = 3.0  # seconds between two looks at the queue
_BATCH = 4  # runs of a search at once, unless the command line says how many
_PATIENCE = 3  # looks after which a job that is not in the queue is gone: its files may come late


def train(sweep: Sweep, queue: Queue, options: Options) -> int:
    """An ``Executor``: a job for each run. With ``options.wait`` it returns when all have ended."""
    jobs = Jobs(sweep)
    try:
        jobs.recover()
        watch = _Watch(queue, in_queue())
    except Unanswered as error:
        raise UserError(f"Slurm does not answer: {error}") from error
    most = (options.jobs or _BATCH) if queue.adaptive else None  # of a list, Slurm holds back what is too much at once
    with _Interrupt() as interrupt:
        while True:
            runs = taken(queue, None if most is None else most - len(watch.jobs))
            watch.jobs += _begun(runs, jobs, watch.there, options)
            if not options.wait or not watch.jobs or interrupt.waited(_ASK):
                break
            watch.look()
    if options.wait and watch.jobs:
        numbers = " ".join(one.number for one in watch.jobs)
        print(f"{len(watch.jobs)} jobs go on; the same command waits for them, and this ends them: scancel {numbers}")
    return interrupt.signal or 0


def _begun(runs: Sequence[SweepRun], jobs: Jobs, there: Answer, options: Options) -> list[_Job]:
    """Submits the runs that have no job in the queue, and gives the jobs of all."""
    new = [run for run in runs if run.name not in jobs.ids or jobs.ids[run.name] not in there]
    if len(new) < len(runs):
        print(f"{len(runs) - len(new)} runs have jobs in the queue already", flush=True)
    if new:
        array = jobs.submit(new, options.slurm, options.jobs)
        print(f"{len(new)} runs submitted as job {array}; squeue --me shows how they stand", flush=True)
    return [_Job(run, jobs.ids[run.name], jobs.failed_before(run)) for run in runs]


class _Watch:
    """Says when runs start and end, and ends those that are hopeless.

    Attributes:
      there: what is in Slurm's queue, when it answered last.
      jobs: that are waited for.
    """

    def __init__(self, queue: Queue, there: Answer):
        self.there = there
        self.jobs: list[_Job] = []
        self._queue, self._answers = queue, True

    def look(self) -> None:
        """Asks Slurm how the jobs stand."""
        try:
            self.there = in_queue()
            self._answers = True
        except Unanswered as error:
            if self._answers:
                print(f"Slurm does not answer, asking again: {error}", flush=True)
            self._answers = False
            return
        for one in list(self.jobs):
            state, _ = self.there.get(one.number, ("", ""))
            if one.over(state):
                self.jobs.remove(one)
                self._queue.ended(one.run)
            else:
                one.judge(self._queue)


class _Job:
    """A run whose job waits or runs.

    Args:
      number: of the job.
      failures: how often the run had failed before.
    """

    def __init__(self, run: SweepRun, number: str, failures: int):
        self.run, self.number = run, number
        self._failures, self._state, self._began, self._missed = failures, "", 0.0, 0
        self._how = "starts" if run.state == "new" else "continues"
        self._verdict: Verdict | None = None
        self._cancelled = False

    def over(self, state: str) -> bool:
        """Takes what the queue says of the job, empty where it is not there, and says whether the run has ended.

        It notes why a run could not be trained where the job did not.
        """
        if self.run.state not in ENDED and (state or self._missed < _PATIENCE):
            self._missed = 0 if state else self._missed + 1
            self._say(state)
            return False
        if self.run.state not in ENDED and self._verdict is not None:
            stopped(self.run, self._verdict)
        elif self.run.state not in ENDED and not self._has_failed():
            failed(self.run, f"{ending(self.number)}; see {self.run.folder / FOLDER}", 1)
        seconds = f" after {time.monotonic() - self._began:.0f} s" if self._began else ""
        print(f"{self.run.name}: {self.run.state}{seconds} {self.run.reason or result(self.run)}".strip(), flush=True)
        return True

    def judge(self, queue: Queue) -> None:
        """Has the job save and leave where its run is hopeless."""
        self._verdict = self._verdict or queue.verdict(self.run)
        if self._verdict is not None and not self._cancelled:
            self._cancelled = cancel(self.number)

    def _has_failed(self) -> bool:
        """Whether the training has said itself why it failed."""
        return attempts(self.run) > self._failures

    def _say(self, state: str) -> None:
        if state == "RUNNING" != self._state:
            self._began = time.monotonic()
            print(f"{self.run.name}: {self._how} as job {self.number}, see {self.run.log}", flush=True)
        elif state == "PENDING" and self._began:
            self._began, self._how = 0.0, "continues"
            print(f"{self.run.name}: job {self.number} was requeued", flush=True)
        self._state = state


class _Interrupt(Handled):
    """While entered, the first SIGINT or SIGTERM is noted in ``signal``; the second ends the process."""

    def __init__(self):
        super().__init__()
        self.signal: int | None = None

    def waited(self, seconds: float) -> bool:
        """Waits, less long where a signal arrives; whether one has."""
        until = time.monotonic() + seconds
        while self.signal is None and time.monotonic() < until:
            time.sleep(0.1)
        return self.signal is not None

    def arrived(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, signal.SIG_DFL)
