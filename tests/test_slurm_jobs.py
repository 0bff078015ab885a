"""What the executor slurm takes, refuses, and reads out of Slurm's answers, with no Slurm there."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from experiments.executors import slurm, slurm_jobs
from experiments.executors.base import Listed, Options, Verdict, attempts, failed
from experiments.executors.slurm_task import Task
from experiments.sweep_folder import Sweep, SweepRun
from genjax.io.files import read_json, write_json
from genjax.types import UserError
from tests.cli.commands import ROOT, one_line, run_many

CONFIG = f"--config={ROOT}/configs/vae/digits_conv.py:accelerator=cpu,smoke"


@pytest.fixture
def programs(monkeypatch):
    """Slurm's programs look as if they were there."""
    monkeypatch.setattr(shutil, "which", lambda name: name)


def test_settings_of_jobs(programs):
    given = ["partition=main", "time=90", "mem=8GB", "exclusive=true", "setup=module load cuda", "setup=echo a=b"]
    assert slurm_jobs.settings(given) == {
        "partition": "main",
        "time": 90,
        "mem": "8GB",
        "exclusive": True,
        "setup": ["module load cuda", "echo a=b"],
    }
    assert slurm_jobs.settings([]) == {"time": slurm_jobs.TIME}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["partion=main"], "--slurm=partion=main: accepted: NAME=VALUE with one of the names account, comment,"),
        (["time"], "--slurm=time: accepted: NAME=VALUE"),
        (["time="], "--slurm=time=: accepted: NAME=VALUE"),
        (["job_name=mine"], "--slurm=job_name=mine: accepted: NAME=VALUE"),
        (["time=1:00:00"], "--slurm=time=1:00:00: accepted: minutes, 1 or more"),
        (["nodes=0"], "--slurm=nodes=0: accepted: a whole number, 1 or more"),
        (["qos=a", "qos=b"], "--slurm=qos=b: qos is set already"),
    ],
)
def test_a_setting_that_is_none(programs, given, message):
    with pytest.raises(UserError) as error:
        slurm_jobs.settings(given)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "sbatch" else name)
    with pytest.raises(UserError, match="needs the programs of Slurm, and there is no sbatch on the PATH"):
        slurm_jobs.settings([])
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"needs submitit: pip install 'genjax\[slurm\]'"):
        slurm_jobs.settings([])


def test_flags_of_another_executor_are_refused_before_anything_is_written(tmp_path):
    arguments = [CONFIG, f"--workdir={tmp_path}/new"]
    answers = run_many([("sweep", [*arguments, flag]) for flag in ("--slurm=time=1", "--nowait")], cwd=ROOT)
    for answer in answers:
        assert "--slurm and --nowait are about --executor=slurm, not local" in one_line(answer)
    assert not (tmp_path / "new").exists()


QUEUE = "12_0|RUNNING|sweep-1f\n12_1|PENDING|sweep-1f\n13|COMPLETING|a|b"
SHOWN = "JobId=15 ArrayJobId=12 ArrayTaskId=3 JobName=sweep-1f JobState={} Reason=None Requeue=1 ExitCode={} NodeList="


def test_the_queue_is_read(monkeypatch):
    monkeypatch.setattr(slurm_jobs, "_ask", lambda *command: QUEUE)
    there = {"12_0": ("RUNNING", "sweep-1f"), "12_1": ("PENDING", "sweep-1f"), "13": ("COMPLETING", "a|b")}
    assert slurm_jobs.in_queue() == there
    monkeypatch.setattr(slurm_jobs, "_ask", lambda *command: "")
    assert slurm_jobs.in_queue() == {}


@pytest.mark.parametrize(
    ("state", "status", "said"),
    [
        ("CANCELLED", "0:15", "job 12_3 was cancelled"),
        ("TIMEOUT", "0:0", "job 12_3 ran out of time"),
        ("NODE_FAIL", "0:0", "job 12_3 lost its node"),
        ("FAILED", "1:0", "job 12_3 ended as FAILED (exit status 1)"),
        ("FAILED", "0:9", "job 12_3 ended as FAILED (killed by signal 9)"),
    ],
)
def test_how_a_job_ended(monkeypatch, state, status, said):
    monkeypatch.setattr(slurm_jobs, "_ask", lambda *command: SHOWN.format(state, status))
    assert slurm_jobs.ending("12_3") == said


def unanswered(*command):
    raise slurm_jobs.Unanswered("slurmctld is away")


def test_a_job_that_slurm_has_forgotten(monkeypatch):
    monkeypatch.setattr(slurm_jobs, "_ask", unanswered)
    assert slurm_jobs.ending("12_3") == "job 12_3 left the queue before the run had ended"


class Fake:
    """A queue of jobs that tells what it is told to, look by look: None for no answer, functions for what happens."""

    def __init__(self, monkeypatch, looks):
        self.looks = list(looks)
        monkeypatch.setattr(slurm, "_ASK", 0.0)
        monkeypatch.setattr(slurm, "in_queue", self.in_queue)
        monkeypatch.setattr(slurm, "ending", lambda job: f"job {job} was cancelled")
        monkeypatch.setattr(slurm.Jobs, "submit", self.submit)

    def in_queue(self):
        look = self.looks.pop(0)
        if look is None:
            raise slurm_jobs.Unanswered("slurmctld is away")
        for happens in [state for state, _ in look.values() if callable(state)]:
            happens()
        return {job: (state, name) for job, (state, name) in look.items() if isinstance(state, str)}

    def submit(self, runs, settings, at_once):
        raise AssertionError("nothing was to be submitted")


def sweep_of(folder: Path, *names: str) -> Sweep:
    runs = tuple(SweepRun(name, {}, folder) for name in names)
    return Sweep(folder, "c.py", (), "slurm", runs)


