"""Training a classifier on the samples of a run: what is written, and what is refused before anything is drawn."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from experiments.accuracy_score import labels_like
from genjax.data.base import ArraySource
from genjax.types import ImageSpec, UserError
from tests.cli.commands import CLASSIFIER, VAE, one_line, read, run_many, snapshot

CONFIG = f"--config={CLASSIFIER}:accelerator=cpu,smoke"


def test_a_score_and_what_real_images_give(vae_run, tmp_path):
    folder = tmp_path / "vae"
    shutil.copytree(vae_run[0], folder)
    before = snapshot(folder)
    arguments = [f"--workdir={folder}", CONFIG, "--num=50", "--real", "--seed=3"]
    (answer,) = run_many([("accuracy_score", arguments)], cwd=tmp_path)
    assert answer.status == 0 and answer.err == "", answer
    record = read(folder / "accuracy_score.json")
    for name in ("score", "real"):
        part = record[name]
        low, high = part["interval_95"]
        assert 0 <= low <= part["scalars"]["accuracy_score"] <= high <= 1
        assert part["data"]["split"] == "test[:40]" and part["examples"] == 40 and len(part["per_class"]) == 10
    assert f"real images {record['real']['scalars']['accuracy_score']:.4f} (" in answer.out
    assert (record["family"], record["step"], record["weights"]) == ("vae", 12, "averaged")
    assert (record["samples"], record["seed"], record["classifier"]["steps"]) == (50, 3, 4)
    assert {path: content for path, content in snapshot(folder).items() if path != "accuracy_score.json"} == before
    assert [path.name for path in tmp_path.iterdir()] == ["vae"]


def test_what_is_refused(vae_run, other_runs, tmp_path):
    classifier, gan = other_runs
    vae = vae_run[0]
    cases = {
        "nothing": ([], ["--workdir and --config", "--help"]),
        "no labels": ([f"--workdir={gan}", CONFIG], ["trained without labels", "model.conditional=True"]),
        "no samples": ([f"--workdir={classifier}", CONFIG], ["is a classifier, which can't sample"]),
        "no classifier": (
            [f"--workdir={vae}", f"--config={VAE}:accelerator=cpu,smoke"],
            ["is of a vae", "configs/classifier"],
        ),
        "other data": (
            [f"--workdir={vae}", CONFIG, "--config.data.train=train[:50]"],
            ["--config.data.train is 'train[:50]'", "'train[:64]'"],
        ),
        "other source": (
            [f"--workdir={vae}", CONFIG, "--config.data.source=folder"],
            ["--config.data.source is 'folder'", "'digits'"],
        ),
        "too few": ([f"--workdir={vae}", CONFIG, "--num=3"], ["--num=3", "of 10 classes without a sample"]),
        "none": ([f"--workdir={vae}", CONFIG, "--num=0"], ["--num=0"]),
    }
    before = {path: snapshot(path) for path in (classifier, gan, vae)}
    answers = run_many([("accuracy_score", arguments) for arguments, _ in cases.values()], cwd=tmp_path)
    for (name, (_, parts)), answer in zip(cases.items(), answers, strict=True):
        line = one_line(answer)
        assert all(part in line for part in parts), (name, line)
    assert before == {path: snapshot(path) for path in before}


def test_classes_are_as_frequent_as_in_the_training_split():
    labels = np.repeat(np.arange(3, dtype=np.int32), (60, 30, 10))
    order = np.random.default_rng(0).permutation(100)
    source = ArraySource(ImageSpec(2, 2, 1, 4), "x", {}, np.zeros((100, 2, 2, 1), np.uint8), labels[order])
    for count, expected in ((100, [60, 30, 10]), (10, [6, 3, 1]), (1000, [600, 300, 100])):
        drawn = labels_like(source, count)
        assert drawn.dtype == np.int32 and np.bincount(drawn).tolist() == expected
    with pytest.raises(UserError, match="--num=2 leaves 1 of 3 classes without a sample"):
        labels_like(source, 2)
