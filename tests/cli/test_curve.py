"""Other samplers on a trained run: --set of sample and evaluate, and quality against evaluations."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import groups, results, results_page
from tests.cli.commands import one_line, read, run_many, snapshot, train_arguments

SMALL = """
from configs.diffusion.digits_flow import get_config as flow


def get_config(arg):
    config = flow(arg)
    config.model.network = {"name": "dit", "patch": 4, "width": 16, "depth": 1, "heads": 2}
    config.total = "12 steps"
    config.optim.learning_rate = 0.1
    config.evaluators = {"eval": config.evaluators["eval"], "samples": config.evaluators["samples"]}
    return config
"""


@pytest.fixture(scope="module")
def flow_run(tmp_path_factory) -> Path:
    """A flow that is compiled in seconds, given the class, with a sampler of 10 steps of heun."""
    folder = tmp_path_factory.mktemp("curve")
    (folder / "small.py").write_text(SMALL)
    (answer,) = run_many([("train", train_arguments(str(folder / "small.py"), folder / "flow"))])
    assert answer.status == 0, answer
    return folder / "flow"


@pytest.fixture
def flow(flow_run, tmp_path) -> Path:
    """A copy to write into."""
    shutil.copytree(flow_run, tmp_path / "flow")
    return tmp_path / "flow"


def images(folder: Path, settings: str = "") -> np.ndarray:
    return np.load(folder / "samples" / f"step12_seed0{settings}.npz")["images"]


def test_samples_with_other_settings(flow):
    name, steps = "--set=model.sampler.name=ddim", "--set=model.sampler.num_steps=4"
    cases = {
        "": [],
        "_sampler.num_steps=4": [steps],
        "_sampler.num_steps=2": ["--set=model.sampler.num_steps=2"],
        "_sampler.name=ddim": [name],
        "_sampler.name=ddim_sampler.num_steps=4": [name, steps],
        "_guidance_scale=3": ["--set=config.model.guidance_scale=3"],
        "_guidance_scale=3_guidance_interval=0.1,2": [
            "--set=model.guidance_scale=3",
            "--set=model.guidance_interval=0.1,2",
        ],
    }
    before = snapshot(flow)
    commands = [("sample", [f"--workdir={flow}", "--num=6", *arguments]) for arguments in cases.values()]
    for answer in run_many(commands):
        assert answer.status == 0 and answer.err == "", answer
    drawn = {settings: images(flow, settings) for settings in cases}
    # What the run has already, or keeps, changes no bit; anything else does.
    np.testing.assert_array_equal(drawn[""], drawn["_sampler.num_steps=4"])
    np.testing.assert_array_equal(drawn["_sampler.name=ddim"], drawn["_sampler.name=ddim_sampler.num_steps=4"])
    different = [settings for settings in cases if settings not in ("", "_sampler.num_steps=4")]
    assert all((drawn[""] != drawn[settings]).any() for settings in different)
    assert (drawn["_guidance_scale=3"] != drawn["_guidance_scale=3_guidance_interval=0.1,2"]).any()
    assert {name: before[name] for name in before} == {n: v for n, v in snapshot(flow).items() if n in before}


def test_evaluation_says_what_was_set(flow, other_runs):
    arguments = [f"--workdir={flow}", f"--judge={other_runs[0]}", "--num=20"]
    plain, changed = run_many(
        [
            ("evaluate", arguments),
            ("evaluate", [*arguments, "--set=model.guidance_scale=2", "--set=model.sampler.name=euler"]),
        ]
    )
    assert plain.status == changed.status == 0, (plain, changed)
    record = read(flow / "evaluation.json")
    assert record["settings"] == {"model.guidance_scale": 2, "model.sampler.name": "euler"}
    assert record["evaluations_per_sample"] == 8  # four steps, with and without the label
    trained = read(flow / "config.json")["model"]
    assert trained["guidance_scale"] == 1.0 and trained["sampler"]["name"] == "heun"
    distances = [re.search(r"frechet_distance (\S+)", answer.out) for answer in (plain, changed)]
    assert all(distances) and distances[0][1] != distances[1][1]
    assert f"{record['evaluators']['judge']['scalars']['frechet_distance']:.4g}" == distances[1][1]


def test_curve(flow, other_runs, tmp_path):
    classifier, common = other_runs[0], [f"--workdir={flow}", f"--judge={other_runs[0]}", "--num=20"]
    before = snapshot(flow), snapshot(classifier)
    curve, evaluated, guided = run_many(
        [
            ("curve", [*common, "--samplers=euler,heun", "--evaluations=4,1,2", "--grid=quadratic"]),
            (
                "evaluate",
                [
                    *common,
                    *(f"--set=model.{s}" for s in ("sampler.name=heun", "sampler.num_steps=2", "grid.name=quadratic")),
                ],
            ),
            ("curve", [*common, "--samplers=euler", "--evaluations=1,3", "--set=model.guidance_scale=2"]),
        ]
    )
    assert curve.status == evaluated.status == guided.status == 0, (curve, evaluated, guided)
    assert curve.err == "" and f"written to {flow / 'curve'}" in curve.out
    # Of the last command, the record on disk; of the first, what it printed.
    lines = [line for line in curve.out.splitlines() if line.startswith("|")]
    assert lines[0] == "| sampler | steps | evaluations | Fréchet distance | label accuracy | ms/image |"
    cells = [[part.strip() for part in line.strip("|").split("|")] for line in lines[2:]]
    assert [cell[:3] for cell in cells] == [
        ["euler", "1", "1"], ["euler", "2", "2"], ["euler", "4", "4"], ["heun", "1", "1"], ["heun", "2", "3"]
    ]  # fmt: skip
    assert all(float(cell[5]) > 0 for cell in cells) and len({cell[3] for cell in cells[:3]}) == 3
    assert cells[0][3:5] == cells[3][3:5]  # one step of either is Euler's
    # The same samples before the same judge as in an evaluation.
    judged = read(flow / "evaluation.json")["evaluators"]["judge"]["scalars"]
    assert cells[4][3:5] == [f"{judged['frechet_distance']:.4g}", f"{judged['label_accuracy']:.1%}"]
    check_files(flow, classifier, tmp_path)
    checkpoints = {name: value for name, value in before[0].items() if name.startswith("checkpoints")}
    assert checkpoints.items() <= snapshot(flow).items() and snapshot(classifier) == before[1]


def check_files(flow, classifier, tmp_path):
    """What the curve with guidance left, and what the report makes of it."""
    assert sorted(path.name for path in (flow / "curve").iterdir()) == ["curve.json", "curve.md", "curve.png"]
    record = read(flow / "curve" / "curve.json")
    (cell,) = record["cells"]
    assert (cell["sampler"], cell["num_steps"], cell["evaluations"]) == ("euler", 1, 2)
    assert (
        record["settings"] == {"model.guidance_scale": 2}
        and record["grid"] == read(flow / "config.json")["model"]["grid"]["name"]
    )
    assert record["judge"]["classifier"]["run"] == classifier.name and record["judge"]["samples"] == 20
    with Image.open(flow / "curve" / "curve.png") as image:
        assert min(image.size) > 100
    results.collect(flow, tmp_path / "docs" / "flow")
    page = results_page.page(groups.groups_of(groups.read_runs(tmp_path / "docs")), [], tmp_path)
    assert "| euler | 1 | 2 |" in page and "model.guidance_scale=2" in page and "docs/flow/curve.png" in page


SET = {
    "misspelt": (["model.sampler.num_stepz=4"], ["model.sampler.num_stepz", "did you mean 'num_steps'"]),
    "of another sampler": (["model.sampler.rtol=1e-3"], ["model.sampler.rtol is no setting", "num_steps"]),
    "word for a number": (["model.sampler.num_steps=many"], ["model.sampler.num_steps='many' is a str", "int"]),
    "no steps": (["model.sampler.num_steps=0"], ["model.sampler", "num_steps=0", "at least 1"]),
    "sampler": (["model.sampler.name=huen"], ["model.sampler.name='huen'", "heun, multistep_consistency"]),
    "of another objective": (["model.sampler.name=flow_map"], ["takes a flow_map", "offers: denoiser"]),
    "a whole section": (["model.sampler=heun"], ["--set=model.sampler: ", "model.sampler.SETTING"]),
    "trained with": (["model.path.name=edm"], ["--set=model.path.name: ", "model.guidance_scale"]),
    "no model": (["optim.learning_rate=1"], ["--set=optim.learning_rate: "]),
    "no value": (["num_steps"], ["--set=num_steps: ", "such as model.sampler.num_steps=4"]),
    "twice": (["model.grid.name=uniform", "model.grid.name=karras"], ["model.grid.name is set already"]),
    "interval": (["model.guidance_interval=3"], ["model.guidance_interval=3 is a int", "tuple"]),
    "scale": (["model.guidance_scale=-1"], ["guidance_scale=-1"]),
}


def test_bad_settings(flow_run, vae_run):
    commands, wanted = [], []
    for module in ("sample", "evaluate"):
        for given, parts in SET.values():
            commands.append((module, [f"--workdir={flow_run}", *(f"--set={text}" for text in given)]))
            wanted.append(parts)
        commands.append((module, [f"--workdir={vae_run[0]}", "--set=model.beta=2"]))
        wanted.append(["--set=model.beta: ", "none, a vae has no setting that acts on sampling alone"])
    before = snapshot(flow_run)
    for parts, answer in zip(wanted, run_many(commands), strict=True):
        line = one_line(answer)
        assert all(part in line for part in parts), (parts, line)
    assert snapshot(flow_run) == before


def test_bad_curves(flow_run, vae_run, other_runs):
    classifier, gan = other_runs
    usual = [f"--workdir={flow_run}", f"--judge={classifier}"]
    cases = [
        ([], ["--workdir and --judge are required"]),
        (usual[:1], ["--workdir and --judge are required"]),
        ([*usual, "--evaluations=1,two"], ["--evaluations=1,two", "whole numbers from 1"]),
        ([*usual, "--evaluations=0,4"], ["--evaluations=0,4"]),
        ([*usual, "--samplers=euler,huen"], ["model.sampler.name='huen'"]),
        ([*usual, "--samplers=adaptive"], ["--samplers=adaptive", "accepted: samplers with num_steps"]),
        ([*usual, "--samplers=flow_map"], ["takes a flow_map"]),
        ([*usual, "--samplers="], ["--samplers"]),
        ([*usual, "--grid=karas"], ["model.grid.name='karas'"]),
        ([*usual, "--grid=karras", "--set=model.grid.name=uniform"], ["model.grid.name is set already"]),
        ([*usual, "--set=model.sampler.num_steps=3"], ["--set=model.sampler.num_steps", "--samplers and"]),
        ([*usual, "--set=model.guidance_scale=2", "--evaluations=1"], ["--evaluations=1", "less than one step"]),
        ([*usual, "--num=1"], ["--num=1", "at least 2"]),
        ([*usual, "--checkpoint=7"], ["no checkpoint 7"]),
        ([f"--workdir={vae_run[0]}", usual[1]], ["is a vae", "family diffusion"]),
        ([usual[0], f"--judge={gan}"], ["--judge", "is a gan"]),
        ([usual[0], "--judge=nowhere"], ["nowhere: no such folder"]),
    ]  # fmt: skip
    before = snapshot(flow_run), snapshot(classifier)
    answers = run_many([("curve", arguments) for arguments, _ in cases])
    for (arguments, parts), answer in zip(cases, answers, strict=True):
        line = one_line(answer)
        assert all(part in line for part in parts), (arguments, line)
    assert (snapshot(flow_run), snapshot(classifier)) == before
