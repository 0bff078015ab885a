"""Evaluating and sampling from a work folder alone, wherever it lies."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.cli.commands import checkpoint_steps, one_line, read, records, run, run_many, snapshot, train_arguments


@pytest.fixture
def moved(tmp_path, vae_run):
    """A copy of the VAE's work folder in which code has been planted, and the file that this code would write."""
    folder, witness = tmp_path / "elsewhere" / "copy", tmp_path / "executed"
    shutil.copytree(vae_run[0], folder)
    code = f"open({str(witness)!r}, 'w')\n"
    for name in ("config.py", "sitecustomize.py", "digits_conv.py", "__init__.py", "genjax.py", "jax.py"):
        (folder / name).write_text(code)
    pickled = f"cbuiltins\nexec\n(V{code.strip()}\ntR.".encode()
    for place in (folder, folder / "checkpoints" / "12"):
        for name in ("config.pkl", "state.pickle"):
            (place / name).write_bytes(pickled)
    return folder, witness


def without_clock(record):
    evaluators = {name: {k: v for k, v in p.items() if k != "seconds"} for name, p in record["evaluators"].items()}
    kept = {name: value for name, value in record.items() if name not in ("training_seconds", "evaluation_seconds")}
    return {**kept, "evaluators": evaluators}


def test_evaluate_gives_the_numbers_of_training(moved, vae_run, tmp_path):
    folder, witness = moved
    trained = read(folder / "evaluation.json")
    kept = {"finished": True, "rollbacks": 2, "evaluation_seconds": 3.5}
    (folder / "evaluation.json").write_text(json.dumps({**kept, "step": 1, "other": 4}))
    (tmp_path / "cwd").mkdir()
    answer = run("evaluate", "--workdir=../elsewhere/copy", cwd=tmp_path / "cwd")
    assert answer.status == 0 and answer.err == "", answer
    assert answer.out.startswith("step 12 of ../elsewhere/copy (averaged weights)\n")
    assert f"written to {folder / 'evaluation.json'}" in answer.out
    record = read(folder / "evaluation.json")
    assert {name: record[name] for name in kept} == kept  # which no evaluation finds out again
    assert without_clock(record) == without_clock({**trained, "rollbacks": 2})
    for name in ("samples", "reconstructions", "interpolations"):
        path = f"images/{name}.png"
        assert (folder / path).read_bytes() == (vae_run[0] / path).read_bytes()
    assert not witness.exists() and list((tmp_path / "cwd").iterdir()) == []


def test_best_checkpoint_and_sampling(moved, tmp_path):
    folder, witness = moved
    names = [f"--workdir={folder}"]
    elbos = {record["step"]: record["eval/elbo"] for record in records(folder) if "eval/elbo" in record}
    best = max(elbos, key=lambda step: (elbos[step], -step))
    before = snapshot(folder / "checkpoints")
    commands = [
        ("evaluate", [*names, "--checkpoint=best"]),
        ("sample", [*names, "--num=5", "--seed=3"]),
        ("sample", [*names, "--num=20", "--seed=3", f"--out={tmp_path / 'twenty'}"]),
        ("sample", [*names, "--num=4", "--labels=3,8", f"--out={tmp_path / 'chosen'}"]),
        ("sample", [*names, "--num=4", "--seed=1", f"--checkpoint={checkpoint_steps(folder)[0]}", f"--out={tmp_path}"]),
        ("train", [f"--config={folder}/none.py", f"--workdir={folder}"]),
    ]
    *answers, last = run_many(commands, cwd=tmp_path)
    assert all(answer.status == 0 and answer.err == "" for answer in answers), answers
    assert last.status == 2
    assert f"step {best} of" in answers[0].out
    assert read(folder / "evaluation.json")["checkpoint"] == "best"
    assert re.fullmatch(r"5 images: .*/samples/step12_seed3.png, .*/samples/step12_seed3.npz\n", answers[1].out)
    five, twenty = (np.load(path / "step12_seed3.npz") for path in (folder / "samples", tmp_path / "twenty"))
    assert five["images"].shape == (5, 8, 8, 1) and five["images"].dtype == np.uint8
    np.testing.assert_array_equal(five["images"], twenty["images"][:5])
    np.testing.assert_array_equal(twenty["labels"], np.arange(20) % 10)
    chosen = np.load(tmp_path / "chosen" / "step12_seed0.npz")
    np.testing.assert_array_equal(chosen["labels"], [3, 8, 3, 8])
    with Image.open(folder / "samples" / "step12_seed3.png") as image:
        assert min(image.size) >= 8
    assert (tmp_path / f"step{checkpoint_steps(folder)[0]}_seed1.npz").exists()
    assert snapshot(folder / "checkpoints") == before and not witness.exists()


