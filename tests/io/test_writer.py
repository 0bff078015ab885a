"""The log: whatever was written is there after a kill, and a resumed run shows no step twice."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams import plugin_data_pb2

from genjax.io.events import read_events
from genjax.io.writer import Writer, read_metrics
from genjax.types import UserError

ROOT = Path(__file__).resolve().parents[2]


def events(workdir) -> EventAccumulator:
    accumulator = EventAccumulator(
        str(workdir / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0}
    )
    accumulator.Reload()
    return accumulator


def curve(workdir, name: str) -> list[tuple[int, float]]:
    return [(e.step, e.value) for e in events(workdir).Scalars(name)]


def log(workdir, resume_step: int | None, steps, value: float) -> None:
    image = np.full((4, 6, 3), int(value), np.uint8)
    with Writer(workdir, resume_step) as writer:
        for step in steps:
            writer.scalars(step, {"train/loss": value})
            writer.images(step, {"samples": image})
            writer.text(step, {"note": f"value {value}"})


def test_scalars_images_and_text_read_back(tmp_path):
    image = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7, 1)
    with Writer(tmp_path) as writer:
        writer.scalars(10, {"train/loss": np.float32(0.5), "train/scale": jnp.bfloat16(2), "eval/ok": True, "n": 3})
        writer.images(10, {"samples": image, "colour": np.repeat(image, 3, -1)})
        writer.text(10, {"note": "**bold**"})
    (record,) = read_metrics(tmp_path / "metrics.jsonl")
    assert record.pop("time") > 1.7e9
    assert record == {"step": 10, "train/loss": 0.5, "train/scale": 2.0, "eval/ok": 1, "n": 3}
    read = events(tmp_path)
    assert curve(tmp_path, "train/loss") == [(10, 0.5)] and curve(tmp_path, "n") == [(10, 3.0)]
    for name in ("samples", "colour"):
        (event,) = read.Images(name)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(event.encoded_image_string))), np.repeat(image, 3, -1))
    assert read.SummaryMetadata("note/text_summary").plugin_data.plugin_name == "text"
    assert read.Tensors("note/text_summary")[0].tensor_proto.string_val == [b"**bold**"]


def test_non_finite_values_are_standard_json(tmp_path, capfd):
    values = {"a": math.nan, "b": math.inf, "c": -np.float32(math.inf)}
    with Writer(tmp_path) as writer:
        writer.scalars(1, values)

    def refuse(word: str):
        raise AssertionError(f"{word} is not JSON")

    record = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert (record["a"], record["b"], record["c"]) == ("NaN", "Infinity", "-Infinity")
    (read,) = read_metrics(tmp_path / "metrics.jsonl")
    assert math.isnan(read["a"]) and (read["b"], read["c"]) == (math.inf, -math.inf)
    assert math.isnan(curve(tmp_path, "a")[0][1]) and curve(tmp_path, "b") == [(1, math.inf)]
    assert capfd.readouterr().err == ""


def test_resume_shows_no_step_twice(tmp_path, capfd):
    log(tmp_path, None, range(10, 60, 10), 1.0)
    log(tmp_path, 30, range(40, 60, 10), 2.0)
    log(tmp_path, 40, range(50, 70, 10), 3.0)
    expected = [(10, 1.0), (20, 1.0), (30, 1.0), (40, 2.0), (50, 3.0), (60, 3.0)]
    assert curve(tmp_path, "train/loss") == expected
    assert [(r["step"], r["train/loss"]) for r in read_metrics(tmp_path / "metrics.jsonl")] == expected
    read = events(tmp_path)
    assert [e.step for e in read.Images("samples")] == [step for step, _ in expected]
    texts = [(e.step, e.tensor_proto.string_val[0].decode()) for e in read.Tensors("note/text_summary")]
    assert texts == [(step, f"value {value}") for step, value in expected]
    assert "Purging" not in capfd.readouterr().err  # nothing is left that a reader would have to hide


def test_what_a_step_has_already_is_not_logged_again(tmp_path):
    """As after a kill between a log and the checkpoint that would have said so."""
    log(tmp_path, None, [10, 20], 1.0)
    with Writer(tmp_path, 20) as writer:
        writer.hparams({"a": 1}, {"train/loss": 1.0})
        writer.scalars(20, {"train/loss": 2.0, "eval/loss": 3.0})
        writer.scalars(20, {"train/loss": 4.0, "eval/loss": 4.0})
    log(tmp_path, 20, [20, 30], 5.0)
    with Writer(tmp_path, 30) as writer:
        writer.hparams({"a": 2}, {"train/loss": 1.0})
    assert curve(tmp_path, "train/loss") == [(10, 1.0), (20, 1.0), (30, 5.0)]
    assert curve(tmp_path, "eval/loss") == [(20, 3.0)]
    found = [{k: v for k, v in r.items() if k != "time"} for r in read_metrics(tmp_path / "metrics.jsonl")]
    assert found[1:3] == [{"step": 20, "train/loss": 1.0}, {"step": 20, "eval/loss": 3.0}] and len(found) == 4
    seen = [
        (event.step, value.tag)
        for path in (tmp_path / "tensorboard").iterdir()
        for _, event in read_events(path.read_bytes())
        for value in event.summary.value
    ]
    assert len(seen) == len(set(seen)) and (0, "_hparams_/session_start_info") in seen
    # A record that reached one of the two files only is completed in the other.
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    log(tmp_path, 30, [30], 5.0)
    assert [r["step"] for r in read_metrics(path)] == [10, 20, 20, 30]
    assert curve(tmp_path, "train/loss") == [(10, 1.0), (20, 1.0), (30, 5.0)]


def test_start_from_the_beginning_forgets_everything(tmp_path):
    log(tmp_path, None, [0, 10], 1.0)
    log(tmp_path, None, [0], 2.0)
    assert curve(tmp_path, "train/loss") == [(0, 2.0)]
    assert [r["train/loss"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [2.0]
    log(tmp_path, 0, [10], 3.0)
    assert curve(tmp_path, "train/loss") == [(0, 2.0), (10, 3.0)]


def test_torn_files_are_read_and_mended(tmp_path):
    log(tmp_path, None, [1, 2, 3], 1.0)
    path = tmp_path / "metrics.jsonl"
    (event_file,) = (tmp_path / "tensorboard").iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    event_file.write_bytes(event_file.read_bytes()[:-9])
    assert [r["step"] for r in read_metrics(path)] == [1, 2]
    log(tmp_path, 3, [4], 2.0)
    assert [r["step"] for r in read_metrics(path)] == [1, 2, 4]
    assert curve(tmp_path, "train/loss")[-1] == (4, 2.0)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))  # whole, but for its newline
    log(tmp_path, 4, [5], 2.0)
    assert [r["step"] for r in read_metrics(path)] == [1, 2, 4, 5]


def test_damage_before_the_last_line_is_an_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for middle in (
        '{"step": 2, "a',
        "[1]",
        "",
        "{}",
        '{"step": "a"}',
        '{"step": null}',
        '{"step": true}',
        '{"step": []}',
    ):
        path.write_text(f'{{"step": 1}}\n{middle}\n{{"step": 3}}\n')
        with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
            read_metrics(path)
    with pytest.raises(UserError, match="line 2"):
        Writer(tmp_path, 1)
    with pytest.raises(UserError, match="cannot read"):
        read_metrics(tmp_path / "none")
    path.write_text("")
    assert read_metrics(path) == []


def hparams_content(workdir, part: str):
    content = events(workdir).SummaryMetadata(f"_hparams_/{part}").plugin_data.content
    return plugin_data_pb2.HParamsPluginData.FromString(content)


def test_hparams_make_one_row_in_the_same_run(tmp_path):
    config = {"model.width": 64, "opt.lr": 1e-3, "flip": True, "data": "digits", "mult": (1, 2), "none": None}
    with Writer(tmp_path) as writer:
        writer.scalars(20, {"eval/loss": 0.25})
        writer.hparams(config, {"eval/loss": 0.25, "eval/accuracy": 0.75})
        writer.hparams({**config, "model.width": 1}, {"eval/loss": 0.25})
    assert [p.is_file() for p in (tmp_path / "tensorboard").iterdir()] == [True]
    shown = hparams_content(tmp_path, "session_start_info").session_start_info.hparams
    assert shown["model.width"].number_value == 64 and shown["opt.lr"].number_value == 1e-3
    assert shown["flip"].bool_value and shown["data"].string_value == "digits"
    assert shown["mult"].string_value == "(1, 2)" and shown["none"].string_value == "none"
    files = (tmp_path / "tensorboard").iterdir()
    tags = [value.tag for file in files for e in EventFileLoader(str(file)).Load() for value in e.summary.value]
    assert tags.count("_hparams_/session_start_info") == 1 and "_hparams_/experiment" not in tags
    assert hparams_content(tmp_path, "session_end_info").session_end_info.status
    assert curve(tmp_path, "eval/loss") == [(20, 0.25)]  # not a second time
    assert curve(tmp_path, "eval/accuracy") == [(20, 0.75)]
    with Writer(tmp_path, 20) as writer:
        writer.hparams({**config, "model.width": 1}, {"eval/accuracy": 0.75})
    shown = hparams_content(tmp_path, "session_start_info").session_start_info.hparams
    assert shown["model.width"].number_value == 64  # the row is there already
    assert curve(tmp_path, "eval/accuracy") == [(20, 0.75)]
    assert "data" in hparams_content(tmp_path, "session_start_info").session_start_info.hparams


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: w.scalars(1, {"step": 1.0}), "cannot be called 'step'"),
        (lambda w: w.scalars(1, {"loss": np.zeros(2)}), r"'loss' is float64\[2\], must be a single number"),
        (lambda w: w.scalars(1, {"loss": "high"}), "must be a single number"),
        (lambda w: w.images(1, {"x": np.zeros((2, 2, 3))}), r"'x' is float64\[2, 2, 3\], must be uint8"),
        (lambda w: w.images(1, {"x": np.zeros((2, 2), np.uint8)}), "must be uint8"),
    ],
)
def test_bad_values(tmp_path, call, message):
    with Writer(tmp_path) as writer, pytest.raises(UserError, match=message):
        call(writer)
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the log"):
        Writer(tmp_path / "file")


KILLED = """
import os, signal, sys
from genjax.io.writer import Writer
writer = Writer(sys.argv[1])
for step in range(200):
    writer.scalars(step, {"loss": step / 2})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_loses_nothing_written(tmp_path):
    command = [sys.executable, "-W", "error", "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60)
    assert done.returncode == -signal.SIGKILL
    expected = [(step, step / 2) for step in range(200)]
    assert curve(tmp_path, "loss") == expected
    assert [(r["step"], r["loss"]) for r in read_metrics(tmp_path / "metrics.jsonl")] == expected
