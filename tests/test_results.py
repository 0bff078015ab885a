"""The results page is what the command makes of docs/results, and the small form of a run holds no machine's paths."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from experiments import results, results_table
from genjax.io.files import read_json, write_json
from genjax.types import UserError

ROOT = Path(__file__).resolve().parent.parent
RUNS = sorted(path.parent for path in (ROOT / "docs/results").glob("*/evaluation.json"))


def test_page_is_generated():
    assert RUNS
    assert results.page(RUNS, ROOT) == (ROOT / "RESULTS.md").read_text()


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_every_number_on_the_page_is_in_its_record(run):
    page = (ROOT / "RESULTS.md").read_text()
    for record in read_json(run / "evaluation.json")["evaluators"].values():
        for name, value in record["scalars"].items():
            assert name.partition("/")[2] in page if "/" in name else f"{name} {value:.5g}" in page


def test_an_edited_number_is_noticed(tmp_path):
    run = tmp_path / RUNS[0].name
    run.mkdir()
    for file in RUNS[0].glob("*.json"):
        (run / file.name).write_bytes(file.read_bytes())
    evaluation = read_json(run / "evaluation.json")
    scalars = next(iter(evaluation["evaluators"].values()))["scalars"]
    scalars[next(iter(scalars))] += 0.01
    write_json(run / "evaluation.json", evaluation)
    assert results.page([run], tmp_path) != results.page([RUNS[0]], tmp_path)


def test_the_table_has_every_number_with_its_interval():
    text = results_table.table(RUNS)
    assert text == (ROOT / "docs/results/results.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    records = [read_json(run / "evaluation.json")["evaluators"].values() for run in RUNS]
    assert len(rows) == sum(len(record["scalars"]) for run in records for record in run)
    bounded = [row for row in rows if row["low"]]
    assert {row["metric"] for row in bounded} >= {"accuracy", "label_accuracy", "frechet_distance"}
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in bounded)
    assert {row["protocol"] for row in rows} >= {"", "fashion_mnist_10k", "mnist_10k"}


def test_paths_of_the_machine_are_cut():
    record = {"where": "/a/b/data", "argv": ["/x/train.py", "--workdir=/a/b/run", "--config=configs/a.py"], "n": 3}
    expected = {"where": "data", "argv": ["train.py", "--workdir=run", "--config=configs/a.py"], "n": 3}
    assert results.without_paths(record) == expected


def test_a_run_that_is_not_finished_is_refused(tmp_path):
    write_json(tmp_path / "run" / "config.json", {})
    with pytest.raises(UserError, match=r"no evaluation\.json"):
        results.collect(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_curves_leave_out_what_was_measured_once():
    figure = results.curve_figure({"eval/a": [[1, 0.5], [2, 0.7]], "eval/once": [[2, 1.0]]})
    assert figure.dtype == np.uint8 and figure.shape[-1] == 3 and figure.std() > 0
