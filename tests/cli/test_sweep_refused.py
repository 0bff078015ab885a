"""Sweeps that are refused in one line, with their folders as they were: run folders in place of trainings."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

from experiments import sweeping
from experiments.searching import Searched
from experiments.sweep_folder import Sweep
from genjax import build
from genjax.io.files import write_json
from genjax.sweep import Search
from genjax.types import UserError
from tests.cli.commands import ROOT, one_line, run_many, snapshot

CONFIG = """
from configs.vae.digits_conv import get_config
from genjax.sweep import Range, Search, seeds

SPACE = {"optim.learning_rate": Range(1e-4, 1e-1, "log")}


sweep_rates = (1, 2)


def sweep():
    return seeds(2)


def sweep_more():
    return seeds(1, first=7)


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
    """Each command says why it does nothing (a pattern), and does nothing; in a dry run too."""
    before = snapshot(folder)
    commands = [[*given, f"--workdir={folder}", *more] for given, _ in cases for more in ([], ["--dry_run"])]
    answers = run_many([("sweep", command) for command in commands], cwd=ROOT)
    for answer, (_, message) in zip(answers, [case for case in cases for _ in range(2)], strict=True):
        assert re.search(message, one_line(answer)) and answer.compiled == 0
    assert snapshot(folder) == before


def test_a_search_for_the_other_end_of_a_metric_changes_nothing(tmp_path, config):
    folder = finished(tmp_path / "search", config, "search")
    message = "holds a search for {'metric': 'eval/elbo', 'mode': 'max'}, not for {'metric': 'eval/elbo', 'mode': 'min'"
    assert_refused(folder, [([f"--config={config}", "--sweep=least"], re.escape(message))])


@pytest.mark.slow
def test_runs_of_another_config_are_not_joined(tmp_path, config):
    """Not even where the settings that are asked for now are new; on another machine they are the same."""
    full, folders = f"--config={config.removesuffix(',smoke')}", {}
    for name, asks, first in (("", "--sweep=more", "seed=0"), ("search", "--sweep=search", "learning_rate=")):
        folder = folders[asks] = finished(tmp_path / f"of{name}", config, name)
        assert_refused(folder, [([full, asks], rf"error: run {first}.* another config: .*batch_size was 8, is ")])
    same = [f"--config={config}", "--config.accelerator.prefetch=3", "--dry_run"]
    for answer in run_many([("sweep", [*same, f"--workdir={folder}", asks]) for asks, folder in folders.items()]):
        assert answer.status == 0, answer


def test_settings_are_the_same_in_any_order(tmp_path):
    begun = lambda *flags: Sweep.begun(str(tmp_path), "small.py:smoke", flags, "local", "", "max")  # noqa: E731
    first, second = "--config.total=3 steps", "--config.log_every=1 steps"
    begun(first, second).write()
    for same in ((second, first), ("--config.total=9 steps", second, first, "--config.accelerator.devices=2")):
        begun(*same)
    for other in ((first,), (first, second, "--config.seed=1"), ("--config.total=9 steps", second)):
        with pytest.raises(UserError, match=r"holds a sweep of small.py .*total=3 steps.*, not of small.py"):
            begun(*other)


@pytest.mark.slow
def test_a_list_and_a_search_do_not_share_a_folder(tmp_path, config):
    given = [f"--config={config}"]
    searched = finished(tmp_path / "search", config, "search")  # as earlier versions left it: it doesn't say what it is
    record = json.loads((searched / "sweep.json").read_text())
    for name in ("kind", "sweep"):
        del record[name]
    write_json(searched / "sweep.json", record)
    assert_refused(searched, [(given, "holds a search, not a list")])
    listed = finished(tmp_path / "list", config)
    write_json(listed / "sweep.json", json.loads((listed / "sweep.json").read_text()) | {"kind": "list"})
    assert_refused(listed, [([*given, "--sweep=search"], "holds a list, not a search")])
    shown = run_many(
        [
            ("sweep", [*given, f"--workdir={searched}", "--sweep=search", "--dry_run"]),
            ("sweep", [*given, f"--workdir={searched}", "--sweep=search"]),  # nothing is left to train
            ("sweep", [*given, f"--workdir={searched}"]),
        ]
    )
    assert shown[0].status == 0 and "2 of 2 runs proposed" in shown[0].out, shown[0]
    assert shown[1].status == 0, shown[1]
    assert "holds a search (--sweep=search), not a list" in one_line(shown[2])


def test_a_dry_run_counts_what_was_proposed(tmp_path, config):
    folder = finished(tmp_path / "search", config, "search")
    (folder / "search.db").unlink()
    (answer,) = run_many([("sweep", [f"--config={config}", f"--workdir={folder}", "--sweep=search", "--dry_run"])])
    assert answer.status == 0 and "2 runs: 2 finished" in answer.out and "0 of 2 runs proposed" in answer.out, answer
    assert not (folder / "search.db").exists()


def test_what_an_executor_does_not_read_is_refused(tmp_path, config):
    cases = {
        ("population", "--jobs=3"): "--jobs is about --executor=local and slurm, not population; accepted: --members",
        ("local", "--members=3"): "--members and --together are about --executor=population, not local",
        ("local", "--notogether"): "--members and --together are about --executor=population, not local",
        ("slurm", "--together"): "--members and --together are about --executor=population, not slurm",
    }
    given = [f"--config={config}", f"--workdir={tmp_path}/new"]
    answers = run_many([("sweep", [*given, f"--executor={name}", flag]) for name, flag in cases])
    for answer, message in zip(answers, cases.values(), strict=True):
        assert message in one_line(answer)
    assert not (tmp_path / "new").exists()


def test_folders_that_cannot_be_and_what_is_no_sweep_are_refused(tmp_path, config):
    given = [f"--config={config}"]
    cases = [
        ([*given, f"--workdir={tmp_path}/{'x' * 300}"], "cannot be used: File name too long"),
        ([*given, "--workdir=/dev/null/x"], "--workdir /dev/null/x cannot be used: /dev/null is no folder"),
        ([*given, f"--workdir={tmp_path}/new", "--sweep=rates"], "no function sweep_rates(); accepted: none, --sweep="),
    ]
    answers = run_many([("sweep", [*command, *more]) for command, _ in cases for more in ([], ["--dry_run"])])
    for answer, (_, message) in zip(answers, [case for case in cases for _ in range(2)], strict=True):
        assert message in one_line(answer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: {}, "config is missing"),
        (lambda record: [], "it is not a JSON object"),
        (lambda record: record | {"runs": 3}, "runs is no list"),
        (lambda record: record | {"runs": [3]}, "runs are no list of names with overrides"),
        (
            lambda record: record | {"runs": [{"name": "a", "overrides": []}]},
            "runs are no list of names with overrides",
        ),
        (lambda record: record | {"overrides": [3]}, "overrides are no list of strings"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path, change, message):
    Sweep.begun(str(tmp_path), "small.py", [], "local", "", "max").write()
    write_json(tmp_path / "sweep.json", change(json.loads((tmp_path / "sweep.json").read_text())))
    with pytest.raises(UserError, match=f"sweep.json is damaged: {message}"):
        Sweep.begun(str(tmp_path), "small.py", [], "local", "", "max")
