"""What a job of Slurm does: it trains one run, and goes back into the queue when its place is taken away.

Slurm sends a job SIGTERM when it is cancelled, requeued or preempted, and SIGUSR2 (``#SBATCH --signal``, submitit's
choice) before its time is over. Both reach every process of the job, also the training, where a second signal means
"leave at once". So the training is started with them blocked, and asked once, by SIGINT, to save and leave.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from experiments import cli
from experiments.executors.base import cleared, failed, last_words
from experiments.sweep_folder import SweepRun

_LEFT = (128 + signal.SIGINT, -signal.SIGINT)  # how a training ends that was asked to leave: later, or while it began


class Task:
    """The work of one job, or of one of the tasks of a job whose processes train one run together.

    What submitit stores of it is strings only.

    Args:
      command: that trains the run.
      folder: of the sweep.
      name: of the run.
    """

    def __init__(self, command: Sequence[str], folder: str, name: str):
        self.command, self.folder, self.name = list(command), folder, name

    def __call__(self) -> None:
        """Trains. The first task of a job writes down how that ended, and has the job requeued."""
        from submitit import JobEnvironment

        run = SweepRun(self.name, {}, Path(self.folder))
        first = os.environ.get("SLURM_PROCID", "0") == "0"
        preempted = signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]
        requeue: Any = signal.getsignal(preempted)  # submitit's handler, for when everything is saved
        with open(run.log, "ab") as log:
            offset = log.tell()
            status, arrived = _trained(self.command, log, preempted)
        if status in (0, cli.DIVERGED):
            if first:
                cleared(run)
        elif not arrived or status not in _LEFT:
            if first:
                failed(run, last_words(run.log, offset, status), status)
            sys.exit(status if status > 0 else 128 - status)
        elif first:
            if preempted in arrived or _still_running():
                requeue(preempted, None)
            sys.exit(128 + arrived[0])

    def checkpoint(self) -> Any:
        """What a requeued job does, for submitit: the same, since the run's checkpoints are in its folder."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _trained(command: Sequence[str], log: Any, preempted: signal.Signals) -> tuple[int, list[int]]:
    """The exit status of the training, negative for a signal that killed it, and the signals that the job was sent."""
    arrived: list[int] = []
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, preempted})  # the training inherits it
    process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def passed_on(number: int, frame: FrameType | None) -> None:
        if not arrived:
            process.send_signal(signal.SIGINT)
        arrived.append(number)

    for number in (signal.SIGTERM, preempted):
        signal.signal(number, passed_on)
    signal.pthread_sigmask(signal.SIG_SETMASK, held)
    return process.wait(), arrived


def _still_running() -> bool:
    """Whether Slurm counts the job as running: it is being preempted, neither cancelled nor requeued already."""
    show = ["scontrol", "--oneliner", "show", "job", os.environ["SLURM_JOB_ID"]]
    shown = subprocess.run(show, capture_output=True, text=True)
    return (state := re.search(r"JobState=(\w+)", shown.stdout)) is not None and state[1] == "RUNNING"
