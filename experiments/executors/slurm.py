"""Trains runs as jobs of Slurm: one array of jobs, submitted through submitit, one job for each run.

What a job does is in ``slurm_task``, how jobs are submitted and found again in ``slurm_jobs``. This process only waits,
and may be ended: the same command again waits for the jobs that are in the queue and submits those that are not.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from types import FrameType

from experiments.executors.base import Options, Queue, attempts, failed, result
from experiments.executors.slurm_jobs import FOLDER, Jobs, Unanswered, ending, in_queue
from experiments.sweep_folder import ENDED, Sweep, SweepRun
from genjax.train.signals import Handled
from genjax.types import UserError

_ASK = 3.0  # seconds between two looks at the queue
_PATIENCE = 3  # looks after which a job that is not in the queue is gone: its files may come late


def train(sweep: Sweep, queue: Queue, options: Options) -> int:
    """An ``Executor``: a job for each run. With ``options.wait`` it returns when all have ended."""
    jobs = Jobs(sweep)
    try:
        jobs.recover()
        there = in_queue()
    except Unanswered as error:
        raise UserError(f"Slurm does not answer: {error}") from error
    runs = [run for run in queue.everything() if run.state not in ENDED]
    new = [run for run in runs if run.name not in jobs.ids or jobs.ids[run.name] not in there]
    with _Interrupt() as interrupt:
        if len(new) < len(runs):
            print(f"{len(runs) - len(new)} runs have jobs in the queue already", flush=True)
        if new:
            array = jobs.submit(new, options.slurm, options.jobs)
            print(f"{len(new)} runs submitted as job {array}; squeue --me shows how they stand", flush=True)
        if options.wait:
            _wait(runs, jobs, queue, interrupt)
    return interrupt.signal or 0


def _wait(runs: Sequence[SweepRun], jobs: Jobs, queue: Queue, interrupt: _Interrupt) -> None:
    """Says when runs start and end, and notes why one could not be trained where its job did not."""
    waiting = [_Waiting(run, jobs.ids[run.name], jobs.failed_before(run)) for run in runs]
    answered = True
    while waiting and not interrupt.waited(_ASK):
        try:
            there = in_queue()
            answered = True
        except Unanswered as error:
            if answered and not interrupt.signal:
                print(f"Slurm does not answer, asking again: {error}", flush=True)
            answered = False
            continue
        for one in list(waiting):
            state, _ = there.get(one.job, ("", ""))
            if one.over(state):
                waiting.remove(one)
                queue.ended(one.run)
    if waiting:
        numbers = " ".join(one.job for one in waiting)
        print(f"{len(waiting)} jobs go on; the same command waits for them, and this ends them: scancel {numbers}")


class _Waiting:
    """A run whose job waits or runs.

    Args:
      job: its number.
      failures: how often the run had failed before.
    """

    def __init__(self, run: SweepRun, job: str, failures: int):
        self.run, self.job = run, job
        self._failures, self._state, self._began, self._missed = failures, "", 0.0, 0
        self._how = "starts" if run.state == "new" else "continues"

    def over(self, state: str) -> bool:
        """Takes what the queue says of the job, empty where it is not there, and says whether the run has ended."""
        if self.run.state not in ENDED and (state or self._missed < _PATIENCE):
            self._missed = 0 if state else self._missed + 1
            self._say(state)
            return False
        if self.run.state not in ENDED and not self._has_failed():
            failed(self.run, f"{ending(self.job)}; see {self.run.folder / FOLDER}", 1)
        seconds = f" after {time.monotonic() - self._began:.0f} s" if self._began else ""
        print(f"{self.run.name}: {self.run.state}{seconds} {self.run.reason or result(self.run)}".strip(), flush=True)
        return True

    def _has_failed(self) -> bool:
        """Whether the training has said itself why it failed."""
        return attempts(self.run) > self._failures

    def _say(self, state: str) -> None:
        if state == "RUNNING" != self._state:
            self._began = time.monotonic()
            print(f"{self.run.name}: {self._how} as job {self.job}, see {self.run.log}", flush=True)
        elif state == "PENDING" and self._began:
            self._began, self._how = 0.0, "continues"
            print(f"{self.run.name}: job {self.job} was requeued", flush=True)
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
