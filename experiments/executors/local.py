"""Trains runs as processes on this machine, some at once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from types import FrameType

from experiments import cli
from experiments.executors.base import Options, Queue, Verdict, cleared, failed, last_words, result, stopped
from experiments.sweep_folder import Sweep, SweepRun
from genjax.train.signals import Handled

_POLL = 0.1  # seconds


class _Job:
    """A run and its process."""

    def __init__(self, sweep: Sweep, run: SweepRun, environment: dict[str, str]):
        self.run, self.began = run, time.monotonic()
        self.verdict: Verdict | None = None
        command = [*_tied(), sys.executable, "-u", "-m", "experiments.train", *sweep.arguments(run)]
        run.log.parent.mkdir(parents=True, exist_ok=True)
        self._offset = run.log.stat().st_size if run.log.exists() else 0
        with open(run.log, "ab") as log:
            # A session of its own: a Ctrl-C in the terminal reaches it through this process alone, and once.
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
            )

    def settle(self, interrupted: bool) -> str:
        """Notes how the process ended, and says it in a line."""
        status = self.process.returncode
        if status in (0, cli.DIVERGED):
            cleared(self.run)
        elif self.verdict is not None:
            stopped(self.run, self.verdict)
        elif not interrupted:
            failed(self.run, last_words(self.run.log, self._offset, status), status)
        state = "interrupted" if self.run.state in ("begun", "new") else self.run.state
        return f"{state} after {time.monotonic() - self.began:.0f} s {self.run.reason or result(self.run)}".strip()


def train(sweep: Sweep, queue: Queue, options: Options) -> int:
    """An ``Executor``: ``options.jobs`` processes of ``experiments.train`` at once."""
    environment = dict(os.environ)
    at_once = options.jobs or 1
    if at_once > 1:  # XLA would give the first process most of a GPU's memory
        environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 / at_once:.3f}")
    jobs: list[_Job] = []
    with _PassedOn(jobs) as interrupt:
        while True:
            while len(jobs) < at_once and interrupt.signal is None and (run := queue.take()) is not None:
                print(f"{run.name}: {'continues' if run.state != 'new' else 'starts'}, see {run.log}", flush=True)
                interrupt.add(_Job(sweep, run, environment))
            if not jobs:
                return interrupt.signal or 0
            time.sleep(_POLL)
            for job in list(jobs):
                if job.process.poll() is not None:
                    jobs.remove(job)
                    print(f"{job.run.name}: {job.settle(interrupt.signal is not None)}", flush=True)
                    queue.ended(job.run)
                elif job.verdict is None and (verdict := queue.verdict(job.run)) is not None:
                    job.verdict = verdict
                    job.process.send_signal(signal.SIGTERM)


def _tied() -> list[str]:
    """Before a command: it is asked to save and leave when this process ends without a word, as by kill -9 (Linux)."""
    return ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


class _PassedOn(Handled):
    """While entered, SIGINT and SIGTERM go to all jobs; the second one ends this process too.

    Attributes:
      signal: the first that arrived, or None.
    """

    def __init__(self, jobs: list[_Job]):
        super().__init__()
        self.signal: int | None = None
        self._jobs = jobs

    def add(self, job: _Job) -> None:
        """Takes a job into the list; a signal that arrived while it was being started goes to it too."""
        held = signal.pthread_sigmask(signal.SIG_BLOCK, self._before)
        self._jobs.append(job)
        if self.signal is not None:
            job.process.send_signal(self.signal)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def arrived(self, number: int, frame: FrameType | None) -> None:
        again = self.signal is not None
        self.signal = self.signal or number
        for job in self._jobs:
            job.process.send_signal(number)  # nothing where the process has ended
        if again:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        print(f"{signal.Signals(number).name}: {len(self._jobs)} runs save and leave", flush=True)
