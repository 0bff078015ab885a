"""A search as a queue of runs, with run folders in place of trainings."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from configs.vae import digits_conv
from experiments import sweeping
from experiments.executors.base import failed, stopped
from experiments.searching import Searched, checked
from experiments.sweep_folder import Sweep, SweepRun
from genjax import build, populations
from genjax.io.files import write_json
from genjax.sweep import Choice, Range, Search
from genjax.types import UserError

METRIC = "eval/elbo"
SPACE = {"optim.learning_rate": Range(1e-4, 1e-1, "log")}


def search(**changes) -> Search:
    return Search(**({"space": SPACE, "metric": METRIC, "trials": 4, "startup": 2} | changes))


def queue(folder: Path, what: Search, said: list[str] | None = None) -> Searched:
    folder.mkdir(exist_ok=True)
    sweep = Sweep.begun(str(folder), "configs/vae/digits_conv.py:smoke", [], "local", "", "max")
    config = digits_conv.get_config("accelerator=cpu,smoke")
    return Searched(sweep, what, config, [].append if said is None else said.append)


def taken(queue: Searched) -> SweepRun:
    run = queue.take()
    assert run is not None
    return run


def log(run: SweepRun, *values: float, name: str = METRIC) -> None:
    """What a training writes: a config when it begins, a record at each evaluation."""
    if not run.workdir.config.exists():
        config = digits_conv.get_config("accelerator=cpu,smoke")
        write_json(run.workdir.config, build.to_plain(sweeping.with_overrides(config, run.overrides)))
    with open(run.workdir.metrics, "a") as file:
        file.writelines(json.dumps({"step": 10 * (i + 1), name: value}) + "\n" for i, value in enumerate(values))


def finish(run: SweepRun) -> None:
    write_json(run.workdir.evaluation, {"finished": True})


def test_runs_are_proposed_until_there_are_enough(tmp_path):
    said: list[str] = []
    found = queue(tmp_path, search(), said)
    names = []
    for value in (-3.0, -1.0, -2.0, math.nan):
        run = taken(found)
        assert list(run.overrides) == ["optim.learning_rate"]
        names.append(run.name)
        log(run, -9.0, value)
        finish(run)
        found.ended(run)
    assert found.take() is None and len(set(names)) == 4
    assert [run.name for run in Sweep.read(tmp_path).runs] == names
    found.close()
    assert said == [f"best: {names[1]} ({METRIC} -1) of 4 trials"]
    more = queue(tmp_path, search(trials=5))
    assert taken(more).name not in names
    assert more.take() is None


def test_a_search_that_was_killed_goes_on_with_what_it_had_begun(tmp_path):
    """After the proposal, in the middle of a training, and between a training's end and the study's hearing of it."""
    found = queue(tmp_path, search(trials=3))
    begun, ended, broken = (taken(found) for _ in range(3))
    log(begun, -5.0)
    log(ended, -1.0)
    finish(ended)
    failed(broken, "out of memory", 1)
    found.ended(broken)
    again = queue(tmp_path, search(trials=3))
    assert again._study.values() == {1: -1.0}
    runs = [taken(again), taken(again)]
    assert [run.name for run in runs] == [begun.name, broken.name] and again.take() is None
    for run in runs:
        log(run, -2.0)
        finish(run)
        again.ended(run)
    assert queue(tmp_path, search(trials=3)).take() is None
    assert queue(tmp_path, search(trials=3))._study.values() == {0: -2.0, 1: -1.0, 2: -2.0}


def test_a_hopeless_run_is_stopped_and_not_trained_again(tmp_path):
    found = queue(tmp_path, search(pruner="asha", reduction=2))
    first = taken(found)
    assert found.verdict(first) is None  # nothing logged
    log(first, -1.0)
    assert found.verdict(first) is None
    finish(first)
    found.ended(first)
    second = taken(found)
    log(second, -1.0, name="train/loss")
    assert found.verdict(second) is None
    log(second, -7.0)
    verdict = found.verdict(second)
    assert verdict is not None and verdict.step == 10
    assert verdict.reason == "eval/elbo -7 at step 10 is not among the best 50% of the runs that came as far"
    stopped(second, verdict)
    found.ended(second)
    assert second.state == "stopped" and second.reason == verdict.reason
    assert taken(queue(tmp_path, search(pruner="asha", reduction=2))).name not in (first.name, second.name)


def test_what_is_proposed_twice_is_trained_once(tmp_path):
    found = queue(tmp_path, search(space={"seed": Choice(3)}, trials=3))
    run = taken(found)
    assert found.take() is None
    log(run, -1.0)
    finish(run)
    found.ended(run)
    assert found._study.values() == {0: -1.0, 1: -1.0, 2: -1.0} and len(found.sweep.runs) == 1


def test_what_trains_in_this_process_finds_the_experiments_of_its_runs(tmp_path):
    found = queue(tmp_path, search())
    first, second = taken(found), taken(found)
    plans = [found.plan(run) for run in (first, second)]
    for run, plan in zip((first, second), plans, strict=True):
        assert plan.config["optim"]["learning_rate"] == run.overrides["optim.learning_rate"]
    assert plans[0].train is plans[1].train and len(populations.grouped(dict(enumerate(plans)))) == 1


def test_a_proposal_that_cannot_be_trained_fails_alone(tmp_path):
    said: list[str] = []
    found = queue(tmp_path, search(space={"batch_size": Choice(-1, 8)}, trials=6, sampler="random"), said)
    run = taken(found)
    assert run.overrides == {"batch_size": 8}
    while found.take() is not None:
        pass
    bad = next(run for run in found.sweep.runs if run.overrides == {"batch_size": -1})
    assert bad.state == "failed" and "batch_size=-1 is too small" in bad.reason and len(said) == 1
    assert said[0].startswith("failed: batch_size=-1: ")


def test_a_search_for_a_metric_that_no_run_logs_ends(tmp_path):
    found = queue(tmp_path, search(metric="eval/elbow"))
    run = taken(found)
    log(run, -1.0)
    finish(run)
    found.ended(run)
    assert found.take() is None
    with pytest.raises(UserError, match=r"eval/elbow, which no run logs; accepted: eval/elbo"):
        found.close()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"optim.learning_rat": Range(0.1, 0.2)}, "optim.learning_rat is no setting"),
        ({"model.family": Choice("veal")}, "model.family='veal' is unknown"),
        ({"batch_size": Range(0.5, 0.6)}, "accepted: int"),
    ],
)
def test_a_space_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, space, message):
    folder = tmp_path / "new"
    sweep = Sweep.begun(str(folder), "configs/vae/digits_conv.py:smoke", [], "local", "", "max")
    with pytest.raises(UserError, match=message):
        checked(search(space=space), digits_conv.get_config("accelerator=cpu,smoke"), sweep)
    assert not folder.exists()
