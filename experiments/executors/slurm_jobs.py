"""The jobs of a sweep: how they get into Slurm's queue, and what Slurm says of them.

``slurm/jobs.json`` in the sweep's folder knows the latest job of each run::

    {"submitting": "", "jobs": {"seed=0": {"job": "12_0", "attempts": 0}, ...}}

``attempts`` is how often the run had failed before. ``submitting`` is the name of jobs that are being submitted: where
a command was killed in the middle, the next one finds them by it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.executors.base import attempts
from experiments.executors.slurm_task import Task
from experiments.sweep_folder import Sweep, SweepRun
from genjax.io.files import read_json, write_json
from genjax.types import UserError

FOLDER = "slurm"  # submitit's files, and what the jobs' own shells print
TIME = 60  # minutes of a job, unless given; the run of one that is over goes on in the next
_TIMEOUTS = 1000  # how often a job may be over before its run is
_COUNTS = ("time", "nodes", "ntasks_per_node", "cpus_per_task", "cpus_per_gpu", "gpus_per_node", "gpus_per_task",
           "signal_delay_s")  # fmt: skip
_LISTS = ("setup", "teardown", "srun_args")
_OURS = ("job_name", "array_parallelism", "additional_parameters", "stderr_to_stdout", "use_srun", "num_gpus")
_ENDINGS = {
    "CANCELLED": "was cancelled",
    "TIMEOUT": "ran out of time",
    "PREEMPTED": "was preempted",
    "NODE_FAIL": "lost its node",
    "OUT_OF_MEMORY": "ran out of memory",
}


Answer = Mapping[str, tuple[str, str]]
"""State and name of the jobs in the queue, by number."""


class Unanswered(Exception):
    """Slurm did not answer."""


def settings(given: Sequence[str]) -> dict[str, Any]:
    """What ``--slurm=partition=main`` and the like ask for, where jobs can be submitted.

    Raises:
      UserError: they can't be, or a flag is not of that form, names nothing, or has a value that does not fit.
    """
    try:
        from submitit import SlurmExecutor
    except ImportError as error:
        raise UserError("the executor slurm needs submitit: pip install 'genjax[slurm]'") from error
    for program in ("sbatch", "srun", "squeue", "scontrol", "scancel"):
        if shutil.which(program) is None:
            raise UserError(f"the executor slurm needs the programs of Slurm, and there is no {program} on the PATH")
    names = sorted(SlurmExecutor._valid_parameters() - {*_OURS})
    values: dict[str, Any] = {"time": TIME}
    seen = set()
    for flag in given:
        name, equals, text = flag.partition("=")
        if name not in names or not equals or not text:
            raise UserError(f"--slurm={flag}: accepted: NAME=VALUE with one of the names {', '.join(names)}")
        if name in seen and name not in _LISTS:
            raise UserError(f"--slurm={flag}: {name} is set already; accepted: each setting once")
        if name in _COUNTS and not (text.isdigit() and int(text) > 0):
            unit = "minutes, 1 or more" if name == "time" else "a whole number, 1 or more"
            raise UserError(f"--slurm={flag}: accepted: {unit}, such as {name}=2")
        seen.add(name)
        if name in _LISTS:
            values[name] = [*values.get(name, []), text]
        else:
            values[name] = int(text) if name in _COUNTS else text == "true" or text
    return values


class Jobs:
    """The jobs of a sweep's runs, read from its folder.

    Attributes:
      ids: of the latest job of each run, by the run's name.
    """

    def __init__(self, sweep: Sweep):
        self._sweep, self._folder = sweep, sweep.path / FOLDER
        self._record: dict[str, Any] = {"submitting": "", "jobs": {}}
        if (self._folder / "jobs.json").exists():
            self._record = read_json(self._folder / "jobs.json")

    ids = property(lambda self: {name: job["job"] for name, job in self._record["jobs"].items()})

    def failed_before(self, run: SweepRun) -> int:
        """How often a run had failed when its job was submitted."""
        return self._record["jobs"][run.name]["attempts"]

    def recover(self) -> None:
        """Ends jobs whose submission was cut short: what they need may be missing, and nobody noted their numbers.

        Raises:
          Unanswered: Slurm did not answer.
        """
        if name := self._record["submitting"]:
            while any(found == name for _, found in in_queue().values()):
                _ask("scancel", "--me", f"--name={name}")
                time.sleep(1)
            self._note(submitting="")

    def submit(self, runs: Sequence[SweepRun], slurm: Mapping[str, Any], at_once: int | None) -> str:
        """Puts an array of jobs into the queue, one for each run, and returns its number.

        Args:
          runs: at least one.
          slurm: what ``settings`` gave.
          at_once: how many of the jobs may run at once, None for all.

        Raises:
          UserError: Slurm refused.
        """
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        executor = SlurmExecutor(self._folder, max_num_timeout=_TIMEOUTS)
        name = f"{self._sweep.path.name}-{uuid.uuid4().hex[:8]}"
        executor.update_parameters(
            **slurm,
            job_name=name,
            array_parallelism=at_once or len(runs),
            additional_parameters={"requeue": True},
        )
        train = [sys.executable, "-u", "-m", "experiments.train"]
        tasks = [Task([*train, *self._sweep.arguments(run)], str(run.folder), run.name) for run in runs]
        runs[0].log.parent.mkdir(parents=True, exist_ok=True)
        self._note(submitting=name)
        try:
            jobs = executor.submit_array(tasks)
        except (FailedJobError, FailedSubmissionError) as error:
            status = getattr(error.__cause__, "returncode", -1)
            if status > 0:  # one that was killed may have submitted them
                self._note(submitting="")
            said = " ".join(line.removeprefix("sbatch: error: ") for line in str(error).splitlines())
            raise UserError(f"sbatch refused the jobs: {said or f'exit status {status}'}") from error
        noted = {run.name: {"job": job.job_id, "attempts": attempts(run)} for run, job in zip(runs, jobs, strict=True)}
        self._note(submitting="", jobs={**self._record["jobs"], **noted})
        return jobs[0].job_id.partition("_")[0]

    def _note(self, **changes: Any) -> None:
        self._record |= changes
        write_json(self._folder / "jobs.json", self._record)


def in_queue() -> Answer:
    """State and name of the user's jobs that wait or run, by number; those of arrays are like 12_3.

    Raises:
      Unanswered: Slurm did not answer.
    """
    listed = _ask("squeue", "--me", "--array", "--noheader", "--format=%i|%T|%j")
    return {job: (state, name) for job, state, name in (line.split("|", 2) for line in listed.splitlines())}


def cancel(job: str) -> bool:
    """Has a job save and leave; whether Slurm has heard."""
    try:
        _ask("scancel", job)
    except Unanswered:
        return False
    return True


def ending(job: str) -> str:
    """How a job ended that is not in the queue any more, in a few words."""
    try:
        shown = _ask("scontrol", "--oneliner", "show", "job", job)
    except Unanswered:  # Slurm forgets jobs after some minutes
        shown = ""
    state, status = (re.search(pattern, shown) for pattern in (r"JobState=(\w+)", r"ExitCode=(\d+:\d+)"))
    if state is None:
        return f"job {job} left the queue before the run had ended"
    said = _ENDINGS.get(state[1], f"ended as {state[1]}")
    if state[1] in _ENDINGS or status is None:
        return f"job {job} {said}"
    code, number = status[1].split(":")
    return f"job {job} {said} ({f'killed by signal {number}' if int(number) else f'exit status {code}'})"


def _ask(*command: str) -> str:
    """What a program of Slurm prints."""
    answer = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if answer.returncode:
        raise Unanswered(f"{command[0]}: {' '.join(answer.stderr.split()) or f'exit status {answer.returncode}'}")
    return answer.stdout.strip()
