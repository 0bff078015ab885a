"""Two groups of runs: the interval of their difference, its words, and numbers that must not be compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from genjax.evaluators.verdict import mismatch, smaller_is_better, verdict
from tests.cli.commands import one_line, run_many


def test_the_interval_is_welchs():
    rng = np.random.default_rng(0)
    first, second = rng.normal(1.0, 0.5, 6), rng.normal(0.2, 2.0, 9)
    found = verdict(first, second, smaller=False)
    test = stats.ttest_ind(first, second, equal_var=False)
    interval = test.confidence_interval(0.95)
    half = 0.5 * (interval.high - interval.low)
    assert found.difference == pytest.approx(first.mean() - second.mean())
    # Degrees of freedom are rounded down: a little wider, never narrower.
    assert half <= found.half_width < 1.1 * half
    equal_variance = stats.ttest_ind(first, second).confidence_interval(0.95)
    assert abs(found.half_width / (0.5 * (equal_variance.high - equal_variance.low)) - 1) > 0.05


def test_it_sees_no_difference_nineteen_times_in_twenty_where_there_is_none():
    rng = np.random.default_rng(1)
    seen = [verdict(rng.normal(size=5), rng.normal(size=5), smaller=True).seen for _ in range(400)]
    assert np.mean(seen) < 0.08
    assert np.mean([verdict(rng.normal(size=5) + 4, rng.normal(size=5), smaller=True).seen for _ in range(100)]) > 0.95


@pytest.mark.parametrize("smaller, better", [(True, "B"), (False, "A")])
def test_the_words_follow_the_direction(smaller, better):
    first, second = [3.0, 3.1, 2.9], [1.0, 1.1, 0.9]
    assert verdict(first, second, smaller).line().startswith(f"{better} better by 2 +/- 0.2")
    assert verdict(first, first, smaller).line().startswith("no difference seen: ")
    assert verdict([1.0, 1.0], [1.0, 1.0], smaller).seen is False


@pytest.mark.parametrize("first, message", [([1.0], "a group of 1 has no scatter"), ([1.0, np.nan], "not finite")])
def test_groups_that_cannot_be_compared(first, message):
    with pytest.raises(ValueError, match=message):
        verdict(first, [1.0, 2.0], smaller=True)


def test_directions_are_known_by_name():
    assert smaller_is_better("distribution/frechet_distance") is True
    assert smaller_is_better("eval/accuracy") is False
    assert smaller_is_better("bound/importance_bound_500") is False
    assert smaller_is_better("eval/value") is None


def test_records_of_other_protocols_do_not_match():
    record = {"data": {"split": "test", "where": "here"}, "examples": 10, "seed": 0, "scalars": {"a": 1.0}}
    assert mismatch(record, {**record, "seed": 1, "scalars": {"a": 2.0}}) is None
    assert mismatch(record, {**record, "data": {"split": "test", "where": "there"}}) is None
    assert str(mismatch(record, {**record, "examples": 20})).startswith("examples is 10 in one")
    assert str(mismatch(record, {**record, "protocol": "mnist_2k"})).startswith("protocol is None in one")


def written(folder: Path, name: str, accuracy: float, examples: int = 10) -> str:
    record = {"data": {"split": "test"}, "examples": examples, "scalars": {"accuracy": accuracy, "own": 1.0}}
    (folder / name).mkdir()
    (folder / name / "evaluation.json").write_text(json.dumps({"evaluators": {"eval": record}}))
    return str(folder / name)


def test_the_command(tmp_path):
    good = [written(tmp_path, f"good{i}", 0.9 + 0.01 * i) for i in range(3)]
    bad = [written(tmp_path, f"bad{i}", 0.5 + 0.01 * i) for i in range(3)]
    other = written(tmp_path, "other", 0.5, examples=20)
    groups = [f"--a={','.join(good)}", f"--b={','.join(bad)}"]
    cases = {
        "across": [f"--a={','.join(good)}", f"--b={bad[0]},{other}", "--metric=eval/accuracy"],
        "unknown": [*groups, "--metric=eval/nll"],
        "direction": [*groups, "--metric=eval/own"],
        "missing": [*groups[:1], f"--b={tmp_path / 'none'},{bad[0]}", "--metric=eval/accuracy"],
        "one": [f"--a={good[0]}", groups[1], "--metric=eval/accuracy"],
        "twice": [groups[0], f"--b={good[0]},{bad[0]}", "--metric=eval/accuracy"],
    }
    compared, across, *refused = run_many(
        [
            ("compare", [*groups, "--metric=eval/accuracy"]),
            ("compare", [*cases["across"], "--across_protocols"]),
            *(("compare", arguments) for arguments in cases.values()),
        ]
    )
    assert compared.status == across.status == 0, (compared, across)
    lines = compared.out.splitlines()
    assert lines[0] == "A: eval/accuracy 0.91 (0.9, 0.91, 0.92)"
    assert lines[-1].startswith("A better by 0.4 +/- 0.02")
    messages = (
        "examples is 10 in one and 20 in the other",
        "accepted: eval/accuracy, eval/own",
        "which way is better is not known",
        "no such folder; accepted: work folders with evaluation.json",
        "a group of 1 has no scatter",
        "named twice",
    )
    for answer, message in zip(refused, messages, strict=True):
        assert message in one_line(answer), answer
