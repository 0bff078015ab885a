"""Sweeps that are refused in one line, with their folders as they were: run folders in place of trainings."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from experiments import sweeping
from experiments.searching import Searched
from experiments.sweep_folder import Sweep
from genjax import build
from genjax.io.files import write_json
from genjax.sweep import Search
from tests.cli.commands import ROOT, one_line, run_many, snapshot

CONFIG = """
from configs.vae.digits_conv import get_config
from genjax.sweep import Range, Search, seeds

SPACE = {"optim.learning_rate": Range(1e-4, 1e-1, "log")}


def sweep():
    return seeds(2)


def sweep_search():
    return Search(SPACE, metric="eval/elbo", trials=2, startup=1)


def sweep_least():
    return Search(SPACE, metric="eval/elbo", mode="min", trials=2, startup=1)
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "small.py").write_text(CONFIG)
    return f"{tmp_path}/small.py:accelerator=cpu,smoke"


def finish(run, config, step: int = 10) -> None:
    """What a training leaves."""
    write_json(run.workdir.config, build.to_plain(sweeping.with_overrides(config, run.overrides)))
    run.workdir.metrics.write_text(json.dumps({"step": step, "eval/elbo": -1.0}) + "\n")
    write_json(run.workdir.evaluation, {"finished": True, "evaluators": {"eval": {"scalars": {"elbo": -1.0}}}})


def finished(folder: Path, config: str, name: str = "") -> Path:
    """The folder of a list, or of the search that the config has by this name."""
    file, _, argument = config.partition(":")
    settings = runpy.run_path(file)["get_config"](argument)
    space = sweeping.space_of(config, name)
    folder.mkdir()
    sweep = Sweep.begun(str(folder), config, [], "local", "eval/elbo", "max")
    if not isinstance(space, Search):
        sweep, runs = sweep.with_runs(space)
        sweep.write()
        for run in runs:
            finish(run, settings)
        return folder
    queue = Searched(sweep, space, settings, [].append)
    while (run := queue.take()) is not None:
        finish(run, settings)
        queue.ended(run)
    return folder


def assert_refused(folder: Path, cases: list[tuple[list[str], str]]) -> None:
    """Each command says why it does nothing, and does nothing; in a dry run too."""
    before = snapshot(folder)
    commands = [[*given, f"--workdir={folder}", *more] for given, _ in cases for more in ([], ["--dry_run"])]
    answers = run_many([("sweep", command) for command in commands], cwd=ROOT)
    for answer, (_, message) in zip(answers, [case for case in cases for _ in range(2)], strict=True):
        assert message in one_line(answer) and answer.compiled == 0
    assert snapshot(folder) == before


def test_a_search_for_the_other_end_of_a_metric_changes_nothing(tmp_path, config):
    folder = finished(tmp_path / "search", config, "search")
    message = "holds a search for {'metric': 'eval/elbo', 'mode': 'max'}, not for {'metric': 'eval/elbo', 'mode': 'min'"
    assert_refused(folder, [([f"--config={config}", "--sweep=least"], message)])
