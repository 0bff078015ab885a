"""Which steps count as damaged, and what becomes of those that do."""

from __future__ import annotations

import errno
import os

import pytest

from genjax.io import files
from genjax.io.checkpoint import Checkpoints
from genjax.types import UserError
from tests.io.test_checkpoint import X, damage, fill


def test_a_training_goes_on_from_the_newest_whole_step_and_keeps_the_damaged_ones(tmp_path):
    fill(tmp_path, {1: None, 2: None, 3: None}, keep_latest=3)
    for step in (2, 3):
        damage(tmp_path / str(step) / "_CHECKPOINT_METADATA", "flipped")
    said: list[str] = []
    again = Checkpoints(tmp_path, keep_latest=3)
    assert again.resume_step(said.append) == 1 and again.steps() == [1]
    assert [line.partition(" is damaged")[0] for line in said] == [f"warning: checkpoint step {i}" for i in (3, 2)]
    assert all("using step 1" in line for line in said)
    assert sorted(os.listdir(tmp_path)) == ["1", "2.corrupt", "3.corrupt"]
    fill(tmp_path, {2: None}, keep_latest=3)  # the same step, damaged once more
    damage(tmp_path / "2" / "_CHECKPOINT_METADATA", "truncated")
    assert Checkpoints(tmp_path).resume_step(said.append) == 1 and (tmp_path / "2.corrupt1").is_dir()
    damage(tmp_path / "1" / "_CHECKPOINT_METADATA", "empty")
    with pytest.raises(UserError, match="step 1 is damaged .* and so is every step before it; remove the folder"):
        Checkpoints(tmp_path).resume_step(said.append)
    assert (tmp_path / "1").is_dir()
    assert Checkpoints(tmp_path / "new").resume_step(said.append) is None


@pytest.mark.parametrize(("number", "damaged"), [(errno.ESTALE, False), (errno.EACCES, False), (errno.EIO, True)])
def test_what_cannot_be_read_for_now_is_not_damaged(tmp_path, monkeypatch, number, damaged):
    fill(tmp_path, {1: None, 2: None})

    def fails(path):
        if path.parts[len(tmp_path.parts)] == "2":
            raise OSError(number, os.strerror(number))
        return files_fingerprint(path)

    files_fingerprint = files.fingerprint
    monkeypatch.setattr(files, "fingerprint", fails)
    said: list[str] = []
    if damaged:  # a bad sector stays one
        assert Checkpoints(tmp_path).resume_step(said.append) == 1 and (tmp_path / "2.corrupt").is_dir()
    else:
        with pytest.raises(UserError, match=rf"^checkpoint step 2 in \S+ cannot be read: {os.strerror(number)}$"):
            Checkpoints(tmp_path).resume_step(said.append)
        assert not said and sorted(os.listdir(tmp_path)) == ["1", "2"]


def test_a_step_that_is_given_up_is_kept_to_be_looked_at(tmp_path):
    fill(tmp_path, {1: None, 2: None, 3: None}, keep_latest=3)
    checkpoints = Checkpoints(tmp_path, keep_latest=3)
    damage(tmp_path / "2" / "_CHECKPOINT_METADATA", "flipped")
    assert checkpoints.step_before(3) == 1 and checkpoints.step_before(1) is None
    checkpoints.give_up(3)
    assert sorted(os.listdir(tmp_path)) == ["1", "2", "3.diverged"] and checkpoints.steps() == [1, 2]


def test_the_best_is_chosen_among_whole_steps(tmp_path, caplog):
    fill(tmp_path, {1: 0.5, 2: 0.1, 3: 0.9}, keep_latest=3, best_metric="loss")
    damage(next(path for path in (tmp_path / "2").rglob("*") if path.parent.name == "d"), "flipped")
    with Checkpoints(tmp_path, best_metric="loss", read_only=True) as checkpoints:
        assert checkpoints.restore("best", X)[0]["x"][0] == 1
    assert "step 2" in caplog.messages[0] and caplog.messages[0].endswith("using 1")
