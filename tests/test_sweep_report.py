"""The report of a sweep's folder and what TensorBoard is given of it, from run folders of the tests' own making."""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
from tensorboard.plugins.hparams import plugin_data_pb2

from configs.args import Args
from configs.base import base
from experiments import sweep_board, sweep_figures, sweep_outcomes, sweep_report
from experiments.executors.base import Verdict, failed, stopped
from experiments.sweep_folder import Sweep
from genjax.evaluators.verdict import mean_interval
from genjax.io.files import write_json
from genjax.io.writer import Writer
from genjax.sweep import chain, product, seeds, values
from genjax.train.member import HPARAMS
from genjax.types import UserError
from tests.cli.commands import ROOT, one_line, run_many

METRIC = "eval/elbo"
RUNS = chain(
    product(values("optim.learning_rate", 1e-4, 1e-3, 1e-1), seeds(3)),
    product(values("optim.name", "sgd"), seeds(1)),
)


def elbo(overrides: dict) -> float:
    """Best at 1e-3, far worse at 1e-1."""
    if "optim.name" in overrides:
        return -30.0
    return {1e-4: -22.0, 1e-3: -20.0, 1e-1: -900.0}[overrides["optim.learning_rate"]] + 0.1 * overrides["seed"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A sweep of ten runs: seven finished, one stopped, one diverged, one failed."""
    path = tmp_path_factory.mktemp("report") / "sweep"
    sweep = Sweep.begun(str(path), "configs/vae/digits_conv.py:accelerator=cpu", [], "local", METRIC, "max")
    sweep, runs = sweep.with_runs(RUNS)
    for run in runs:
        with Writer(run.path) as writer:
            for step in (10, 20):
                writer.scalars(step, {METRIC: elbo(run.overrides) - (step == 10), "eval/kl": 1.0, "train/loss": 2.0})
            writer.hparams({**run.overrides, "batch_size": 8}, {METRIC: 0.0})
        write_json(run.workdir.config, {})
        record = {"evaluators": {"eval": {"scalars": {"elbo": elbo(run.overrides)}}}, "finished": True}
        seed = run.overrides["seed"]
        if run.overrides.get("optim.learning_rate") == 1e-1 and seed == 1:
            stopped(run, Verdict("not worth it", 10))
        elif run.overrides.get("optim.learning_rate") == 1e-1 and seed == 2:
            write_json(run.workdir.diverged, {"step": 21, "message": "step 21: loss nan"})
        elif "optim.name" in run.overrides:
            failed(run, "a | broken disk", 1)
        else:
            write_json(run.workdir.evaluation, record)
    sweep.write()
    return path


def test_settings_are_ranked_by_the_means_of_their_seeds(folder):
    found = sweep_outcomes.found(Sweep.read(folder))
    assert [setting.overrides for setting in found.settings] == [
        {"optim.learning_rate": 1e-3},
        {"optim.learning_rate": 1e-4},
        {"optim.learning_rate": 1e-1},
        {"optim.name": "sgd"},
    ]
    best, second, worst, none = found.settings
    assert best.mean == pytest.approx(-19.9) and (best.low, best.high) == mean_interval([-20.0, -19.9, -19.8])
    assert second.values == [-22.0, -21.9, -21.8] and worst.values == [-900.0] and worst.low is None
    assert none.mean is None
    flipped = sweep_outcomes.found(Sweep.read(folder), f"{METRIC}:min")  # by which 0.1 is the best of its one seed
    assert [setting.overrides for setting in flipped.settings] == [s.overrides for s in (second, best, worst, none)]


def test_a_setting_whose_seeds_diverged_is_behind_all_whose_did_not(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "sweep", symlinks=True)
    best = [run for run in Sweep.read(copy).runs if run.overrides.get("optim.learning_rate") == 1e-3]
    best[0].workdir.evaluation.unlink()
    write_json(best[0].workdir.diverged, {"step": 21, "message": "step 21: loss nan"})
    found = sweep_outcomes.found(Sweep.read(copy))
    rates = [setting.overrides.get("optim.learning_rate") for setting in found.settings]
    assert rates == [1e-4, 1e-3, 1e-1, None]  # by the share of seeds that diverged, the last two a third each
    first, *others = sweep_report.verdicts(found)
    assert first.startswith("best: learning_rate=0.0001") and "diverged" not in first
    assert "against the next, learning_rate=0.001 (1 of 3 seeds diverged): the next better by 2.05" in others[0]
    assert "| 2 finished, 1 diverged; 1 of 3 seeds diverged |" in sweep_report.page(found)
    with open(best[1].workdir.metrics, "a") as file:  # a number that is none counts the same
        file.write(json.dumps({"step": 30, METRIC: "NaN"}) + "\n")
    found = sweep_outcomes.found(Sweep.read(copy))
    rates = [setting.overrides.get("optim.learning_rate") for setting in found.settings]
    assert rates == [1e-4, 1e-1, 1e-3, None]
    assert "| 2 finished, 1 diverged; 2 of 3 seeds diverged |" in sweep_report.page(found)


def test_a_best_setting_says_that_seeds_of_it_diverged(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "sweep", symlinks=True)
    for run in Sweep.read(copy).runs:
        if run.overrides["seed"] == 0:
            run.workdir.evaluation.unlink(missing_ok=True)
            write_json(run.workdir.diverged, {"step": 21, "message": "step 21: loss nan"})
    found = sweep_outcomes.found(Sweep.read(copy))
    first = sweep_report.verdicts(found)[0]
    assert first.startswith("best: learning_rate=0.001:")
    assert "(mean of 2 seeds, 95 % interval of the mean, 1 of 3 seeds diverged)" in first
    assert sweep_report.table(found)[-1][-1] == "1 diverged; its one seed diverged"  # of optim.name=sgd


def test_the_page_names_the_best_and_how_sure_that_is(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "sweep", symlinks=True)
    (answer, _) = run_many([("report", [str(copy)]), ("report", [str(copy), "--metric=eval/kl"])], cwd=ROOT)
    assert answer.status == 0 and answer.err == "", answer
    page = (copy / "report" / "report.md").read_text()
    assert "eval/kl, smaller is better" in page  # of the second call
    found = sweep_outcomes.found(Sweep.read(copy))
    sweep_report.write(found)
    page = (copy / "report" / "report.md").read_text()
    low, high = mean_interval([-20.0, -19.9, -19.8])
    line = f"best: learning_rate=0.001: {METRIC} -19.9 [{low:.5g}, {high:.5g}] (mean of 3 seeds"
    assert line in page and line in answer.out
    assert "the best better by 2 +/- " in page
    assert "10 runs of 4 settings (7 finished, 1 stopped, 1 diverged, 1 failed)" in page
    assert "| 0.1 |  | -900 |  | 1 finished, 1 stopped, 1 diverged; 1 of 3 seeds diverged |" in page
    assert r"| a \| broken disk |" in page and "| step 21: loss nan |" in page and "not worth it" in page
    rows = list(csv.DictReader(io.StringIO((copy / "report" / "runs.csv").read_text())))
    assert len(rows) == 10 and [row["state"] for row in rows].count("finished") == 7
    assert rows[0]["optim.learning_rate"] == "0.001" and float(rows[0][METRIC]) == pytest.approx(-20.0, rel=1e-6)
    for name in ("settings.png", "curves.png"):
        image = np.asarray(Image.open(copy / "report" / name))
        assert image.std() > 10 and image.shape[0] > 200


def test_the_axis_of_the_metric_is_not_given_to_what_is_far_worse(folder):
    low, high = sweep_figures._range([-22.0, -21.9, -20.0, -19.9, -19.8, -900.0], smaller=False)
    assert low > -40 and -19.8 < high < -15
    assert sweep_figures._range([1.0, 2.0, 3.0], smaller=True) == pytest.approx((0.88, 3.12))
    low, high = sweep_figures._range([5.0], smaller=True)
    assert low < 5.0 < high


def test_what_cannot_be_reported_is_refused_in_one_line(folder, tmp_path):
    cases = {
        "no_such": ([str(folder), "--metric=eval/no_such"], "'eval/no_such' is logged by no run; accepted: --metric"),
        "way": ([str(folder), "--metric=eval/elbo:up"], "which way is better is not known"),
        "mixed": ([str(folder), str(tmp_path)], "no sweep, and the others are"),
        "none": (["--metric=eval/elbo"], "--metric is about the folder of a sweep"),
    }
    before = sorted(folder.rglob("*"))
    answers = run_many([("report", arguments) for arguments, _ in cases.values()], cwd=ROOT)
    for answer, (_, message) in zip(answers, cases.values(), strict=True):
        assert message in one_line(answer)
    assert sorted(folder.rglob("*")) == before
    empty = Sweep.begun(str(tmp_path / "new"), "configs/vae/digits_conv.py", [], "local", "", "max")
    with pytest.raises(UserError, match=r"its config names no checkpoint.best; accepted: --metric with one of none"):
        sweep_outcomes.found(empty.with_runs(RUNS)[0])


def written(path: Path, runs: list[dict], results: dict[str, float], base: dict | None = None) -> Sweep:
    """A sweep of finished runs; ``base`` is the config of all, by dotted name."""
    sweep, _ = Sweep.begun(str(path), "configs/vae/digits_conv.py", [], "local", METRIC, "max").with_runs(runs)
    for run in sweep.runs:
        config: dict = {}
        for name, value in {**(base or {}), **run.overrides}.items():
            *sections, last = name.split(".")
            functools.reduce(lambda at, key: at.setdefault(key, {}), sections, config)[last] = value
        write_json(run.workdir.config, config)
        record = {"evaluators": {"eval": {"scalars": {"elbo": results[run.name]}}}, "finished": True}
        write_json(run.workdir.evaluation, record)
        line = json.dumps({"step": 20, METRIC: results[run.name]})
        run.workdir.metrics.write_text(f"{line}\n")
    return sweep


def test_seeds_that_were_added_belong_to_a_setting_however_its_number_was_written(tmp_path):
    runs = [{"model.beta": 2, "seed": 0}, {"model.beta": 2.0, "seed": 1}]
    sweep = written(tmp_path / "sweep", runs, {"beta=2,seed=0": -20.0, "beta=2,seed=1": -21.0})
    (setting,) = sweep_outcomes.found(sweep).settings
    assert setting.values == [-20.0, -21.0]


def test_a_seed_counts_once_whether_the_config_or_a_run_says_it(tmp_path):
    rate = values("optim.learning_rate", 1e-3)
    runs = [*rate, *product(rate, seeds(2)), {}, *values("model.beta", 1.0)]
    names = ("learning_rate=0.001", "learning_rate=0.001,seed=0", "learning_rate=0.001,seed=1", "unchanged", "beta=1")
    results = dict(zip(names, (-20.0, -20.0, -21.0, -30.0, -30.0), strict=True))
    base = {"optim.learning_rate": 5e-4, "seed": 0, "model.beta": 1.0}
    sweep = written(tmp_path / "sweep", runs, results, base)
    found = sweep_outcomes.found(sweep)
    best, config = found.settings
    assert best.values == [-20.0, -21.0] and (best.low, best.high) == mean_interval([-20.0, -21.0])
    assert config.values == [-30.0] and config.overrides == {}  # of the runs left out nothing is told
    assert [(run.name, first.name) for run, first in found.repeated] == [(names[1], names[0]), (names[4], names[3])]
    page = sweep_report.page(found)
    assert f"| {names[1]} | finished | left out, for it is {names[0]} again |" in page
    assert "3 runs of 2 settings (3 finished)" in page and "(mean of 2 seeds" in page
    sweep.runs[0].workdir.config.unlink()  # what it began with is known from the runs that are like it
    sweep.runs[0].workdir.evaluation.unlink()
    best, _ = sweep_outcomes.found(sweep).settings
    assert best.values == [-20.0, -21.0] and best.outcomes[0].run.name == names[1]  # which has ended


def test_an_interval_is_that_of_the_value_beside_it(tmp_path):
    sweep = written(tmp_path / "sweep", [{}], {"unchanged": -20.0})
    record = {"scalars": {"elbo": -20.0000001}, "intervals_95": {"elbo": [-21.0, -19.0]}}
    other = {"scalars": {"elbo": -25.0}, "intervals_95": {"elbo": [-30.0, -20.0]}}  # of ten examples, by hand
    cases = (
        ({"eval": record}, (-21.0, -19.0)),
        ({"eval": other}, (None, None)),
        ({"a": other, "b": record}, (-21, -19)),
    )
    for evaluators, interval in cases:
        write_json(sweep.runs[0].workdir.evaluation, {"evaluators": evaluators, "finished": True})
        (setting,) = sweep_outcomes.found(sweep).settings
        assert setting.mean == -20.0 and (setting.low, setting.high) == interval


def test_a_result_that_is_not_finite_is_none(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "sweep", symlinks=True)
    run = Sweep.read(copy).runs[3]
    with open(run.workdir.metrics, "a") as file:
        file.write(json.dumps({"step": 30, METRIC: "NaN"}) + "\n")
    found = sweep_outcomes.found(Sweep.read(copy))
    (outcome,) = [outcome for outcome in found.outcomes if outcome.run.name == run.name]
    assert outcome.state == "finished" and outcome.value is None and math.isnan(outcome.curve[-1][1])
    sweep_report.write(found)


def described(board: Path) -> tuple[set[str], list[str]]:
    """The columns of the HParams tab: settings and metrics."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(board))
    multiplexer.Reload()
    content = multiplexer.SummaryMetadata(".", "_hparams_/experiment").plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
    return {info.name for info in experiment.hparam_infos}, [info.name.tag for info in experiment.metric_infos]


def test_tensorboard_names_runs_by_what_they_override_and_has_a_column_for_it(folder):
    sweep = Sweep.read(folder)
    board = sweep_board.update(sweep)
    assert sweep_board.update(sweep) == board  # again, with the links there
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(board))
    multiplexer.Reload()
    names = set(multiplexer.Runs())
    assert names == {".", *(run.name for run in sweep.runs)} and "learning_rate=0.001,seed=1" in names
    told = [name for name in names if "_hparams_/experiment" in multiplexer.GetAccumulator(name).summary_metadata]
    assert told == ["."]
    columns, metrics = described(board)
    assert columns == {"optim.learning_rate", "seed", "optim.name"} and metrics == [METRIC, "eval/kl"]
    content = multiplexer.SummaryMetadata("learning_rate=0.001,seed=1", "_hparams_/session_start_info")
    row = plugin_data_pb2.HParamsPluginData.FromString(content.plugin_data.content).session_start_info.hparams
    assert row["optim.learning_rate"].number_value == 1e-3 and row["seed"].number_value == 1


def test_tensorboard_has_a_column_for_what_a_training_tells_of_itself(tmp_path):
    runs = [*values("divergence.rate_factor", 0.5, 0.25), *values("accelerator.compute_dtype", "bfloat16")]
    runs += [*values("evaluators.eval.every", "2 steps"), *seeds(1)]
    sweep, _ = Sweep.begun(str(tmp_path / "sweep"), "configs/vae/digits_conv.py", [], "local", METRIC, "max").with_runs(
        runs
    )
    wanted = {"divergence.rate_factor", "accelerator.compute_dtype", "seed"}
    assert described(sweep_board.update(sweep)) == (wanted, [METRIC])
    config = base(Args("cpu"))
    silent = {"log_every", "eval_batch_size", "checkpoint"}  # and evaluators
    assert set(HPARAMS) - {"data", "model", "optim"} == set(config) - silent
