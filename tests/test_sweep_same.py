"""Which runs of a sweep are the same run, from folders of the tests' own making."""

from __future__ import annotations

from pathlib import Path

from experiments.sweep_folder import Sweep
from genjax.io.files import write_json
from genjax.sweep import chain, product, seeds, values

BASE = {"seed": 0, "batch_size": 8, "total": "4 steps", "optim": {"learning_rate": 5e-4}, "model": {"sizes": (1, 2)}}
RATES = values("optim.learning_rate", 1e-3, 2e-3)


def begun(path: Path, runs: list[dict], **changed) -> Sweep:
    """A sweep whose runs have configs."""
    sweep, _ = Sweep.begun(str(path), "configs/vae/digits_conv.py", [], "local", "", "max").with_runs(runs)
    for run in sweep.runs:
        optim = {"learning_rate": run.overrides.get("optim.learning_rate", 5e-4)}
        own = {name: value for name, value in run.overrides.items() if name in BASE}
        write_json(run.workdir.config, {**BASE, "accelerator": {"devices": 1}, "optim": optim, **changed, **own})
    return sweep


def names(sweep: Sweep, runs: list[dict]) -> list[str]:
    """Of the runs that ``runs`` are; those that the sweep does not have yet come behind a plus."""
    there = {run.name for run in sweep.runs}
    after, found = sweep.with_runs(runs)
    assert [run.name for run in after.runs[len(there) :]] == [run.name for run in found if run.name not in there]
    return [run.name if run.name in there else f"+{run.name}" for run in found]


def test_seeds_that_are_added_leave_out_the_one_that_was_trained(tmp_path):
    sweep = begun(tmp_path / "sweep", RATES)
    wanted = [
        "learning_rate=0.001",
        "+learning_rate=0.001,seed=1",
        "learning_rate=0.002",
        "+learning_rate=0.002,seed=1",
    ]
    assert names(sweep, product(RATES, seeds(2))) == wanted
    assert sweep.with_runs(product(RATES, seeds(2)))[1][0].overrides == RATES[0]  # as its folder was begun
    assert names(sweep, RATES) == ["learning_rate=0.001", "learning_rate=0.002"]
    other = begun(tmp_path / "other", RATES, seed=1)
    assert names(other, product(RATES[:1], seeds(2))) == ["+learning_rate=0.001,seed=0", "learning_rate=0.001"]


def test_what_the_config_says_itself_is_no_other_run(tmp_path):
    sweep = begun(tmp_path / "sweep", [{}])
    same = [{"optim.learning_rate": 5e-4}, {"total": "4 steps", "batch_size": 8.0}, {"model.sizes": (1, 2)}, {}]
    assert names(sweep, same) == ["unchanged"]
    assert names(sweep, [{"seed": False}, {"model.sizes": (2, 1)}]) == ["+seed=False", "+sizes=2x1"]
    assert names(sweep, chain(RATES[:1], product(RATES[:1], seeds(1)))) == ["+learning_rate=0.001"]  # none begun yet
    assert names(sweep, [{"accelerator.devices": 1}]) == ["+devices=1"]  # the machine is no part of a run


def test_what_is_not_known_of_the_config_is_another_run(tmp_path):
    sweep = begun(tmp_path / "sweep", RATES)
    twice = product(RATES[:1], seeds(1))
    assert names(sweep, twice) == ["learning_rate=0.001"]
    write_json(sweep.runs[1].workdir.config, {**BASE, "seed": 7})  # its file was changed in between
    assert names(sweep, twice) == ["+learning_rate=0.001,seed=0"]
    sweep.runs[1].workdir.config.write_text("{")
    assert names(sweep, twice) == ["learning_rate=0.001"]
    sweep.runs[0].workdir.config.unlink()
    assert names(sweep, twice) == ["+learning_rate=0.001,seed=0"]


def test_runs_that_were_begun_twice_stay_two(tmp_path):
    sweep = begun(tmp_path / "sweep", RATES[:1])
    twice = [*RATES[:1], *product(RATES[:1], seeds(1))]
    both = begun(tmp_path / "both", twice)
    assert names(both, twice) == ["learning_rate=0.001", "learning_rate=0.001,seed=0"]
    assert names(sweep, twice) == ["learning_rate=0.001"]
