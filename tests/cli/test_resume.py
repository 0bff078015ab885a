"""Stopping a training in every way there is, and going on as if nothing had happened."""

from __future__ import annotations

import re
import signal
import time

import numpy as np
import pytest

from genjax.io.checkpoint import Checkpoints
from tests.cli.commands import (
    VAE,
    Answer,
    checkpoint_arrays,
    checkpoint_steps,
    read,
    records,
    run,
    start,
    train_arguments,
)

TOTAL = 800
SETTINGS = {
    "total": f"{TOTAL} steps",
    "log_every": "70 steps",  # not a multiple or divisor of what follows: a stop falls between two logs
    "checkpoint.every": "50 steps",
    "evaluators.eval.every": "200 steps",
    "evaluators.bound.num_samples": "2",
    "evaluators.samples.every": "400 steps",
    "evaluators.reconstructions.every": "end",
    "evaluators.interpolations.every": "end",
    "model.network.width": "8",
    "model.network.hidden": "16",
}


def arguments(folder, **changes: str) -> list[str]:
    overrides = [f"--config.{name}={value}" for name, value in (SETTINGS | changes).items()]
    return train_arguments(VAE, folder, *overrides)


def stop(command: list[str], pattern: str, number: int, after: float = 0.0) -> Answer:
    """Starts a training and sends it a signal once a line of its output matches."""
    process = start("train", *command)
    seen = []
    for line in process.stdout:
        seen.append(line)
        if re.match(pattern, line):
            break
    else:
        pytest.fail("".join(seen) + process.stderr.read())
    time.sleep(after)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return Answer(process.returncode, "".join(seen) + out, err)


def saved_step(answer: Answer, name: str) -> int:
    match = re.search(rf"interrupted by {name}: saved step (\d+) of {TOTAL}; the same command continues", answer.out)
    assert match and answer.err == "", answer
    return int(match[1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("resume") / "whole"
    answer = run("train", *arguments(folder))
    assert answer.status == 0, answer
    return folder


def same_results(folder, whole) -> None:
    assert records(folder) == records(whole)
    found, wanted = checkpoint_arrays(folder), checkpoint_arrays(whole)
    assert found.keys() == wanted.keys() and any("params" in name for name in found)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert checkpoint_steps(folder)[-1] == TOTAL and len(checkpoint_steps(folder)) <= 3
    found, wanted = (read(path / "evaluation.json")["evaluators"] for path in (folder, whole))
    assert {name: p["scalars"] for name, p in found.items()} == {name: p["scalars"] for name, p in wanted.items()}
    for name in ("samples", "reconstructions", "interpolations"):
        one, other = ((path / "images" / f"{name}.png").read_bytes() for path in (folder, whole))
        assert one == other


def test_a_run_stopped_three_ways_ends_as_an_undisturbed_one(tmp_path, whole):
    command = arguments(tmp_path / "run")
    answer = stop(command, "evaluation at step 200", signal.SIGINT)
    assert answer.status == 130
    first = saved_step(answer, "SIGINT")
    assert checkpoint_steps(tmp_path / "run")[-1] == first
    answer = stop(command, "evaluation at step 400", signal.SIGTERM)
    assert answer.status == 143 and f"continuing from step {first} of {TOTAL}" in answer.out
    second = saved_step(answer, "SIGTERM")
    assert 200 <= first <= second < TOTAL
    answer = stop(command, "evaluation at step 600", signal.SIGKILL, after=0.05)
    assert answer.status == -signal.SIGKILL and f"continuing from step {second} of {TOTAL}" in answer.out
    answer = run("train", *command)
    assert answer.status == 0 and "continuing from step" in answer.out, answer
    same_results(tmp_path / "run", whole)


def test_a_long_evaluation_is_left_at_once_and_done_after_all(tmp_path):
    folder = tmp_path / "run"
    bound = {"every": "100 steps", "num_samples": "4000"}
    slow = {
        "total": "110 steps",
        "evaluators.eval.every": "100 steps",
        "eval_batch_size": "1",
        "checkpoint.best": "eval/importance_bound_4000",
    }
    command = arguments(folder, **slow, **{f"evaluators.bound.{name}": value for name, value in bound.items()})
    process = start("train", *command)
    logged = folder / "metrics.jsonl"
    while not (logged.exists() and '"step": 70' in logged.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(1.0)  # thirty steps take a tenth of that, the evaluation after them several times as long
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "saved step 100 of 110" in out and err == "", out + err
    # Half an evaluation is not in the log, and the next process begins with all of it.
    assert [list(record) for record in records(folder) if "eval/elbo" in record] == []
    answer = run("train", *command)
    assert answer.status == 0 and "continuing from step 100 of 110" in answer.out, answer
    evaluated = [record for record in records(folder) if "eval/elbo" in record]
    assert [record["step"] for record in evaluated] == [100, 110]
    with Checkpoints(folder / "checkpoints", best_metric=slow["checkpoint.best"], read_only=True) as checkpoints:
        assert [checkpoints.metrics(step) for step in (100, 110)] == [
            {name: value for name, value in record.items() if name != "step"} for record in evaluated
        ]
    assert [record["step"] for record in records(folder) if "train/loss" in record] == [70]


def test_a_second_sigint_leaves_at_once(tmp_path):
    command = arguments(tmp_path / "run", total="1000000 steps")
    process = start("train", *command)
    for line in process.stdout:
        if line.startswith("first step"):
            break
    process.send_signal(signal.SIGSTOP)  # so that both are there before it can act on the first
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130)


def test_a_damaged_checkpoint_is_set_aside_and_the_run_ends_as_an_undisturbed_one(whole, tmp_path):
    folder = tmp_path / "run"
    command = arguments(folder)
    process = start("train", *command)
    while len(checkpoint_steps(folder)) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    earlier, latest = checkpoint_steps(folder)[-2:]
    largest = max((folder / "checkpoints" / str(latest)).rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    answer = run("train", *command)
    assert answer.status == 0 and answer.err == "", answer
    assert f"warning: checkpoint step {latest} is damaged" in answer.out and f"using step {earlier}" in answer.out
    assert (folder / "checkpoints" / f"{latest}.corrupt").is_dir()
    same_results(folder, whole)
