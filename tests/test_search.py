"""Searches without training: what is proposed, what is stopped, and what a search that was killed remembers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from genjax.sweep import Choice, Range, Search, when
from genjax.sweep.study import Study, begun
from genjax.types import UserError

SPACE = {
    "optim.learning_rate": Range(1e-5, 1e-1, "log"),
    "model.ema_decay": Range(0.9, 0.9999, "log_to_one"),
    "model.width": Range(8, 64, "log", integer=True),
    "model.mult": Choice((1, 2), (1, 2, 4)),
    "optim.name": Choice("adam", "sgd"),
    "optim.momentum": when("optim.name", "sgd", Range(0.0, 0.99)),
}


def search(**changes: Any) -> Search:
    return Search(**({"space": SPACE, "metric": "eval/loss", "mode": "min", "trials": 30, "startup": 5} | changes))


def loss(overrides: dict[str, Any]) -> float:
    """Lowest at a learning rate of 1e-3, and lower with momentum near 0.9 than with the other optimizer."""
    value = (math.log10(overrides["optim.learning_rate"]) + 3) ** 2 + 0.1 * (overrides["model.width"] != 32)
    return value + (1 + (overrides["optim.momentum"] - 0.9) ** 2 if overrides["optim.name"] == "sgd" else 2)


def best_of(what: Search) -> float:
    study = Study(what, None)
    for _ in range(what.trials):
        trial = study.ask()
        study.finish(trial.number, loss(trial.overrides))
    return min(study.values().values())


def test_a_model_of_the_results_finds_better_settings_than_chance():
    pairs = [[best_of(search(sampler=sampler, seed=seed)) for sampler in ("tpe", "random")] for seed in range(8)]
    assert sum(tpe < random for tpe, random in pairs) >= 7, pairs
    # What the sampler must not do: the same draws again whenever it is made anew.
    first = [Study(search(seed=seed), None).ask().overrides["optim.learning_rate"] for seed in range(8)]
    assert len(set(first)) == 8


def test_proposals_lie_in_the_space():
    study = Study(search(sampler="random"), None)
    proposed = [study.ask().overrides for _ in range(60)]
    assert len({o["optim.learning_rate"] for o in proposed}) == 60
    for overrides in proposed:
        assert 1e-5 <= overrides["optim.learning_rate"] <= 1e-1
        assert overrides["model.mult"] in ((1, 2), (1, 2, 4))
        assert type(overrides["model.width"]) is int and 8 <= overrides["model.width"] <= 64
        assert 0.9 <= overrides["model.ema_decay"] <= 0.9999
        assert ("optim.momentum" in overrides) == (overrides["optim.name"] == "sgd")
    assert 15 < sum(o["optim.name"] == "sgd" for o in proposed) < 45
    decays = [o["model.ema_decay"] for o in proposed]
    assert 20 < sum(decay > 0.996838 for decay in decays) < 40  # the middle of the scale
    assert sum(o["optim.learning_rate"] < 1e-3 for o in proposed) in range(20, 41)


def trace(path: Any, killed: bool, trials: int = 6) -> list[dict[str, Any]]:
    """Proposals of a search, which forgets everything but its file after each event if it is ``killed``."""
    what = search(seed=3, startup=3)
    study = Study(what, path)
    proposed = []
    for _ in range(trials):
        trial = study.ask()
        if killed:
            study = Study(what, path)
            (again,) = study.unfinished()
            assert again == trial
        study.report(trial.number, [2.0, 1.0])
        if killed:
            study = Study(what, path)
        study.report(trial.number, [2.0, 1.0, 0.5])
        study.finish(trial.number, loss(trial.overrides))
        if killed:
            study = Study(what, path)
        proposed.append(trial.overrides)
    assert study.unfinished() == [] and len(study) == trials
    return proposed


def test_a_search_that_was_killed_proposes_what_it_would_have(tmp_path):
    assert trace(tmp_path / "optuna.sqlite", killed=True) == trace(None, killed=False)


def run_rungs(study: Study, levels: list[float], evaluations: int = 9) -> list[int | None]:
    """Trials whose metric is constant, one after the other: where each was stopped."""
    stopped = []
    for level in levels:
        number = study.ask().number
        seen = [study.report(number, [level] * count) for count in range(1, evaluations + 1)]
        at = next((count for count in seen if count is not None), None)
        assert at is None or seen[at - 1] == at
        study.finish(number, level) if at is None else study.prune(number)
        stopped.append(at)
    return stopped


@pytest.mark.parametrize("mode", ["min", "max"])
def test_hopeless_trials_are_stopped_at_rungs(mode):
    sign = 1.0 if mode == "min" else -1.0
    levels = [sign * level for level in (3.0, 4.0, 5.0, 2.0, 1.0, 6.0)]
    asha = {"pruner": "asha", "first_rung": 1, "reduction": 3, "mode": mode}
    assert run_rungs(Study(search(**asha), None), levels) == [None, 1, 1, None, None, 1]
    assert run_rungs(Study(search(**asha | {"first_rung": 4}), None), levels) == [None, 4, 4, None, None, 4]
    assert run_rungs(Study(search(pruner="none", mode=mode), None), levels) == [None] * 6


def test_a_verdict_outlives_the_search_that_found_it(tmp_path):
    what = search(pruner="asha")
    study = Study(what, tmp_path / "optuna.sqlite")
    assert run_rungs(study, [1.0]) == [None]
    number = study.ask().number
    assert study.report(number, [2.0, 0.1]) == 1
    assert Study(what, tmp_path / "optuna.sqlite").report(number, [2.0, 0.1, 0.1]) == 1


def test_what_diverged_is_worse_than_all_others():
    study = Study(search(), None)
    for value in (math.nan, math.inf, 1.0):
        study.finish(study.ask().number, value)
    assert study.values() == {2: 1.0} and study.unfinished() == []


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"mode": "lowest"}, "mode='lowest'.*max, min"),
        ({"sampler": "cma"}, "sampler='cma'.*tpe, random"),
        ({"pruner": "median"}, "pruner='median'.*asha, none"),
        ({"trials": 0}, "trials=0.*1 or more"),
        ({"reduction": 1}, "reduction=1.*2 or more"),
        ({"metric": ""}, "metric"),
        ({"space": {}}, "space"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(changes, complaint):
    with pytest.raises(UserError, match=complaint):
        search(**changes)


def test_a_study_of_something_else_is_refused(tmp_path):
    path = tmp_path / "optuna.sqlite"
    study = Study(search(), path)
    study.report(study.ask().number, [1.0])
    for other in (search(metric="eval/accuracy"), search(mode="max")):
        for opened in (Study, begun):
            with pytest.raises(UserError, match="holds a search for .*loss.*min.*, not for .*(accuracy|max)"):
                opened(other, path)
    with pytest.raises(UserError, match="began with another space"):
        Study(search(space=SPACE | {"optim.name": Choice("adam", "sgd", "lion")}), path).ask()
    (tmp_path / "text.sqlite").write_text("no database at all, but text that is long enough to be looked at\n" * 20)
    with pytest.raises(UserError, match="cannot use .*text.sqlite"):
        Study(search(), tmp_path / "text.sqlite")


@pytest.mark.parametrize("change", [{"metric": "eval/accuracy"}, {"mode": "max"}])
def test_what_is_looked_for_may_change_while_nothing_was_found(tmp_path, change):
    path = tmp_path / "optuna.sqlite"
    assert begun(search(), path) == 0 and not path.exists()
    study = Study(search(), path)
    first, diverged, last = (study.ask() for _ in range(3))
    study.prune(diverged.number)
    other = search(pruner="asha", reduction=2, **change)
    before = path.read_bytes()
    assert begun(other, path) == 3 and path.read_bytes() == before
    study = Study(other, path)
    assert study.unfinished() == [first, last] and len(study) == 3
    assert study.report(first.number, [1.0]) is None
    assert study.report(last.number, [2.0]) == (None if "mode" in change else 1)  # the worse one
    with pytest.raises(UserError, match="holds a search for"):
        Study(search(), path)
    study.finish(first.number, 1.0)
    assert Study(other, path).values() == {0: 1.0}
