"""A sweep at the command line: what is trained, what is skipped, and that one failure stops nobody."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.cli.commands import ROOT, one_line, read, records, run, run_many, snapshot, start

SMALL = ("--config.model.network.width=8", "--config.total=4 steps")
CONFIG = """
from configs.vae.digits_conv import get_config
from genjax.sweep import Range, Search


def sweep():
    return [{"optim.learning_rate": 1e20}, {"accelerator.devices": 99}, {"seed": 5}][:%d]


def sweep_search():
    space = {"optim.learning_rate": Range(1e-4, 1e-1, "log"), "model.beta": Range(0.5, 2.0)}
    return Search(space, metric="eval/elbo", trials=3)


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
    (table,) = run_many([("sweep", [config(tmp_path), f"--workdir={folder}", "--dry-run", *SMALL])], cwd=ROOT)
    assert [line.split()[:2] for line in table.out.splitlines()[:3]] == [
        [name, state] for name, state in zip(names, ("diverged", "failed", "finished"), strict=True)
    ]


def test_a_bad_run_stops_the_sweep_before_anything_is_written(tmp_path):
    cases = {
        "misspelt": "run learning_rat=1: optim.learning_rat: no such setting",
        "wrong": "batch_size='many': accepted: int",
        "no_such": "has no function sweep_no_such(); accepted: none, --sweep=search, --sweep=misspelt, --sweep=wrong",
    }
    given = config(tmp_path)
    answers = run_many([("sweep", [given, f"--workdir={tmp_path}/new", f"--sweep={name}"]) for name in cases], cwd=ROOT)
    for answer, message in zip(answers, cases.values(), strict=True):
        assert message in one_line(answer) and answer.compiled == 0
    assert not (tmp_path / "new").exists()


def training(folder: Path) -> list[str]:
    """The processes that train runs in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = path.read_bytes().split(b"\0")
            if b"experiments.train" in command and any(str(folder).encode() in part for part in command):
                found.append(path.parent.name)
    return found


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="runs leave with a killed sweep where there is setpriv")
def test_a_search_that_was_interrupted_goes_on(tmp_path):
    folder = tmp_path / "search"
    arguments = [config(tmp_path), f"--workdir={folder}", "--sweep=search", *SMALL]
    process = start("sweep", *arguments, "--jobs=2")
    for line in process.stdout:
        if ": starts" in line:
            break
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143 and err == "", out + err
    killed = start("sweep", *arguments)
    while not (trains := training(folder)):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    while training(folder):  # its run leaves with it
        time.sleep(0.05)
    assert len(trains) == 1
    first = [entry["name"] for entry in read(folder / "sweep.json")["runs"]]
    assert 1 <= len(first) <= 2
    answer = run("sweep", *arguments, "--jobs=2")
    assert answer.status == 0 and "3 runs: 3 finished" in answer.out, answer
    names = [entry["name"] for entry in read(folder / "sweep.json")["runs"]]
    assert names[: len(first)] == first and len(names) == 3
    elbo = lambda name: [r["eval/elbo"] for r in records(folder / name) if "eval/elbo" in r][-1]  # noqa: E731
    best = max(names, key=elbo)
    assert f"best: {best} (eval/elbo " in answer.out
    assert "tensorboard --logdir=" in answer.out and (folder / "tensorboard" / best).is_dir()
    other, table, report = run_many(
        [
            ("sweep", [*arguments, "--executor=population"]),
            ("sweep", [*arguments, "--dry_run"]),
            ("report", [str(folder)]),
        ],
        cwd=ROOT,
    )
    assert other.status == 0 and "3 runs: 3 finished" in other.out and "group 1" not in other.out, other
    assert "a search for eval/elbo (max): 3 of 3 runs proposed" in table.out
    assert report.status == 0 and f"best: {best.replace(',', ', ')}" in report.out, report
