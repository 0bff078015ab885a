"""A sweep at the command line: what is trained, what is skipped, and that one failure stops nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import ROOT, one_line, read, run, run_many, snapshot

SMALL = ("--config.model.network.width=8", "--config.total=4 steps")
CONFIG = """
from configs.vae.digits_conv import get_config


def sweep():
    return [{"optim.learning_rate": 1e20}, {"accelerator.devices": 99}, {"seed": 5}][:%d]


def sweep_misspelt():
    return [{"seed": 1}, {"optim.learning_rat": 1.0}]


def sweep_wrong():
    return [{"batch_size": "many"}]
"""


def config(folder: Path, runs: int = 3) -> str:
    (folder / "small.py").write_text(CONFIG % runs)
    return f"--config={folder}/small.py:accelerator=cpu,smoke"


def test_runs_end_each_in_its_way_and_the_same_command_trains_what_is_left(tmp_path):
    folder = tmp_path / "sweep"
    names = ["learning_rate=1e+20", "devices=99", "seed=5"]
    answer = run("sweep", config(tmp_path, 2), f"--workdir={folder}", *SMALL)
    assert answer.status == 1 and "2 runs: 1 diverged, 1 failed" in answer.out, answer
    assert "1 of 2 runs failed; the same command tries them again" in answer.err
    before = snapshot(folder / names[0])
    answer = run("sweep", config(tmp_path, 3), f"--workdir={folder}", *SMALL)  # a run more than before
    assert answer.status == 1 and "3 runs: 1 finished, 1 diverged, 1 failed" in answer.out, answer
    assert f"{names[0]}: starts" not in answer.out and snapshot(folder / names[0]) == before
    failure = read(folder / names[1] / "failure.json")
    assert failure["attempts"] == 2 and failure["status"] == 2 and "accelerator.devices=99" in failure["reason"]
    assert read(folder / names[2] / "evaluation.json")["finished"]
    assert "accelerator.devices=99" in (folder / "logs" / f"{names[1]}.txt").read_text()
    assert [entry["name"] for entry in read(folder / "sweep.json")["runs"]] == names
    (table,) = run_many([("sweep", [config(tmp_path), f"--workdir={folder}", "--dry_run", *SMALL])], cwd=ROOT)
    assert [line.split()[:2] for line in table.out.splitlines()[:3]] == [
        [name, state] for name, state in zip(names, ("diverged", "failed", "finished"), strict=True)
    ]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--sweep=misspelt", "run learning_rat=1: optim.learning_rat: no such setting"),
        ("--sweep=wrong", "batch_size='many': accepted: int"),
        ("--sweep=no_such", "has no function sweep_no_such(); accepted: none, --sweep=misspelt, --sweep=wrong"),
    ],
)
def test_a_bad_run_stops_the_sweep_before_anything_is_written(tmp_path, flag, message):
    (answer,) = run_many([("sweep", [config(tmp_path), f"--workdir={tmp_path}/new", flag])], cwd=ROOT)
    assert message in one_line(answer) and answer.compiled == 0
    assert not (tmp_path / "new").exists()
