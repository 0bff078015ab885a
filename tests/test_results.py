"""The results pages are what the command makes of docs/results; the small form of a run holds no machine's paths."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest

from experiments import comparison, groups, results, results_html, results_page, results_table
from genjax.io.files import read_json, write_json
from genjax.types import UserError
from tests.cli.commands import ROOT, one_line, run_many
from tests.fake_runs import work_folder

FOLDER = ROOT / "docs/results"
RUNS = groups.read_runs(FOLDER)
GROUPS = groups.groups_of(RUNS)


def verdicts():
    return comparison.lines(comparison.stored(FOLDER), GROUPS)


def test_pages_are_generated():
    assert RUNS
    assert results_page.page(GROUPS, verdicts(), ROOT) == (ROOT / "RESULTS.md").read_text()
    assert results_html.page(GROUPS, verdicts(), FOLDER) == (FOLDER / "index.html").read_text()
    assert results_table.table(RUNS) == (FOLDER / "results.csv").read_text()
    assert results_table.group_table(GROUPS) == (FOLDER / "results_groups.csv").read_text()


@pytest.mark.parametrize("page", ["RESULTS.md", "docs/results/index.html"])
def test_every_figure_is_on_the_page(page):
    text = (ROOT / page).read_text()
    for group in GROUPS:
        assert text.count(group.name) >= 2
        for figure in group.figures:
            assert figure.metric.partition("/")[2] in text if "/" in figure.metric else figure.name in text


def test_an_edited_number_is_noticed(tmp_path):
    name = RUNS[0].name
    shutil.copytree(FOLDER / name, tmp_path / name)
    evaluation = read_json(tmp_path / name / "evaluation.json")
    scalars = next(iter(evaluation["evaluators"].values()))["scalars"]
    scalars[next(iter(scalars))] += 0.01
    write_json(tmp_path / name / "evaluation.json", evaluation)
    pages = [
        [make(groups.groups_of([groups.read_run(folder / name)]), [], folder) for folder in (FOLDER, tmp_path)]
        for make in (results_page.page, results_html.page)
    ]
    assert all(first != second for first, second in pages)


def test_the_tables_have_every_number_with_its_interval():
    rows = list(csv.DictReader(io.StringIO((FOLDER / "results.csv").read_text())))
    records = [run.evaluation["evaluators"].values() for run in RUNS]
    assert len(rows) == sum(len(record["scalars"]) for run in records for record in run)
    bounded = [row for row in rows if row["low"]]
    assert {row["metric"] for row in bounded} >= {"accuracy", "label_accuracy", "frechet_distance", "elbo"}
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in bounded)
    assert {row["protocol"] for row in rows} >= {"", "fashion_mnist_10k", "mnist_10k"}
    means = list(csv.DictReader(io.StringIO((FOLDER / "results_groups.csv").read_text())))
    assert sum(int(row["runs"]) for row in means) == len(rows)
    assert {row["mark"].split()[0] for row in means} <= {"reached", "MISSED", "no"}
    assert all(row["source"] for row in means if row["reference"])


def test_paths_of_the_machine_are_cut():
    record = {"where": "/a/b/data", "argv": ["/x/train.py", "--workdir=/a/b/run", "--config=configs/a.py"], "n": 3}
    expected = {"where": "data", "argv": ["train.py", "--workdir=run", "--config=configs/a.py"], "n": 3}
    assert results.without_paths(record) == expected


def test_a_run_that_is_not_finished_is_refused(tmp_path):
    write_json(tmp_path / "run" / "config.json", {})
    with pytest.raises(UserError, match=r"no evaluation\.json"):
        results.collect(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_members_of_a_population_have_its_name(tmp_path):
    write_json(tmp_path / "pop" / "population.json", {"members": ["seed=0", "seed=1"]})
    assert list(results.targets([tmp_path / "pop", tmp_path / "one"], Path("out")).values()) == [
        Path("out/pop_seed=0"),
        Path("out/pop_seed=1"),
        Path("out/one"),
    ]
    assert list(results.targets([tmp_path / "pop/seed=1"], Path("out")).values()) == [Path("out/pop_seed=1")]
    with pytest.raises(UserError, match="another run of the name one"):
        results.targets([tmp_path / "one", tmp_path / "other/one"], Path("out"))


def test_curves_leave_out_what_was_measured_once():
    figure = results.curve_figure({"eval/a": [[1, 0.5], [2, 0.7]], "eval/once": [[2, 1.0]]})
    assert figure.dtype == np.uint8 and figure.shape[-1] == 3 and figure.std() > 0


def test_the_command(tmp_path):
    """Three seeds of a config that declares what it misses, two of another, and what must be refused."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/my_model.py").write_text(
        "from configs.references import Reference\n"
        "def references(config):\n"
        "    return (Reference('eval/accuracy', 0.95, 'somebody 2020, table 1'),) if config.model.width == 32 else ()\n"
    )
    argv = ("--config=configs/my_model.py:accelerator=cpu",)
    wide = {"config": {"model": {"family": "classifier", "width": 64}}, "argv": (*argv, "--config.model.width=64")}
    for seed in range(3):
        work_folder(tmp_path / f"base{seed}", {"accuracy": 0.90 + 0.001 * seed}, seed=seed, argv=argv)
        work_folder(tmp_path / f"wide{seed}", {"accuracy": 0.80 + 0.001 * seed}, seed=seed, **wide)
    work_folder(tmp_path / "few/wide2", {"accuracy": 0.5}, seed=2, record={"examples": 7}, **wide)
    (tmp_path / "empty").mkdir()
    base, name = [f"base{seed}" for seed in range(3)], "classifier/my_model"
    two = f"{name}:{name} model.width=64"
    answers = run_many(
        [
            ("report", [*base, "--workdirs=wide0,wide1,wide2", "--collect=out", f"--compare={two}:eval/accuracy"]),
            ("report", ["--collect=out", "--out=again.md"]),
            ("compare", ["--a=base*", f"--b={name} model.width=64", "--results=out", "--metric=eval/accuracy"]),
            ("report", ["--collect=out", f"--compare={name}:none:eval/accuracy"]),
            ("report", ["--collect=out", "--compare=a:b"]),
            ("report", ["--collect=out", f"--compare={two}:eval/nll"]),
            ("report", ["empty", "--collect=out"]),
            ("report", ["--collect=nowhere"]),
            ("report", ["few/wide2", "--collect=out"]),
            ("compare", ["--a=none*", "--b=base*", "--results=out", "--metric=eval/accuracy"]),
        ],
        cwd=tmp_path,
    )
    report, again, compared, *refused = answers
    assert report.status == again.status == compared.status == 0, answers
    first, verdict, last = report.out.splitlines()
    assert first.startswith("classifier/my_model: eval/accuracy 90.10%") and "published 95%" in first
    assert verdict.startswith(f"{name} better by 0.1 +/- 0.0")
    assert last.startswith("6 runs of 2 configs") and compared.out.splitlines()[-1].startswith("A better by 0.1 ")
    page = (tmp_path / "RESULTS.md").read_text()
    assert "**MISSED by 4.9%**" in page and "somebody 2020, table 1" in page and "better by 0.1" in page
    assert page == (tmp_path / "again.md").read_text()
    assert page.count("3 seeds: 0, 1, 2") == 2
    messages = (
        "'none' is no group",
        "--compare=a:b: accepted: GROUP:GROUP:EVALUATOR/NUMBER",
        "--metric=eval/nll: not in",
        "no config.json",
        "no finished run in nowhere",
        "are of different protocols: examples is 100 in one and 7 in the other",
        "none*: no such folder",
    )
    for answer, message in zip(refused, messages, strict=True):
        assert message in one_line(answer), answer
