"""A sweep whose runs train as populations: each is the run alone, and one that ends badly stops nobody."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import numpy as np
import pytest

from configs.vae import digits_conv
from experiments.sweep_folder import Sweep
from genjax import build
from genjax.io.workdir import Workdir
from tests.cli.commands import checkpoint_arrays, checkpoint_steps, read, records, run_many, start

SETTINGS = {
    "model.network.width": 8,
    "total": "60 steps",
    "log_every": "10 steps",
    "checkpoint.every": "20 steps",
    "evaluators.eval.every": "20 steps",
    "evaluators.bound.every": "end",
    "evaluators.samples.every": "end",
    "evaluators.reconstructions.every": "end",
    "evaluators.interpolations.every": "end",
}
CONFIG = """
from configs.vae.digits_conv import get_config


def sweep():
    return [{"seed": 5}, {"optim.learning_rate": 1e20}, {"batch_size": 24}, {"seed": 6}, {"model.beta": 2.0}]


def sweep_good():
    return [{"seed": 5}, {"seed": 6}]


def sweep_first():
    return [{"seed": 5}]
"""
GOOD, DIVERGES, HELD, FAILS = ["seed=5", "seed=6"], "learning_rate=1e+20", "batch_size=24", "beta=2"


FLAGS = [f"--config.{name}={value}" for name, value in SETTINGS.items()]


def arguments(folder: Path, *more: str) -> list[str]:
    return [f"--config={folder}/small.py:accelerator=cpu,smoke", *FLAGS, *more]


def sweep(folder: Path, *more: str, executor: str = "population") -> list[str]:
    return arguments(folder, f"--workdir={folder}/sweep", f"--executor={executor}", *more)


def begun(folder: Path, **overrides) -> Workdir:
    """A run's folder with the lock on it held."""
    config = digits_conv.get_config("accelerator=cpu,smoke")
    config.update_from_flattened_dict({**SETTINGS, **overrides})
    return Workdir.open_for_training(folder, build.to_plain(config))


def assert_same_run(found: Path, expected: Path) -> None:
    assert records(found) == records(expected) and len(records(expected)) > 6
    wanted, arrays = checkpoint_arrays(expected), checkpoint_arrays(found)
    assert arrays.keys() == wanted.keys()
    for path, array in arrays.items():
        np.testing.assert_array_equal(array, wanted[path], err_msg=path)
    results = [read(folder / "evaluation.json")["evaluators"]["eval"]["scalars"] for folder in (found, expected)]
    assert results[0] == results[1]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Two runs alone, then a sweep twice: of its other runs one diverges, one is held, one's log can't be written."""
    folder = tmp_path_factory.mktemp("population")
    (folder / "small.py").write_text(CONFIG)
    new = Sweep.begun(f"{folder}/sweep", f"{folder}/small.py:accelerator=cpu,smoke", FLAGS, "population", "", "max")
    new.path.mkdir()
    new.write()
    with begun(folder / "sweep" / FAILS, **{"model.beta": 2.0}) as workdir:
        workdir.metrics.mkdir()
    alone = [arguments(folder, f"--workdir={folder}/seed={seed}", f"--config.seed={seed}") for seed in (5, 6)]
    commands = [("train", run) for run in alone] + [("sweep", sweep(folder, *more)) for more in ((), ("--members=2",))]
    with begun(folder / "sweep" / HELD, batch_size=24):
        found = run_many(commands)
    assert [answer.status for answer in found[:2]] == [0, 0], found[:2]
    return folder, *found[2:]


def test_members_of_a_sweep_are_the_runs_alone(answers):
    folder, first, _ = answers
    assert "group 1 of 2: 4 runs, differ in seed, " in first.out and "2 members in turns" in first.out
    for name in GOOD:
        assert_same_run(folder / "sweep" / name, folder / name)
        assert read(folder / "sweep" / name / "config.json") == read(folder / name / "config.json")


def test_runs_that_end_badly_stop_nobody(answers):
    folder, first, second = answers
    assert first.status == second.status == 1
    for answer in (first, second):
        assert "5 runs: 2 finished, 1 diverged, 2 failed" in answer.out
        assert "error: 2 of 5 runs failed; the same command tries them again" in answer.err
    failures = {name: read(folder / "sweep" / name / "failure.json") for name in (HELD, FAILS)}
    assert "in use by another training" in failures[HELD]["reason"]
    assert failures[FAILS]["reason"].startswith("cannot write ")
    assert [(failure["attempts"], failure["status"]) for failure in failures.values()] == [(2, 2), (2, 2)]
    assert "training stopped" in read(folder / "sweep" / DIVERGES / "diverged.json")["message"]


def test_the_second_time_trains_what_failed_and_nothing_else(answers):
    _, first, second = answers
    assert "4 runs: cannot write" in first.out and "goes on in smaller parts" in first.out
    assert "group 1 of 2: 1 run\n" in second.out
    assert "finished 60 steps" in first.out and "finished 60 steps" not in second.out


def test_an_interrupted_population_continues_in_either_way(answers, tmp_path):
    folder, *_ = answers
    (tmp_path / "small.py").write_text(CONFIG)
    process = start("sweep", *sweep(tmp_path, "--sweep=good"))
    while not checkpoint_steps(tmp_path / "sweep" / GOOD[1]):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143 and err == "", out + err
    assert "2 runs: 2 begun" in out and "the same command continues from there" in out
    table, *found = run_many(
        [
            ("sweep", sweep(tmp_path, "--dry_run")),
            ("sweep", sweep(tmp_path, "--sweep=first", executor="local")),
            ("sweep", sweep(tmp_path, "--sweep=good")),
        ]
    )
    assert [line.split()[:4] for line in table.out.splitlines()[:3]] == [
        [GOOD[0], "begun", "group", "1"],
        [DIVERGES, "new", "group", "1"],
        [HELD, "new", "group", "2"],
    ]
    assert "group 1: 4 runs, differ in seed, optim.learning_rate, model.beta\ngroup 2: 1 run\n" in table.out
    for answer in found:
        assert answer.status == 0 and answer.err == "", answer
    assert f"{GOOD[0]}: " not in found[1].out and f"{GOOD[1]}: continuing from step " in found[1].out
    for name in GOOD:
        assert_same_run(tmp_path / "sweep" / name, folder / name)