def test_judge(other_runs, vae_run, tmp_path):
    classifier, gan = other_runs
    copies = [tmp_path / name for name in ("gan", "vae")]
    for source, copy in zip((gan, vae_run[0]), copies, strict=True):
        shutil.copytree(source, copy)
    commands = [("evaluate", [f"--workdir={copy}", f"--judge={classifier}", "--num=30"]) for copy in copies]
    before = snapshot(classifier)
    for copy, answer in zip(copies, run_many(commands, cwd=tmp_path), strict=True):
        assert answer.status == 0 and answer.err == "" and "judge: frechet_distance " in answer.out, answer
        assert " smallest_class_share " in answer.out
        protocol = read(copy / "evaluation.json")["evaluators"]["judge"]
        shares = [value for name, value in protocol["scalars"].items() if name.startswith("share/")]
        assert len(shares) == 10 and sum(shares) == pytest.approx(1) and protocol["samples"] == 30
        assert protocol["classifier"]["network"] == "cnn" and protocol["classifier"]["data"]["source"] == "digits"
        assert protocol["classifier"]["run"] == classifier.name and str(classifier.parent) not in json.dumps(protocol)
        assert (protocol["examples"], protocol["feature_dims"], protocol["data"]["split"]) == (40, 128, "test[:40]")
        assert protocol["scalars"]["frechet_distance"] > 0 < protocol["frechet_distance_of_training_images"]
        asked = protocol["scalars"].get("label_accuracy")
        if copy.name == "vae":  # it was told what to draw
            low, high = protocol["label_accuracy_interval_95"]
            assert 0 <= low <= asked <= high <= 1 and f"label_accuracy {asked:.4g}" in answer.out
        else:
            assert asked is None and "label_accuracy_interval_95" not in protocol
    assert snapshot(classifier) == before


def test_classes_by_name(tmp_path):
    """Digits are called by their number; the classes of a folder by the names of its sub-folders."""
    for name, brightness in (("ant", 40), ("bee", 90), ("cat", 200)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(12):
            Image.new("L", (8, 8), brightness + number).save(tmp_path / "pets" / name / f"{number:02}.png")
    config = tmp_path / "pets.py"
    config.write_text(
        "from configs import datasets\n"
        "from configs.vae.digits_conv import get_config as digits\n"
        "def get_config(arg):\n"
        "    config = digits(arg)\n"
        f"    config.data = datasets.folder({str(tmp_path / 'pets')!r})\n"
        "    return config\n"
    )
    run_folder = tmp_path / "run"
    sample = ("sample", [f"--workdir={run_folder}", "--num=5", "--labels=cat,ant"])
    trained, sampled, unknown = run_many(
        [
            ("train", train_arguments(config, run_folder, "--config.model.network.width=8", "--config.total=2 steps")),
            sample,
            ("sample", [f"--workdir={run_folder}", "--labels=dog"]),
        ]
    )
    assert trained.status == sampled.status == 0, (trained, sampled)
    np.testing.assert_array_equal(np.load(run_folder / "samples" / "step2_seed0.npz")["labels"], [2, 0, 2, 0, 2])
    assert "accepted: 0 to 2 or ant, bee, cat" in unknown.err


def test_evaluating_under_a_protocol(other_runs, tmp_path):
    classifier, gan = other_runs
    copy = tmp_path / "gan"
    shutil.copytree(gan, copy)
    before = snapshot(copy)
    good, *refused = run_many(
        [
            ("evaluate", [f"--workdir={copy}", "--protocol=digits_2k"]),
            ("evaluate", [f"--workdir={gan}", "--protocol=fid_50k"]),
            ("evaluate", [f"--workdir={gan}", "--protocol=mnist_2k"]),
            ("evaluate", [f"--workdir={classifier}", "--protocol=digits_2k"]),
        ]
    )
    assert good.status == 0 and good.err == "", good
    record = read(copy / "evaluation.json")["evaluators"]["distribution"]
    assert record["protocol"] == "digits_2k" and record["settings"]["samples"] == 2000
    low, high = record["intervals_95"]["frechet_distance"]
    assert 0 <= low < record["scalars"]["frechet_distance"] < high
    assert "class_frechet_distance" not in record["scalars"]  # the samples are of no class
    messages = ("protocol='fid_50k' is unknown; accepted: ", "looks at images of (28, 28, 1)", "can't sample")
    for answer, message in zip(refused, messages, strict=True):
        assert message in one_line(answer), answer
    assert {name: before[name] for name in before if "checkpoints" in name}.items() <= snapshot(copy).items()
