"""Runs of one config become one group: its mean, Student's interval, and what must not be averaged."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from experiments.groups import groups_of, measured, own_interval, read_run
from experiments.results import collect
from genjax.evaluators.verdict import mean_interval
from genjax.types import UserError
from tests.fake_runs import work_folder

CARD = {"protocol": "mnist_2k", "version": 1, "settings": {"samples": 2000}}


@pytest.fixture
def grouped(tmp_path):
    """Collects work folders and groups them."""

    def group(*folders):
        for folder in folders:
            collect(folder, tmp_path / "collected" / folder.name)
        return groups_of(read_run(tmp_path / "collected" / folder.name) for folder in folders)

    return group


def test_seeds_of_one_config_are_one_group(tmp_path, grouped):
    values = [0.90, 0.93, 0.91]
    (group,) = grouped(*(work_folder(tmp_path / f"r{i}", {"accuracy": v}, seed=i) for i, v in enumerate(values)))
    (figure,) = group.figures
    assert (group.name, figure.name, figure.seeds) == ("classifier/my_model", "eval/accuracy", (0, 1, 2))
    assert figure.mean == pytest.approx(np.mean(values))
    assert (figure.low, figure.high) == pytest.approx(stats.t.interval(0.95, 2, np.mean(values), stats.sem(values)))
    assert not group.missed


def test_the_interval_is_students_and_covers(tmp_path):
    rng = np.random.default_rng(0)
    for count in (2, 3, 5, 30):
        values = rng.normal(3.0, 2.0, count)
        expected = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
        assert mean_interval(values) == pytest.approx(expected, rel=1e-9)
        normal = 1.96 * stats.sem(values)
        assert mean_interval(values)[1] - values.mean() > normal  # which is what a normal interval would miss
    covered = [low < 0.0 < high for low, high in (mean_interval(rng.normal(size=3)) for _ in range(1000))]
    assert 0.93 < np.mean(covered) < 0.97
    with pytest.raises(ValueError, match="1 runs have no scatter"):
        mean_interval([1.0])


def test_a_single_seed_has_its_own_interval(tmp_path, grouped):
    record = {"accuracy_interval_95": [0.8, 0.95], "standard_error": {"nll": 0.1}}
    scalars = {"accuracy": 0.9, "nll": 1.0, "calibration_error": 0.1}
    (group,) = grouped(work_folder(tmp_path / "one", scalars, record=record))
    bounds = {figure.metric: (figure.low, figure.high) for figure in group.figures}
    assert bounds["accuracy"] == (0.8, 0.95)
    assert bounds["nll"] == pytest.approx(stats.norm.interval(0.95, 1.0, 0.1))
    assert bounds["calibration_error"] == (None, None)
    assert own_interval({"scalars": {"a": 1.0}, "intervals_95": {"a": [0.0, 3.0]}}, "a") == (0.0, 3.0)


@pytest.mark.parametrize(
    "other",
    [
        {"config": {"model": {"family": "classifier", "width": 64}}},
        {"config": {"batch_size": 16}},
        {"config": {"accelerator": {"compute_dtype": "bfloat16", "accumulation": 1, "platform": "gpu"}}},
    ],
)
def test_another_setting_is_another_group(tmp_path, grouped, other):
    found = grouped(
        work_folder(tmp_path / "a", {"accuracy": 0.9}, seed=0),
        work_folder(tmp_path / "b", {"accuracy": 0.8}, seed=1, **other),
    )
    assert [len(group.runs) for group in found] == [1, 1]
    assert len({group.name for group in found}) == 2


def test_a_group_is_called_by_what_the_command_changed(tmp_path, grouped):
    argv = ("--config=configs/my_family/my_model.py:accelerator=cpu", "--config.model.width=64")
    wide = {"model": {"family": "classifier", "width": 64}}
    found = grouped(
        work_folder(tmp_path / "a", {"accuracy": 0.9}),
        work_folder(tmp_path / "b", {"accuracy": 0.9}, config=wide, argv=argv),
        work_folder(tmp_path / "c", {"accuracy": 0.9}, config=wide, argv=argv, seed=1),
    )
    assert [group.name for group in found] == ["classifier/my_model", "classifier/my_model model.width=64"]
    assert [len(group.runs) for group in found] == [1, 2]


@pytest.mark.parametrize(
    "other",
    [
        {"record": {"examples": 50}},
        {"record": {**CARD, "version": 2}},
        {"record": {**CARD, "settings": {"samples": 10}}},
        {"evaluation": {"weights": "last"}},
        {"evaluation": {"step": 9}},
        {"evaluation": {"settings": {"model.sampler.num_steps": 4}}},
        {"evaluation": {"guide": {"run": "small", "step": 3, "scale": 2.0}}},
    ],
)
def test_numbers_of_different_protocols_are_not_averaged(tmp_path, grouped, other):
    record = CARD if "protocol" in other.get("record", {}) else {}
    (group,) = grouped(
        work_folder(tmp_path / "a", {"accuracy": 0.9}, seed=0, record=record),
        work_folder(tmp_path / "b", {"accuracy": 0.5}, seed=1, **other),
        work_folder(tmp_path / "c", {"accuracy": 0.7}, seed=2, record=record),
    )
    assert [(figure.mean, figure.seeds) for figure in group.figures] == [(pytest.approx(0.8), (0, 2)), (0.5, (1,))]


def test_the_same_seed_twice_is_refused(tmp_path, grouped):
    folders = [work_folder(tmp_path / name, {"accuracy": 0.9}, seed=3) for name in "ab"]
    with pytest.raises(UserError, match="same config and seed 3"):
        grouped(*folders)


def test_examples_seen(tmp_path, grouped):
    old = work_folder(tmp_path / "a", {"accuracy": 0.9})
    gan = {"model": {"family": "gan", "discriminator_updates": 5}}
    older = work_folder(tmp_path / "b", {"accuracy": 0.9}, config=gan)
    new = work_folder(tmp_path / "c", {"accuracy": 0.9}, evaluation={"examples_seen": 77}, seed=4)
    found = {run.name: run.examples_seen for group in grouped(old, older, new) for run in group.runs}
    assert found == {"a": 10 * 8, "b": 10 * 8 * 5, "c": 77}


def test_the_command_can_be_pasted(tmp_path, grouped):
    (group,) = grouped(
        work_folder(tmp_path / "a", {"accuracy": 0.9}, argv=("--config=a.py", "--config.total=3 epochs"))
    )
    assert (
        group.runs[0].command == "python -m experiments.train --config=a.py '--config.total=3 epochs' --config.seed=0"
    )


def test_what_was_measured_in_words():
    record = {"step": 12345, "weights": "last", "checkpoint": "best", "settings": {"a.b": 1}}
    assert measured(record) == "step 12,345, last weights, best checkpoint, a.b=1"
