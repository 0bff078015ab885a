"""Several processes that train one run on loopback: they make the run of one, and a lost one loses nothing."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.cli.commands import (
    VAE,
    Answer,
    checkpoint_arrays,
    checkpoint_steps,
    environment,
    one_line,
    read,
    records,
    run,
    run_many,
    start,
    train_arguments,
)

pytestmark = pytest.mark.slow

SMALL = (
    "--config.model.network.width=8",
    "--config.total=60 steps",
    "--config.log_every=10 steps",
    "--config.checkpoint.every=10 steps",
    "--config.evaluators.eval.every=20 steps",
    *(f"--config.evaluators.{name}.every=end" for name in ("samples", "reconstructions", "interpolations")),
)


def start_all(folder: Path, count: int, *more: str, last: Sequence[str] = ()) -> list[subprocess.Popen]:
    """As many processes, with the flags of all and the flags ``last`` of the last one alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"--coordinator=127.0.0.1:{free.getsockname()[1]}"
    command = train_arguments(VAE, folder, *SMALL, *more)
    commands = [[*command, address, f"--num_processes={count}", f"--process_id={i}"] for i in range(count)]
    commands[-1] += last
    return [start("train", *command, stderr=subprocess.STDOUT) for command in commands]


def outputs(processes: Sequence[subprocess.Popen]) -> list[str]:
    return [process.communicate(timeout=240)[0] for process in processes]


def wait_for_checkpoint(folder: Path, step: int, processes: Sequence[subprocess.Popen]) -> None:
    while max(checkpoint_steps(folder), default=0) < step:
        assert all(process.poll() is None for process in processes), outputs(processes)
        time.sleep(0.01)


def finish(folder: Path, count: int, *more: str) -> list[str]:
    processes = start_all(folder, count, *more)
    found = outputs(processes)
    assert [process.returncode for process in processes] == [0] * count, found
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Two processes that share the state, undisturbed."""
    folder = tmp_path_factory.mktemp("processes") / "whole"
    found = finish(folder, 2, "--config.accelerator.fsdp=2")
    assert "finished 60 steps" in found[0] and "finished" not in found[1]
    return folder


def test_two_processes_make_the_run_of_one(whole, tmp_path):
    alone = run("train", *train_arguments(VAE, tmp_path / "alone", *SMALL))
    assert alone.status == 0, alone
    check_close(whole, tmp_path / "alone")
    assert read(whole / "environment.json")["process_count"] == 2
    assert sorted(path.name for path in whole.iterdir()) == sorted(path.name for path in (tmp_path / "alone").iterdir())


def check_close(folder: Path, expected: Path) -> None:
    wanted = checkpoint_arrays(expected)
    found = checkpoint_arrays(folder)
    assert found.keys() == wanted.keys()
    for path, array in found.items():
        np.testing.assert_allclose(array, wanted[path], rtol=2e-3, atol=2e-3, err_msg=path)
    assert len(records(folder)) == len(records(expected)) > 6
    for one, other in zip(records(folder), records(expected), strict=True):
        assert one == pytest.approx(other, rel=2e-3)


def test_one_of_four_is_killed_and_the_run_goes_on(whole, tmp_path):
    folder = tmp_path / "killed"
    streamed = ("--config.accelerator.fsdp=2", "--config.accelerator.memory_budget_mb=0")
    processes = start_all(folder, 4, *streamed)
    wait_for_checkpoint(folder, 20, processes)
    processes[2].send_signal(signal.SIGKILL)
    found = outputs(processes)  # the others notice and end
    assert all(process.returncode != 0 for process in processes), found
    assert not (folder / "evaluation.json").exists()
    found = finish(folder, 4, *streamed)
    assert re.search(r"continuing from step [2-5]0 of 60", found[0]), found[0]
    check_close(folder, whole)


def test_a_run_of_two_that_is_killed_ends_with_the_same_bits(whole, tmp_path):
    folder = tmp_path / "killed"
    processes = start_all(folder, 2, "--config.accelerator.fsdp=2")
    wait_for_checkpoint(folder, 30, processes)
    processes[0].send_signal(signal.SIGKILL)  # the one that writes
    outputs(processes)
    finish(folder, 2, "--config.accelerator.fsdp=2")
    assert records(folder) == records(whole)
    wanted = checkpoint_arrays(whole)
    for path, array in checkpoint_arrays(folder).items():
        np.testing.assert_array_equal(array, wanted[path], err_msg=path)


def test_all_leave_when_one_is_told_to_and_one_alone_can_go_on(whole, tmp_path):
    folder = tmp_path / "left"
    processes = start_all(folder, 2, "--config.accelerator.fsdp=2")
    wait_for_checkpoint(folder, 10, processes)
    processes[1].send_signal(signal.SIGTERM)
    found = outputs(processes)
    assert [process.returncode for process in processes] == [143, 143], found
    saved = re.search(r"interrupted by SIGTERM: saved step (\d+) of 60", found[0])
    assert saved and int(saved[1]) == checkpoint_steps(folder)[-1], found[0]
    answer = run("train", *train_arguments(VAE, folder, *SMALL))
    assert answer.status == 0 and f"continuing from step {saved[1]} of 60" in answer.out, answer
    check_close(folder, whole)


def test_processes_that_were_told_different_things_are_refused(tmp_path):
    processes = start_all(tmp_path / "new", 2, last=["--config.optim.learning_rate=0.5", "--config.seed=1"])
    first, second = outputs(processes)
    assert [process.returncode for process in processes] == [2, 2], (first, second)
    assert "error: several processes: [1] were told other settings" in first
    assert "optim.learning_rate is 0.002 in the first process and 0.5 in this one; " in second
    assert "seed is 0 in the first process and 1 in this one" in second
    assert not (tmp_path / "new").exists()


def test_devices_that_do_not_divide_a_batch_leave_no_folder(tmp_path):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=3"
    command = train_arguments(VAE, tmp_path / "new", "--config.accelerator.devices=-1")
    process = start("train", *command, env=environment(XLA_FLAGS=flags))
    out, err = process.communicate(timeout=240)
    message = one_line(Answer(process.returncode, out, err))
    assert message == "error: a batch of 8 can't be split over 3 devices; use a multiple of 3"
    assert not (tmp_path / "new").exists()


def test_what_is_refused(tmp_path):
    cases = {
        ("--num_processes=2",): "--coordinator, --process_id missing",
        (
            "--coordinator=here",
            "--num_processes=2",
            "--process_id=0",
        ): "--coordinator=here: accepted: a host and a port",
        ("--coordinator=a:1", "--num_processes=2", "--process_id=2"): "--process_id=2: accepted: 0 to 1",
        ("--config.accelerator.fsdp=3",): "accelerator.fsdp=3, accelerator.tensor=1: their product must divide the 1",
    }
    answers = run_many([("train", train_arguments(VAE, tmp_path / "new", *flags)) for flags in cases])
    for answer, message in zip(answers, cases.values(), strict=True):
        assert message in one_line(answer)
    assert not (tmp_path / "new").exists()
