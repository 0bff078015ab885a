"""A sweep through a real Slurm: what is preempted or killed goes on, ends like a run that nobody touched, and no run is
submitted twice."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.executors.slurm_jobs import Jobs
from experiments.sweep_folder import Sweep
from genjax.io.files import write_json
from tests.cli.commands import ROOT, checkpoint_arrays, checkpoint_steps, environment, read, records, start
from tests.slurm.cluster import cluster, missing

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

CONFIG = """
from configs.vae.digits_conv import get_config
from genjax.sweep import Choice, Search


def sweep():
    return [{"seed": 1}, {"seed": 2}, {"accelerator.devices": 99}]


def sweep_one():
    return [{"seed": 1}]


def sweep_search():
    space = {"optim.learning_rate": Choice(1e-3, 1e-30, 1e-31)}
    search = {"trials": 8, "sampler": "random", "pruner": "asha", "reduction": 2, "seed": 1}
    return Search(space, metric="eval/elbo", **search)
"""
LENGTH = (
    "--config.model.network.width=8",
    "--config.total=10000 steps",  # long enough to be killed and preempted in the middle on any machine
    "--config.log_every=200 steps",
    "--config.checkpoint.every=200 steps",
    *(f"--config.evaluators.{name}.every=end" for name in ("eval", "samples", "reconstructions", "interpolations")),
)
SUBMISSIONS = "[0-9]*_submission.sh"


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    with cluster() as variables:
        yield variables


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "small.py").write_text(CONFIG)
    return f"--config={tmp_path}/small.py:accelerator=cpu,smoke"


def ask(slurm: dict[str, str], *command: str) -> str:
    options: dict[str, Any] = {"env": environment() | slurm, "cwd": ROOT, "text": True, "capture_output": True}
    answer = subprocess.run(command, timeout=200, **options)
    assert answer.returncode == 0, answer
    return answer.stdout.strip()


def wait(condition: Callable[[], Any], told: Callable[[], Any], seconds: float = 200.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.1)


def trained(run: Path) -> bool:
    """Whether a run is on its way."""
    return max(checkpoint_steps(run), default=0) >= 200


def test_a_sweep_whose_runs_are_preempted_killed_and_fail(tmp_path, config, slurm):
    folder = tmp_path / "sweep"
    names = ["seed=1", "seed=2", "devices=99"]
    first, second, _ = (folder / name for name in names)
    logs = lambda: {path.name: path.read_text() for path in folder.glob("logs/*")}  # noqa: E731
    arguments = [config, f"--workdir={folder}", "--executor=slurm", "--slurm=partition=graceful", *LENGTH]
    sweep = lambda: start("sweep", *arguments, env=environment() | slurm)  # noqa: E731

    with sweep() as submitting:
        out = submitting.stdout
        assert out is not None and "3 runs submitted as job" in out.readline()
        submitting.send_signal(signal.SIGINT)
        said, error = submitting.communicate(timeout=100)
    submitted = read(folder / "slurm" / "jobs.json")
    array = submitted["jobs"]["seed=1"]["job"].partition("_")[0]
    assert submitting.returncode == 130 and f"scancel {array}_0 {array}_1 {array}_2" in said, (said, error)

    with sweep() as waiting:
        assert waiting.stdout is not None
        looked = waiting.stdout.readline()  # or it would take a run that is killed before for one to submit again
        wait(lambda: trained(second), logs)
        os.kill(int(re.findall(r"\d+", (second / ".lock").read_text())[0]), signal.SIGKILL)
        wait(lambda: trained(first), logs)
        ask(slurm, "srun", "--partition=urgent", "--cpus-per-task=4", "true")
        said, error = waiting.communicate(timeout=300)
    assert waiting.returncode == 1 and "3 runs: 1 finished, 2 failed" in said, (said, error, logs())
    # The third fails at once, perhaps before the second command looks, which then tries it again.
    jobs = read(folder / "slurm" / "jobs.json")["jobs"]
    assert re.search(r"^[23] runs have jobs in the queue already", looked)
    assert all(jobs[name] == submitted["jobs"][name] for name in names[:2])
    assert f"seed=1: job {array}_0 was requeued" in said and "continuing from step" in logs()["seed=1.txt"]
    assert "failed: seed=2: killed by SIGKILL" in said and "continuing from step" not in logs()["seed=2.txt"]
    assert "accelerator.devices=99" in read(folder / names[2] / "failure.json")["reason"]
    submissions = len(list(folder.glob(f"slurm/{SUBMISSIONS}")))
    failures = read(folder / names[2] / "failure.json")["attempts"]
    assert submissions == failures <= 2

    together = [config, f"--workdir={tmp_path}/untouched", *LENGTH, "--vary=seed=1,2"]
    with start("train", *together) as reference, sweep() as again:
        said, error = again.communicate(timeout=300)
        assert reference.wait(timeout=300) == 0
    assert again.returncode == 1 and "3 runs: 2 finished, 1 failed" in said, (said, error, logs())
    assert "2 runs submitted as job" in said and "continuing from step" in logs()["seed=2.txt"]
    assert read(folder / names[2] / "failure.json")["attempts"] == failures + 1
    assert not (second / "failure.json").exists()
    for run in (first, second):
        assert records(run) == records(tmp_path / "untouched" / run.name)
        np.testing.assert_equal(checkpoint_arrays(run), checkpoint_arrays(tmp_path / "untouched" / run.name))


def test_a_job_of_two_tasks_is_requeued_when_its_time_is_over_and_not_when_it_is_cancelled(tmp_path, config, slurm):
    folder = tmp_path / "sweep"
    run, log = folder / "seed=1", folder / "logs" / "seed=1.txt"
    arguments = [config, f"--workdir={folder}", "--executor=slurm", "--sweep=one", "--slurm=ntasks_per_node=2", *LENGTH]
    arguments += ["--config.accelerator.fsdp=2", "--nowait"]
    with start("sweep", *arguments, env=environment() | slurm) as submitting:
        said, error = submitting.communicate(timeout=100)
    assert submitting.returncode == 0 and "1 runs: 1 new" in said, (said, error)
    job = read(folder / "slurm" / "jobs.json")["jobs"]["seed=1"]["job"]
    told = lambda: log.read_text() if log.exists() else ask(slurm, "squeue")  # noqa: E731
    wait(lambda: trained(run), told)
    ask(slurm, "scancel", "--signal=USR2", job)
    wait(lambda: "first step" in told().partition("continuing from step")[2], told)
    ask(slurm, "scancel", job)
    wait(lambda: job not in ask(slurm, "squeue", "--noheader", "--format=%i").split(), told)
    assert "JobState=CANCELLED" in ask(slurm, "scontrol", "show", "job", job)
    assert log.read_text().count("interrupted by SIGINT: saved step") == 2 and not (run / "failure.json").exists()
    assert read(run / "environment.json")["process_count"] == 2


def test_a_run_that_takes_longer_than_its_job_may_goes_on_in_the_next(tmp_path, config, slurm):
    """Slurm sends its own signal, 90 seconds before two minutes are over."""
    folder = tmp_path / "sweep"
    arguments = [config, f"--workdir={folder}", "--executor=slurm", "--sweep=one", "--slurm=time=2", *LENGTH]
    arguments.append("--config.total=30000 steps")
    with start("sweep", *arguments, env=environment() | slurm) as sweep:
        said, error = sweep.communicate(timeout=500)
    log = (folder / "logs" / "seed=1.txt").read_text()
    assert sweep.returncode == 0 and "1 runs: 1 finished" in said, (said, error, log)
    requeued = said.count("was requeued")
    assert (
        requeued >= 1
        and log.count("interrupted by SIGINT: saved step") == log.count("continuing from step") == requeued
    )


def test_a_search_submits_run_after_run_and_cancels_the_hopeless(tmp_path, config, slurm):
    folder = tmp_path / "search"
    good, *bad = (folder / f"learning_rate={rate}" for rate in ("0.001", "1e-30", "1e-31"))
    arguments = [config, f"--workdir={folder}", "--executor=slurm", "--sweep=search", "--jobs=1", *LENGTH]
    arguments.append("--config.evaluators.eval.every=500 steps")
    with start("sweep", *arguments, env=environment() | slurm) as searching:
        said, error = searching.communicate(timeout=400)
    assert searching.returncode == 0 and "3 runs: 1 finished, 2 stopped" in said, (said, error)
    assert said.count("1 runs submitted as job") == 3 and f"best: {good.name} (eval/elbo " in said
    for run in bad:
        assert "is not among the best 50% of the runs that came as far" in read(run / "stopped.json")["reason"]
        assert f"{run.name}: stopped after" in said
        assert 500 <= checkpoint_steps(run)[-1] < 10000 == checkpoint_steps(good)[-1]
        assert "interrupted by SIGINT: saved step" in (folder / "logs" / f"{run.name}.txt").read_text()


def test_jobs_whose_submission_was_cut_short_are_ended(tmp_path, slurm, monkeypatch):
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    write_json(tmp_path / "slurm" / "jobs.json", {"submitting": "half", "jobs": {}})
    for name in ("half", "other"):
        output = f"--output={tmp_path}/log.txt"
        ask(slurm, "sbatch", "--parsable", f"--job-name={name}", "--array=0-1", output, "--wrap=sleep 100")
    sweep = Sweep(tmp_path, "", (), "slurm", ())
    Jobs(sweep).recover()
    queued = ask(slurm, "squeue", "--array", "--noheader", "--format=%j").split()
    assert queued.count("other") == 2 and "half" not in queued
    assert read(tmp_path / "slurm" / "jobs.json")["submitting"] == ""
    ask(slurm, "scancel", "--name=other")
