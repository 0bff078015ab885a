"""Averages of another length on the command line, and the checkpoints they are made of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.cli.commands import checkpoint_steps, one_line, read, run_many, snapshot, train_arguments

SMALL = """
from configs.diffusion.digits_flow import get_config as flow


def get_config(arg):
    config = flow(arg)
    config.model.network = {"name": "dit", "patch": 4, "width": 16, "depth": 1, "heads": 2}
    config.total = "12 steps"
    config.checkpoint.every = "4 steps"
    config.evaluators = {"eval": config.evaluators["eval"]}
    return config
"""
KEEP = "--config.checkpoint.keep=25%"


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> str:
    """The config of a flow that is compiled in seconds."""
    path = tmp_path_factory.mktemp("ema") / "small.py"
    path.write_text(SMALL)
    return str(path)


@pytest.fixture(scope="module")
def flow_run(small, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ema") / "flow"
    (answer,) = run_many([("train", train_arguments(small, folder, KEEP))])
    assert answer.status == 0, answer
    return folder


def changed(folder: Path, target: Path, keep: str | None) -> Path:
    """A copy of a run whose config has another ``checkpoint.keep``, or none as before there was that setting."""
    shutil.copytree(folder, target)
    config = read(target / "config.json")
    del config["checkpoint"]["keep"]
    if keep is not None:
        config["checkpoint"]["keep"] = keep
    (target / "config.json").write_text(json.dumps(config))
    return target


def test_multiples_of_the_duration_are_kept(flow_run):
    assert read(flow_run / "config.json")["checkpoint"]["keep"] == "25%"
    assert checkpoint_steps(flow_run) == [3, 6, 9, 12]


def test_evaluating_and_sampling_with_another_average(flow_run, tmp_path):
    lengths = ("", "0.1", "0.08", "0.05")
    folders = [tmp_path / f"copy{length}" for length in lengths]
    for folder in folders:
        shutil.copytree(flow_run, folder)
    before = [snapshot(folder / "checkpoints") for folder in folders]
    commands = [
        ("evaluate", [f"--workdir={folder}", *([f"--ema={length}"] if length else [])])
        for folder, length in zip(folders, lengths, strict=True)
    ]
    *answers, sampled = run_many([*commands, ("sample", [f"--workdir={folders[0]}", "--num=4", "--ema=0.08"])])
    records = []
    for folder, length, answer in zip(folders, lengths, answers, strict=True):
        assert answer.status == 0 and answer.err == "", answer
        weights = f"length {length} averaged" if length else "averaged"
        assert answer.out.startswith(f"step 12 of {folder} ({weights} weights)\n")
        records.append(read(folder / "evaluation.json"))
        assert records[-1]["weights"] == weights and records[-1]["finished"]
    losses = [record["evaluators"]["eval"]["scalars"]["loss"] for record in records]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)  # the one that is stored
    assert len({f"{loss:.5g}" for loss in losses[1:]}) == 3
    assert "ema" not in records[0]
    rebuilt = records[2]["ema"]
    assert 0 < rebuilt.pop("profile_error") < 0.1
    assert rebuilt == {"length": 0.08, "of_lengths": [0.1, 0.05], "of_steps": [3, 6, 9, 12]}
    assert sampled.status == 0 and sampled.err == "", sampled
    images = np.load(folders[0] / "samples" / "step12_seed0_ema=0.08.npz")["images"]
    assert images.shape == (4, 8, 8, 1)
    assert [snapshot(folder / "checkpoints") for folder in folders] == before


def test_sampling_guided_by_an_earlier_checkpoint(flow_run, other_runs, vae_run, tmp_path):
    flow = tmp_path / "flow"
    shutil.copytree(flow_run, flow)
    common, weaker = [f"--workdir={flow}", "--num=4"], [f"--guide={flow}", "--guide_checkpoint=3"]
    plain, same, guided, evaluated, *refused = run_many(
        [
            ("sample", common),
            ("sample", [*common, *weaker, "--guide_scale=1"]),
            ("sample", [*common, *weaker]),
            ("evaluate", [f"--workdir={flow}", f"--judge={other_runs[0]}", "--num=20", *weaker, "--guide_scale=3"]),
            ("sample", [*common, "--guide_scale=3"]),
            ("sample", [*common, f"--guide={vae_run[0]}"]),
            ("sample", [*common, *weaker, "--guide_scale=-1"]),
            ("sample", [f"--workdir={vae_run[0]}", *weaker]),
        ]
    )
    assert all(answer.status == 0 and answer.err == "" for answer in (plain, same, guided, evaluated))
    names = ("", "_guide=flow,3,1", "_guide=flow,3,2")
    images = [np.load(flow / "samples" / f"step12_seed0{name}.npz")["images"] for name in names]
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] != images[2]).any()
    record = read(flow / "evaluation.json")
    assert record["guide"] == {"run": "flow", "step": 3, "scale": 3.0}
    assert record["evaluations_per_sample"] == 2 * read(flow_run / "evaluation.json")["evaluations_per_sample"]
    messages = (
        "--guide_scale is about --guide",
        "is a vae; accepted: a run of family diffusion",
        "guidance_scale=-1.0 is out of range",
        "a vae can't be guided",
    )
    for answer, message in zip(refused, messages, strict=True):
        assert message in one_line(answer), answer


def test_what_cannot_be_had(flow_run, vae_run, tmp_path):
    unkept = changed(flow_run, tmp_path / "unkept", "")
    cases = {
        "another family": (vae_run[0], "0.08", ["--ema=0.08", "this vae has no averages"]),
        "too long": (flow_run, "0.4", ["--ema=0.4", "out of range", "up to 0.2887"]),
        "zero": (flow_run, "0", ["--ema=0", "above 0"]),
        "too short": (flow_run, "0.002", ["--ema=0.002", "steps 3, 6, 9, 12", "accepted: 0.0", " to 0."]),
        "none kept": (unkept, "0.08", ["--ema=0.08", "checkpoint.keep", "accepted: 0.1, 0.05"]),
        "no number": (flow_run, "long", ["ema", "long"]),
    }
    folders = [flow_run, vae_run[0], unkept]
    before = [snapshot(folder) for folder in folders]
    commands = [
        (module, [f"--workdir={folder}", f"--ema={length}"])
        for folder, length, _ in cases.values()
        for module in ("evaluate", "sample")
    ]
    answers = iter(run_many(commands))
    for name, (_, _, parts) in cases.items():
        for answer in (next(answers), next(answers)):
            line = one_line(answer)
            assert all(part in line for part in parts), (name, line)
    assert [snapshot(folder) for folder in folders] == before


def test_a_run_from_before_the_setting_is_a_run_that_kept_none(flow_run, small, tmp_path):
    older = changed(flow_run, tmp_path / "older", None)
    again = train_arguments(small, older)
    evaluated, sampled, trained = run_many(
        [
            ("evaluate", [f"--workdir={older}"]),
            ("sample", [f"--workdir={older}", "--num=2", "--ema=0.05"]),
            ("train", again),
        ]
    )
    for answer in (evaluated, sampled, trained):
        assert answer.status == 0 and answer.err == "", answer
    assert "this run is finished: step 12 of 12" in trained.out
