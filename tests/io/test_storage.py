"""Folders that are gone, and what is said of them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from orbax.checkpoint import v1 as ocp

from genjax.io import quiet
from genjax.io.checkpoint import Checkpoints
from genjax.io.files import reason, remove_leftovers, write_atomic
from genjax.io.quiet import quieten_failed_save, quieten_orbax
from genjax.types import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_a_save_that_fails_is_one_line_and_leaves_the_step_before(tmp_path, capfd):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder)
    checkpoints.save(1, {"x": jnp.zeros(3)})
    checkpoints.wait()
    folder.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="folder .*checkpoints is gone: No such file"):
        checkpoints.save(2, {"x": jnp.zeros(3)})
    folder.mkdir()
    with pytest.raises(UserError, match="is another than before: its drive was unmounted, or it was moved"):
        checkpoints.save(2, {"x": jnp.zeros(3)})
    assert os.listdir(folder) == []
    folder.rmdir()
    (tmp_path / "moved").rename(folder)
    assert checkpoints.save(2, {"x": jnp.full(3, 2)})
    checkpoints.close()
    assert checkpoints.steps() == [1, 2]
    assert capfd.readouterr().err == ""


def test_a_step_is_replaced_when_the_new_one_is_whole_and_not_before(tmp_path, monkeypatch):
    found = lambda: Checkpoints(tmp_path, read_only=True).restore(1, {"x": jax.ShapeDtypeStruct((3,), jnp.float32)})  # noqa: E731
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"x": jnp.zeros(3)})
        checkpoints.wait()
        (tmp_path / "1").rename(tmp_path / "1.replaced")  # as a kill during the save of the other leaves it
        (tmp_path / "1.orbax-checkpoint-tmp").mkdir()
    Checkpoints(tmp_path)
    assert os.listdir(tmp_path) == ["1"] and found()[0]["x"][0] == 0
    with Checkpoints(tmp_path) as checkpoints:
        with monkeypatch.context() as patch:
            patch.setattr(ocp, "save_async", lambda *args, **options: 1 / 0)
            with pytest.raises(UserError, match="step 1 could not be saved in .*: ZeroDivisionError"):
                checkpoints.save(1, {"x": jnp.ones(3)}, replace=True)
        assert os.listdir(tmp_path) == ["1"] and found()[0]["x"][0] == 0
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", lambda *args: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
            with pytest.raises(UserError, match="step 1 could not be saved in .*: Permission denied"):
                checkpoints.save(1, {"x": jnp.ones(3)}, replace=True)
        assert checkpoints.save(1, {"x": jnp.ones(3)}, replace=True)
    assert os.listdir(tmp_path) == ["1"] and found()[0]["x"][0] == 1
    (tmp_path / "1.replaced").mkdir()  # killed before it was removed
    Checkpoints(tmp_path)
    assert os.listdir(tmp_path) == ["1"] and found()[0]["x"][0] == 1


@pytest.fixture(autouse=True)
def _no_save_has_failed(monkeypatch):
    monkeypatch.setattr(quiet, "_failed", False)


def test_a_command_whose_save_failed_does_not_wait_for_its_threads():
    code = """
import sys, threading
from experiments import cli
from genjax.io import quiet
from genjax.io.quiet import quieten_failed_save
from genjax.types import UserError
def main():
    threading.Thread(target=threading.Event().wait).start()
    quieten_failed_save()
    print("before")
    raise UserError("no room")
sys.argv = ["command"]
cli.run(main, "")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (2, "before\n", "error: no room\n")


def test_only_what_orbax_repeats_is_left_out(monkeypatch, caplog):
    seen: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    quieten_orbax()
    hook = sys.unraisablehook
    quieten_orbax()
    assert sys.unraisablehook is hook
    report = lambda error, source: hook(SimpleNamespace(object=source, exc_value=error))  # noqa: E731
    report(RuntimeError("Event loop is closed"), None)
    assert seen == []
    for error, source in ((RuntimeError("other"), None), (RuntimeError("Event loop is closed"), report)):
        report(error, source)
    assert len(seen) == 2
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        quieten_failed_save()
        assert quiet.save_failed()
        for text in ("coroutine 'a.<locals>.b' was never awaited", "other"):
            warnings.warn(text, RuntimeWarning, stacklevel=1)
    assert [str(warning.message) for warning in warned] == ["other"]
    for text in ("Task exception was never retrieved\nfuture: <Task>", "other"):
        logging.getLogger("asyncio").error(text)
    assert caplog.messages == ["other"]


def test_a_file_of_a_folder_that_is_gone_is_not_written_elsewhere(tmp_path):
    with pytest.raises(UserError, match="cannot write .*a/b.txt: No such file"):
        write_atomic(tmp_path / "a" / "b.txt", b"x", parents=False)
    assert os.listdir(tmp_path) == []
    write_atomic(tmp_path / "a" / "b.txt", b"x")
    assert os.listdir(tmp_path / "a") == ["b.txt"]


def test_temporary_files_of_processes_that_are_gone_are_removed(tmp_path):
    gone = 2**22 + 1  # more than Linux counts to
    names = [f".a.json.{os.getpid()}.tmp", ".a.json.x.tmp", ".hidden", "a.tmp"]
    for name in [*names, f".a.json.{gone}.tmp", f".events.out.tfevents.1.{gone}.tmp"]:
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "none")
    assert sorted(os.listdir(tmp_path)) == sorted(names)


def test_the_reason_of_an_error_in_the_storage_library_is_the_systems_word():
    error = ValueError("RESOURCE_EXHAUSTED: Failed writing: \"/a/b\": No space left [os_error_code='28'] [x='y']")
    assert reason(error) == "No space left on device"
    assert reason(ValueError("other")) == "other" and reason(UserError("own")) == "own"
