"""The work folder: nobody's files are harmed, and two trainings never share one."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import genjax
from genjax.io import workdir as workdir_module
from genjax.io.files import read_record
from genjax.io.workdir import Workdir, describe_environment, open_population, read_json, write_json
from genjax.types import UserError

CONFIG = {"model": {"width": 32, "mult": (1, 2)}, "lr": 1e-3, "seed": 0, "log": {"every": 10}, "clip": math.inf}


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(p): (p.read_bytes() if p.is_file() else b"", p.stat().st_mtime_ns) for p in [folder, *folder.rglob("*")]
    }


def test_layout(tmp_path):
    with Workdir.open_for_training(tmp_path / "a" / "run", CONFIG) as workdir:
        names = ("config", "environment", "checkpoints", "tensorboard", "metrics", "images", "evaluation")
        paths = [getattr(workdir, name).relative_to(tmp_path / "a" / "run").as_posix() for name in names]
    assert paths == [
        "config.json",
        "environment.json",
        "checkpoints",
        "tensorboard",
        "metrics.jsonl",
        "images",
        "evaluation.json",
    ]
    assert sorted(os.listdir(workdir.path)) == [".lock", "config.json"]
    assert "tmp" not in repr(Workdir("/nowhere")) and not Path("/nowhere").exists()


def test_same_config_opens_again_and_reads_back(tmp_path):
    Workdir.open_for_training(tmp_path, CONFIG).close()
    before = (tmp_path / "config.json").read_bytes()
    again = {**CONFIG, "model": {"mult": [1, 2], "width": np.int64(32)}, "log": {"every": 99}, "new": 1}
    Workdir.open_for_training(tmp_path, again, ignore=("log", "new")).close()
    assert (tmp_path / "config.json").read_bytes() == before
    config = Workdir.open(tmp_path).read_config()
    assert config == {**CONFIG, "model": {"width": 32, "mult": [1, 2]}} and list(config) == list(CONFIG)


def test_different_config_names_the_keys_and_touches_nothing(tmp_path):
    Workdir.open_for_training(tmp_path, CONFIG).close()
    before = snapshot(tmp_path)
    other = {"model": {"width": 64, "mult": (1, 2), "heads": 4}, "lr": 1e-3, "seed": False, "log": {"every": 5}}
    with pytest.raises(UserError) as caught:
        Workdir.open_for_training(tmp_path, other, ignore=("log",))
    assert str(caught.value) == (
        f"--workdir {tmp_path} holds a run with another config: model.width was 32, is 64; "
        'model.heads was absent, is 4; seed was 0, is false; clip was "Infinity", is absent; use another --workdir'
    )
    with pytest.raises(UserError, match=r"k4 was absent, is 4; and 3 more; use another --workdir"):
        Workdir.open_for_training(tmp_path, {**CONFIG, **{f"k{i}": i for i in range(8)}})
    assert snapshot(tmp_path) == before


def test_a_run_from_before_a_setting_has_what_it_did(tmp_path):
    older = {"checkpoint": {"every": "1 epochs", "best": ""}, "seed": 0}
    stop = {"policy": "stop", "max_grad_norm": 0.0, "rollbacks": 3, "rate_factor": 0.5, "reseed": True}
    newer = {**older, "checkpoint": {**older["checkpoint"], "keep": ""}, "divergence": stop}
    Workdir.open_for_training(tmp_path, older).close()
    before = (tmp_path / "config.json").read_bytes()
    assert Workdir.open(tmp_path).read_config() == newer
    Workdir.open_for_training(tmp_path, newer).close()
    assert (tmp_path / "config.json").read_bytes() == before
    other = {**newer, "checkpoint": {**newer["checkpoint"], "keep": "10%"}}
    with pytest.raises(UserError, match=r'checkpoint\.keep was "", is "10%"'):
        Workdir.open_for_training(tmp_path, other)
    Workdir.open_for_training(tmp_path / "new", other).close()
    assert Workdir.open(tmp_path / "new").read_config() == other  # what is there stays as it is


def test_config_that_json_cannot_hold(tmp_path):
    with pytest.raises(UserError, match=r"config: model\.act\.1 is of type function"):
        Workdir.open_for_training(tmp_path / "run", {"model": {"act": ["relu", test_layout]}})
    assert not (tmp_path / "run").exists()


def test_folders_that_are_no_work_folders(tmp_path):
    file = tmp_path / "file"
    file.write_text("precious")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "text").write_text("precious")
    before = snapshot(tmp_path)
    for path, message in (
        (file, "is a file, must be a folder"),
        (file / "run", "cannot be used: Not a directory"),
        (tmp_path / "notes", "is not empty and has no config.json"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            Workdir.open_for_training(path, CONFIG)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be used: File name too long"):
        Workdir.open_for_training(tmp_path / ("x" * 300), CONFIG)
    with pytest.raises(UserError, match="no such folder"):
        Workdir.open(tmp_path / ("x" * 300))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("where", ["/proc/genjax-run", "read-only"])
def test_folder_that_cannot_be_written(tmp_path, where):
    if where == "read-only":
        tmp_path.chmod(0o555)
        if os.access(tmp_path, os.W_OK):
            pytest.skip("this user may write anywhere")
        where = str(tmp_path)
    with pytest.raises(UserError, match="cannot be used"):
        Workdir.open_for_training(where, CONFIG)


def test_start_killed_before_its_config_was_written(tmp_path):
    (tmp_path / ".lock").write_text("123\n")
    (tmp_path / ".config.json.123.tmp").write_text("{")
    Workdir.open_for_training(tmp_path, CONFIG).close()
    assert Workdir.open(tmp_path).read_config() == {**CONFIG, "model": {"width": 32, "mult": [1, 2]}}


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00", '{"a": 1}}'])
def test_corrupt_config(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    for attempt in (lambda: Workdir.open(tmp_path), lambda: Workdir.open_for_training(tmp_path, CONFIG)):
        with pytest.raises(UserError, match=r"config\.json is no(t valid| record)") as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert (tmp_path / "config.json").read_text() == text


def test_open_without_a_run(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        Workdir.open(tmp_path / "none")
    with pytest.raises(UserError, match=r"no config\.json"):
        Workdir.open(tmp_path)
    assert os.listdir(tmp_path) == []


HOLDER = """
import sys
from genjax.io.workdir import Workdir
workdir = Workdir.open_for_training(sys.argv[1], {})
print("held", flush=True)
sys.stdin.read()
"""


def test_lock_names_its_holder_and_dies_with_it(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(genjax.__file__).parents[1])}
    command, node = [sys.executable, "-c", HOLDER, str(tmp_path)], re.escape(platform.node())
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=rf"in use by another training \(process {child.pid} on {node}\)"):
            Workdir.open_for_training(tmp_path, {})
        (tmp_path / ".lock").write_bytes(b"\xff\xfe\n\n7")
        with pytest.raises(UserError, match="in use by another training .process \ufffd\ufffd 7.$"):
            Workdir.open_for_training(tmp_path, {})
        Workdir.open(tmp_path)  # reading needs no lock
        child.kill()
    workdir = Workdir.open_for_training(tmp_path, {})
    with pytest.raises(UserError, match=f"process {os.getpid()}"):
        Workdir.open_for_training(tmp_path, {})
    workdir.close()
    workdir.close()
    Workdir.open_for_training(tmp_path, {}).close()


@pytest.mark.parametrize("text", ["{}", "[]", "3", "null", '{"members": []}', '{"members": [1]}', '{"members": "ab"}'])
def test_members_of_no_population(tmp_path, text):
    (tmp_path / "population.json").write_text(text)
    for attempt in (lambda: Workdir.open(tmp_path), lambda: open_population(tmp_path, {"seed=0": {}})):
        with pytest.raises(UserError, match=r"population\.json is no.*; is the file damaged") as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_write_json(tmp_path):
    path = tmp_path / "new" / "value.json"
    value = {"b": (1, np.float32(0.5)), "a": {"nan": math.nan, "inf": -math.inf}, "path": Path("x"), "n": np.arange(2)}
    write_json(path, value)
    text = path.read_text()
    assert text.startswith('{\n  "b": [\n    1,') and text.endswith("}\n")
    assert json.loads(text)["a"] == {"nan": "NaN", "inf": "-Infinity"}
    read = read_json(path)
    assert math.isnan(read["a"]["nan"]) and read["a"]["inf"] == -math.inf and read["n"] == [0, 1]
    with pytest.raises(UserError, match="value is of type object"):
        write_json(path, object())
    with pytest.raises(UserError, match="cannot write"):
        write_json(path / "below", 1)
    assert path.read_text() == text and os.listdir(path.parent) == ["value.json"]


@pytest.mark.parametrize("text", ["[]", "3", "null", '"text"', '{"a": 1}'])
def test_a_record_of_another_kind_is_named(tmp_path, text):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"^\S+record\.json is no record with 'b', 'c'; is the file damaged\?$"):
        read_record(path, "b", "c")
    if text[0] == "{":
        assert read_record(path) == read_record(path, "a") == {"a": 1}
    else:
        with pytest.raises(UserError, match=r"record\.json is no record; is the file damaged\?$"):
            read_record(path)


def test_environment(tmp_path, monkeypatch):
    with Workdir.open_for_training(tmp_path, {}) as workdir:
        first = workdir.write_environment()
        assert read_json(workdir.environment) == first
        assert first["backend"] == "cpu" and "jax" in first["packages"] and first["python"].startswith("3.")
        assert workdir.write_environment()["earlier"] == []
        monkeypatch.setattr(workdir_module, "_git", lambda root: {"commit": "abc", "dirty": False})
        changed = workdir.write_environment()
        assert changed["git"]["commit"] == "abc" and [e["git"] for e in changed["earlier"]] == [first["git"]]
        workdir.environment.write_text("{")
        assert workdir.write_environment()["earlier"] == []


def test_no_temporary_copy_of_an_event_file_stays(tmp_path):
    """TensorBoard would read it, and the process of that number need not be the one that wrote it."""
    names = [f".events.out.tfevents.1.host.0000.{number}.tmp" for number in (1, os.getpid(), "x")]
    for folder in (tmp_path / "images", tmp_path / "tensorboard"):
        folder.mkdir()
        for name in [*names, "events.out.tfevents.1.host.0000"]:
            (folder / name).write_text("")
    (tmp_path / "config.json").write_text("{}")
    Workdir.open_for_training(tmp_path, {}).close()
    assert os.listdir(tmp_path / "tensorboard") == ["events.out.tfevents.1.host.0000"]
    assert len(os.listdir(tmp_path / "images")) == 4  # an evaluation beside the training may be writing there


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_commit_of_the_code(tmp_path, monkeypatch):
    code = tmp_path / "genjax" / "io" / "workdir.py"
    code.parent.mkdir(parents=True)
    code.write_text("")
    monkeypatch.setattr(workdir_module, "__file__", str(code))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe_environment()["git"] is None  # no checkout
    git(tmp_path, "init", "-q")
    (tmp_path / "other").write_text("")
    git(tmp_path, "add", "other")
    git(tmp_path, "commit", "-qm", "other")
    assert describe_environment()["git"] is None  # somebody else's checkout
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "code")
    found = describe_environment()["git"]
    assert len(found["commit"]) == 40 and found["dirty"] is False
    code.write_text("changed")
    assert describe_environment()["git"] == {**found, "dirty": True}
    monkeypatch.setenv("PATH", "")
    assert describe_environment()["git"] is None  # no git