def queued(sweep: Sweep) -> dict[str, tuple[str, str]]:
    """Notes a job for each run, the first of them after a failure, and says that all run."""
    jobs = {run.name: {"job": f"12_{i}", "attempts": attempts(run)} for i, run in enumerate(sweep.runs)}
    write_json(sweep.path / "slurm" / "jobs.json", {"submitting": "", "jobs": jobs})
    return {job["job"]: ("RUNNING", "sweep-1f") for job in jobs.values()}


def test_a_job_that_vanishes_is_a_failure_of_its_run_and_one_look_without_it_is_not(tmp_path, monkeypatch, capsys):
    sweep = sweep_of(tmp_path, "seed=0")
    (run,) = sweep.runs
    failed(run, "of the day before", 1)
    there = queued(sweep)
    Fake(monkeypatch, [there, there, {}, {}, None, there, {}, {}, {}, {}])
    assert slurm.train(sweep, Listed(sweep.runs, {}), Options()) == 0
    failure = read_json(run.workdir.failure)
    assert failure["attempts"] == 2 and failure["reason"].startswith("job 12_0 was cancelled; see ")
    said = capsys.readouterr().out
    assert "1 runs have jobs in the queue already" in said and "asking again: slurmctld is away" in said
    assert said.count("seed=0: failed") == 1


def test_what_the_training_says_of_its_failure_stays(tmp_path, monkeypatch):
    sweep = sweep_of(tmp_path, "seed=0", "seed=1")
    there = queued(sweep)
    failing = {**there, "12_0": (lambda: failed(sweep.runs[0], "its own words", 7), "")}
    done = {**failing, "12_0": (lambda: write_json(sweep.runs[1].workdir.evaluation, {"finished": True}), "")}
    Fake(monkeypatch, [there, there, failing, done, {}, {}, {}, {}])
    assert slurm.train(sweep, Listed(sweep.runs, {}), Options()) == 0
    assert read_json(sweep.runs[0].workdir.failure)["reason"] == "its own words"
    assert [run.state for run in sweep.runs] == ["failed", "finished"]


def test_a_search_has_few_jobs_at_once_and_hopeless_ones_are_cancelled(tmp_path, monkeypatch):
    """The second of three runs is hopeless when it has begun; the third is taken when the first has ended."""
    sweep = sweep_of(tmp_path, "seed=0", "seed=1", "seed=2")
    end = {run.name: (lambda run=run: write_json(run.workdir.evaluation, {"finished": True})) for run in sweep.runs}
    both = {f"{number}_0": ("RUNNING", "") for number in (12, 13)}
    saves = {"12_0": (end["seed=0"], ""), "13_0": ("COMPLETING", "")}
    last = {"13_0": ("COMPLETING", ""), "14_0": ("RUNNING", "")}
    fake = Fake(
        monkeypatch, [{}, both, both, saves, last, *[{"14_0": ("RUNNING", "")}] * 4, {"14_0": (end["seed=2"], "")}]
    )
    submitted: list[tuple[int, list[str]]] = []  # before how many looks were left, and what

    def submit(jobs, runs, settings, at_once):
        submitted.append((len(fake.looks), [run.name for run in runs]))
        known = {run.name: {"job": f"{12 + len(jobs.ids) + i}_0", "attempts": 0} for i, run in enumerate(runs)}
        jobs._note(jobs=jobs._record["jobs"] | known)
        return "12"

    class Judged(Listed):
        adaptive = True

        def verdict(self, run):
            return Verdict("too slow", 20) if run.name == "seed=1" else None

    cancelled: list[str] = []
    monkeypatch.setattr(slurm.Jobs, "submit", submit)
    monkeypatch.setattr(
        slurm, "cancel", lambda job: cancelled.append(job) or len(cancelled) > 1
    )  # heard the second time
    assert slurm.train(sweep, Judged(sweep.runs, {}), Options(jobs=2)) == 0
    assert submitted == [(9, ["seed=0", "seed=1"]), (6, ["seed=2"])] and fake.looks == []
    assert cancelled == ["13_0", "13_0"]
    assert [(run.state, run.reason) for run in sweep.runs] == [
        ("finished", ""),
        ("stopped", "too slow"),
        ("finished", ""),
    ]


def test_slurm_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    sweep = sweep_of(tmp_path, "seed=0")
    Fake(monkeypatch, [None])
    with pytest.raises(UserError, match="Slurm does not answer: slurmctld is away"):
        slurm.train(sweep, Listed(sweep.runs, {}), Options())


@pytest.mark.parametrize(
    ("answer", "known"), [("echo 'sbatch: error: invalid partition' >&2; exit 1", True), ("kill -KILL $$", False)]
)
def test_what_sbatch_refuses_is_one_line_and_what_nobody_knows_is_noted(tmp_path, monkeypatch, answer, known):
    (tmp_path / "bin").mkdir()
    for name, does in (("sbatch", answer), ("srun", "exit 0")):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    sweep = sweep_of(tmp_path / "sweep", "seed=0", "seed=1")
    with pytest.raises(
        UserError, match="sbatch refused the jobs: " + ("invalid partition" if known else "exit status -9")
    ):
        slurm_jobs.Jobs(sweep).submit(sweep.runs, {"time": 5}, None)
    record = read_json(sweep.path / "slurm" / "jobs.json")
    assert record["jobs"] == {} and (record["submitting"] == "") == known


def test_what_a_job_is_given_is_text(tmp_path):
    task = Task(["python", "-m", "experiments.train"], str(tmp_path), "seed=0")
    assert vars(task.checkpoint().function) == vars(task)
    assert vars(task) == {"command": ["python", "-m", "experiments.train"], "folder": str(tmp_path), "name": "seed=0"}
