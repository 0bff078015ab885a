"""Tasks of a real Slurm's step find each other and train one run, and a job that is requeued goes on with it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.commands import ROOT, VAE, checkpoint_steps, environment, read, train_arguments
from tests.slurm.cluster import cluster, missing

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

LENGTH = (
    "--config.total=1500 steps",
    "--config.log_every=50 steps",
    "--config.checkpoint.every=50 steps",
    *(f"--config.evaluators.{name}.every=end" for name in ("eval", "samples", "reconstructions", "interpolations")),
)


def wait(condition, job: str, log: Path, seconds: float = 200.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, log.read_text() if log.exists() else f"job {job} has not begun"
        time.sleep(0.2)


def test_a_requeued_job_of_two_tasks_finishes_its_run(tmp_path):
    folder, log = tmp_path / "run", tmp_path / "log.txt"
    arguments = train_arguments(VAE, folder, "--config.model.network.width=8", "--config.accelerator.fsdp=2", *LENGTH)
    train = shlex.join(["srun", sys.executable, "-u", "-m", "experiments.train", *arguments])
    with cluster() as variables:
        options = {"env": environment() | variables, "cwd": ROOT, "text": True, "capture_output": True, "check": True}
        submit = ["sbatch", "--parsable", "--ntasks=2", "--requeue", "--open-mode=append", f"--output={log}"]
        job = subprocess.run([*submit, f"--wrap={train}"], **options).stdout.strip()
        wait(lambda: max(checkpoint_steps(folder), default=0) >= 50, job, log)
        subprocess.run(["scontrol", "requeue", job], **options)
        wait(lambda: "continuing from step" in log.read_text(), job, log)
        wait((folder / "evaluation.json").exists, job, log)
        wait(lambda: not subprocess.run(["squeue", "--noheader", f"--jobs={job}"], **options).stdout, job, log)
    assert "finished 1500 steps" in log.read_text()
    assert read(folder / "evaluation.json")["finished"] and checkpoint_steps(folder)[-1] == 1500
    described = read(folder / "environment.json")
    assert described["process_count"] == 2 and described["device_count"] == 2


def test_no_daemon_outlives_the_cluster():
    with cluster() as variables:
        folder = Path(variables["SLURM_CONF"]).parent
        done = subprocess.run(["srun", "hostname"], env=os.environ | variables, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.strip(), done
    assert not folder.exists()
    assert str(folder) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
