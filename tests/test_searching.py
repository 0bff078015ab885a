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
TOTAL = 60  # steps of each run
SPACE = {"optim.learning_rate": Range(1e-4, 1e-1, "log")}


def settings(**evaluators: str):
    """A config with evaluators that are due every 2 steps, unless given."""
    config = digits_conv.get_config("accelerator=cpu,smoke")
    config.total = f"{TOTAL} steps"
    for name, every in evaluators.items():
        config.evaluators[name].every = every
    return config


def search(**changes) -> Search:
    return Search(**({"space": SPACE, "metric": METRIC, "trials": 4, "startup": 2} | changes))


def queue(folder: Path, what: Search, said: list[str] | None = None, **evaluators: str) -> Searched:
    folder.mkdir(exist_ok=True)
    sweep = Sweep.begun(str(folder), "configs/vae/digits_conv.py:smoke", [], "local", "", "max")
    return Searched(sweep, what, settings(**evaluators), [].append if said is None else said.append)


def taken(queue: Searched) -> SweepRun:
    run = queue.take()
    assert run is not None
    return run


def log(run: SweepRun, *values: float, name: str = METRIC, every: int = 10) -> None:
    """What a training writes: a config when it begins, a record at each evaluation."""
    if not run.workdir.config.exists():
        write_json(run.workdir.config, build.to_plain(sweeping.with_overrides(settings(), run.overrides)))
    with open(run.workdir.metrics, "a") as file:
        file.writelines(json.dumps({"step": every * (i + 1), name: value}) + "\n" for i, value in enumerate(values))


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


def test_a_run_that_is_trained_to_its_end_is_not_stopped(tmp_path):
    """Its last evaluations go on for longer than its steps did."""
    found = queue(tmp_path, search(pruner="asha", reduction=2, first_rung=3))
    first, second, third = (taken(found) for _ in range(3))
    log(first, -1.0, -1.0, -1.0, every=TOTAL // 3)
    assert found.verdict(first) is None
    log(second, -7.0, -7.0, -7.0, every=TOTAL // 3)  # the third at the end, where a run is not compared any more
    assert found.verdict(second) is None
    log(second, -7.0, name="eval/bound", every=TOTAL)
    assert found.verdict(second) is None
    for run in (first, second):
        finish(run)
        found.ended(run)
    assert found._study.values() == {0: -1.0, 1: -7.0}
    log(third, -1.0, -1.0, -8.0, -8.0, -8.0, -8.0)
    assert found.verdict(third) is None  # seen too late, whatever its rungs say


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


END = dict.fromkeys(("bound", "samples", "reconstructions", "interpolations"), "end")


@pytest.mark.parametrize(
    ("wrong", "evaluators"),
    [
        ({"metric": "elbo"}, {"bound": "2 steps"}),
        ({"metric": "eval/elbow", "pruner": "asha"}, END),
    ],
)
def test_a_wrong_metric_is_found_at_the_first_evaluation_and_can_be_corrected(tmp_path, wrong, evaluators):
    found = queue(tmp_path, search(**wrong), **evaluators)
    first, second = taken(found), taken(found)
    for run in (first, second):
        write_json(run.workdir.config, found.plan(run).config)
    log(first, -1.0, name="train/loss")
    assert found.verdict(first) is None and found.verdict(second) is None
    log(first, -1.0)
    verdicts = [found.verdict(run) for run in (first, second)]
    log(second, -1.0, name="eval/kl")  # once more, before it leaves
    later = found.verdict(second)
    assert later is not None and verdicts[1] is not None and later.reason == verdicts[1].reason and found.take() is None
    message = f"for {wrong['metric']}, which no evaluation during training gives; accepted: eval/elbo"
    for run, verdict in zip((first, second), verdicts, strict=True):
        assert verdict is not None and verdict.reason.endswith(message)
        stopped(run, verdict)
        found.ended(run)
        assert run.state == "begun"
    with pytest.raises(UserError, match=message):
        found.close()
    again = queue(tmp_path, search(), **evaluators)
    assert [taken(again).name, taken(again).name] == [first.name, second.name]
    assert again.verdict(first) is None
    with pytest.raises(UserError, match="holds a search for"):
        queue(tmp_path, search(**wrong))


def test_a_metric_that_may_come_later_is_waited_for(tmp_path):
    later = {
        "steps": (search(metric="eval/nll"), {"bound": "20 steps"}),  # the evaluator is not due at 10
        "end": (search(metric="eval/nll"), {"bound": "end"}),
        "train": (search(metric="train/loss"), {"bound": "2 steps"}),
    }
    for name, (what, evaluators) in later.items():
        found = queue(tmp_path / name, what, **evaluators)
        run = taken(found)
        log(run, -1.0)
        assert found.verdict(run) is None and found.take() is not None, name


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
