"""What a power cut, or a kill at the wrong moment, leaves of checkpoints: the log is never behind them."""

from __future__ import annotations

import os

import jax.numpy as jnp
import pytest

from configs.vae import digits_conv
from genjax import build
from genjax.io.checkpoint import Checkpoints
from genjax.io.files import settle
from genjax.io.workdir import Workdir
from genjax.train.loop import train
from genjax.train.sharding import mesh_of
from genjax.types import UserError
from tests.io.test_checkpoint import X, damage, fill


@pytest.fixture
def synced(monkeypatch):
    """The paths of all that was synced, in order."""
    paths: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        paths.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return paths


def test_a_step_is_on_the_disk_before_an_older_one_goes(tmp_path, synced, monkeypatch):
    folder, gone = tmp_path / "checkpoints", []
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda *paths: gone.append(list(synced)) or rename(*paths))
    with Checkpoints(folder, keep_latest=1) as checkpoints:
        checkpoints.save(1, {"x": jnp.zeros(3)})
        checkpoints.save(2, {"x": jnp.zeros(3)})
    assert checkpoints.steps() == [2]
    wanted = {path for path in (folder / "2").rglob("*") if path.name != "files.json"} | {folder, folder / "2"}
    assert {str(path) for path in wanted} <= set(gone[-1])  # when the step before it was removed
    assert gone[-1][-2:] == [str(folder / "2"), str(folder)]


def test_the_log_is_on_the_disk_before_a_save_begins(tmp_path, synced, monkeypatch):
    before, begin = [], Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda *args, **more: before.append(list(synced)) or begin(*args, **more))
    config = digits_conv.get_config("accelerator=cpu,smoke")
    config.total, config.evaluators = "2 steps", {}
    config.model.network, config.model.conditional = {"name": "dense_vae", "latent_dim": 2, "hidden": (4,)}, False
    plan = build.experiment(build.to_plain(config))
    with Workdir.open_for_training(tmp_path / "run", plan.config) as workdir:
        train(plan, workdir, mesh_of(plan.config["accelerator"]))
    assert before and all({str(tmp_path / "run"), str(tmp_path / "run" / "metrics.jsonl")} <= set(b) for b in before)


@pytest.mark.parametrize("record", [None, b"", b"\0" * 300, b"[]", b"{}", b'{"custom_metadata": null}', b"\xff"])
def test_a_step_that_is_empty_or_has_no_record_is_damaged(tmp_path, record, caplog):
    fill(tmp_path, {1: None, 2: None})
    if record is None:
        (tmp_path / "3").mkdir()
    else:
        fill(tmp_path, {3: None}, keep_latest=3)
        (tmp_path / "3" / "files.json").unlink()
        (tmp_path / "3" / "_CHECKPOINT_METADATA").write_bytes(record)
    assert Checkpoints(tmp_path, read_only=True).restore("latest", X)[0]["x"][0] == 2
    assert "step 3" in caplog.messages[0] and caplog.messages[0].endswith("using 2")
    with pytest.raises(UserError, match="step 3 in .* is unreadable"):
        Checkpoints(tmp_path, read_only=True).restore(3, X)
    said: list[str] = []
    assert Checkpoints(tmp_path).resume_step(said.append) == 2
    assert len(said) == 1 and "step 3 is damaged (file _CHECKPOINT_METADATA" in said[0]
    assert (tmp_path / "3.corrupt").is_dir()


def test_a_training_notes_the_checksums_that_the_one_before_it_could_not(tmp_path):
    fill(tmp_path, {1: None, 2: None})
    path = tmp_path / "2" / "files.json"
    noted = path.read_bytes()
    path.unlink()
    Checkpoints(tmp_path, read_only=True).restore("latest", X)
    assert not path.exists()
    assert Checkpoints(tmp_path).resume_step(print) == 2 and path.read_bytes() == noted
    damage(next(path for path in (tmp_path / "2").rglob("*") if path.parent.name == "d"), "flipped")
    assert Checkpoints(tmp_path).resume_step(print) == 1
    settle(tmp_path / "2.corrupt")
    assert (tmp_path / "2.corrupt" / "files.json").read_bytes() == noted  # stay what they are


@pytest.mark.parametrize("text", ["[]", "null", "3", '{"a": 1}', '{"a": [1]}', '{"a": ["1", 2]}', "{", "\0"])
def test_checksums_that_are_none_are_damage(tmp_path, text, caplog):
    fill(tmp_path, {1: None, 2: None})
    (tmp_path / "2" / "files.json").write_text(text)
    assert Checkpoints(tmp_path, read_only=True).restore("latest", X)[0]["x"][0] == 1
    assert caplog.messages[0].endswith("using 1")
    said: list[str] = []
    assert Checkpoints(tmp_path).resume_step(said.append) == 1 and "step 2 is damaged" in said[0]
