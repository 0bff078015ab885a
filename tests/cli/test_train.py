"""Training at the command line: what it prints and what it leaves in the work folder."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genjax.io.writer import read_metrics
from tests.cli.commands import (
    VAE,
    checkpoint_arrays,
    checkpoint_steps,
    read,
    records,
    run,
    run_many,
    snapshot,
    start,
    train_arguments,
)

COMMANDS = ("train", "evaluate", "sample", "prepare")


def test_what_is_printed(vae_run):
    _, answer = vae_run
    assert answer.err == ""
    lines = answer.out.splitlines()
    assert lines[0].startswith("vae on digits: parameters vae ")
    first = r"first step after ([\d.]+) s, ([\d.]+) s of it compilation \((\d+) of (\d+) programs from the cache\)"
    match = re.fullmatch(first, lines[1])
    assert match and float(match[1]) >= float(match[2]) and int(match[4]) >= max(2, int(match[3]))
    wanted = [
        r"step 12/12 \(100%\)  [\d,]+ images/s  0:00 left  elbo -[\d.]+  kl [\d.]+",
        r"evaluation at step 12: elbo -[\d.]+  kl [\d.]+  log_likelihood -[\d.]+  "
        r"\([\d.]+ s; evaluations \d+% of the run\)",
        r"finished 12 steps in 0:\d\d",
        r"TensorBoard: tensorboard --logdir=.*/vae/tensorboard",
    ]
    for pattern in wanted:
        assert any(re.fullmatch(pattern, line) for line in lines), (pattern, answer.out)
    assert "\r" not in answer.out


def test_terminal_shows_a_bar(tmp_path):
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 30, 160, 0, 0))
    overrides = ("--config.model.network.width=8", "--config.total=6 steps")
    process = start(
        "train", *train_arguments(VAE, tmp_path / "run", *overrides), stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:  # the process is gone
            break
        if not piece:
            break
        shown += piece
    os.close(leader)
    assert process.wait(60) == 0, shown.decode()
    text = shown.decode()
    assert "finished 6 steps" in text
    bars = re.findall(r"(\d+)/6 \[\d\d:\d\d<(?:\d\d:\d\d|\?), ([\d,]+) images/s  elbo -?[\d.]+  kl [\d.]+\]", text)
    assert bars and bars[-1][0] == "6" and int(bars[-1][1].replace(",", "")) > 0, text


def test_files(vae_run):
    folder, _ = vae_run
    assert read(folder / "config.json")["model"]["family"] == "vae"
    environment = read(folder / "environment.json")
    assert environment["backend"] == "cpu" and environment["packages"]["jax"]
    assert 1 <= len(checkpoint_steps(folder)) <= 3 and checkpoint_steps(folder)[-1] == 12
    for name in ("samples", "reconstructions", "interpolations"):
        with Image.open(folder / "images" / f"{name}.png") as image:
            assert min(image.size) >= 8 and np.asarray(image).std() > 0


def test_metrics(vae_run):
    folder, _ = vae_run
    metrics = read_metrics(folder / "metrics.jsonl")
    trained = [record for record in metrics if "train/loss" in record]
    assert [record["step"] for record in trained] == [2, 4, 6, 8, 10, 12]
    assert all({"train/elbo", "train/kl", "train/grad_norm"} <= set(record) for record in trained)
    assert all(record["speed/images_per_second"] > 0 for record in trained[1:])
    evaluated = {record["step"]: record for record in metrics if "eval/elbo" in record}
    assert list(evaluated) == [2, 4, 6, 8, 10, 12]
    assert [record["step"] for record in metrics if "eval/importance_bound_3" in record] == [12]
    groups = {name.partition("/")[0] for record in metrics for name in record}
    assert groups == {"step", "time", "train", "eval", "speed"}


def test_evaluation_record(vae_run):
    folder, _ = vae_run
    record = read(folder / "evaluation.json")
    assert (record["family"], record["step"], record["checkpoint"], record["weights"]) == (
        "vae",
        12,
        "latest",
        "averaged",
    )
    for name, protocol in record["evaluators"].items():
        assert protocol["examples"] == 16 and protocol["seed"] == 0  # the limit of smoke configs
        assert protocol["data"]["split"] == "test[:40]" and protocol["data"]["source"] == "digits"
        assert protocol["scalars"] and protocol["standard_error"].keys() == protocol["scalars"].keys(), name
    assert record["evaluators"]["bound"]["draws"] == 3
    last = [r for r in read_metrics(folder / "metrics.jsonl") if "eval/elbo" in r][-1]
    assert last["eval/elbo"] == record["evaluators"]["eval"]["scalars"]["elbo"]


def events_of(folder):
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    return events


def test_tensorboard_says_what_the_record_says(vae_run, other_runs):
    folder, _ = vae_run
    events = events_of(folder)
    wanted = {}
    for record in read_metrics(folder / "metrics.jsonl"):
        for name in record.keys() - {"step", "time"}:
            wanted.setdefault(name, []).append((record["step"], float(np.float32(record[name]))))
    assert set(events.Tags()["scalars"]) == set(wanted)
    for name, points in wanted.items():
        assert [(point.step, point.value) for point in events.Scalars(name)] == points
    assert set(events.Tags()["images"]) == {"samples", "reconstructions", "interpolations"}
    assert [image.step for image in events.Images("samples")] == [2, 4, 6, 8, 10, 12]
    assert "confusion" in events_of(other_runs[0]).Tags()["images"]
    (text,) = events.Tensors("config/text_summary")
    assert b"optim.learning_rate" in text.tensor_proto.string_val[0]
    hparams = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    for name in (b"optim.learning_rate", b"model.family", b"divergence.rate_factor", b"accelerator.compute_dtype"):
        assert name in hparams
    assert b"evaluators." not in hparams and b"checkpoint." not in hparams  # of many settings, none that teaches


def test_the_same_command_again_changes_nothing(vae_run, vae_arguments):
    folder, _ = vae_run
    keep = lambda: {  # noqa: E731
        name: file
        for name, file in snapshot(folder).items()
        if not name.startswith((".lock", "environment.json", "tensorboard/"))
    }
    before, scalars = keep(), len(events_of(folder).Scalars("train/loss"))
    answer = run("train", *vae_arguments)
    assert answer.status == 0 and "this run is finished: step 12 of 12" in answer.out
    assert keep() == before
    assert len(events_of(folder).Scalars("train/loss")) == scalars


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    def arguments(name, every):
        settings = ("optim.learning_rate=1e20", "optim.schedule=constant", f"checkpoint.every={every}")
        settings += ("evaluators.eval.every=end", "model.network.width=8", "total=12 steps")
        return train_arguments(VAE, tmp_path / name, *(f"--config.{setting}" for setting in settings))

    commands = [arguments("saved", "1 steps"), arguments("saved", "1 steps"), arguments("unsaved", "8 steps")]
    first, again, unsaved = run_many([("train", command) for command in commands])
    for answer in (first, again, unsaved):
        assert answer.status == 3 and len(answer.err.splitlines()) == 1
        assert re.match(r"error: step 2: .*\bloss nan.*training stopped", answer.err)
        assert "finished" not in answer.out
    assert first.err == again.err and "continuing from step 1" in again.out
    assert "The last checkpoint is step 1;" in first.err and "No checkpoint was saved" in unsaved.err
    assert checkpoint_steps(tmp_path / "saved") == [1] and checkpoint_steps(tmp_path / "unsaved") == []
    for name, array in checkpoint_arrays(tmp_path / "saved").items():
        assert np.isfinite(array).all(), name
    for name in ("saved", "unsaved"):
        assert not (tmp_path / name / "evaluation.json").exists()
        assert all(np.isfinite(value) for record in records(tmp_path / name) for value in record.values())


def test_help(tmp_path):
    answers = run_many([(command, ["--help"]) for command in COMMANDS], cwd=tmp_path)
    flags = {
        "train": ["config", "workdir"],
        "evaluate": ["workdir", "checkpoint", "accelerator", "judge", "num"],
        "sample": ["workdir", "num", "labels", "seed", "checkpoint", "accelerator", "out"],
        "prepare": ["from", "data_dir"],
    }
    for command, answer in zip(COMMANDS, answers, strict=True):
        assert answer.status == 0 and answer.err == ""
        assert f"python -m experiments.{command} " in answer.out
        for flag in flags[command]:
            assert re.search(rf"^\s+--{flag}(:| [A-Z]+) +\S", answer.out, re.M), (command, flag, answer.out)
