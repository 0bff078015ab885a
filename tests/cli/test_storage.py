"""Storage that fails under a training costs one line and the steps since the last checkpoint, and no more."""

from __future__ import annotations

import os
import re

import pytest

from genjax.io.checkpoint import Checkpoints
from tests.cli.commands import VAE, checkpoint_steps, run, same_run, train_arguments
from tests.cli.storage import break_under, start_bound, storage, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "can mount")

TOTAL = 240
SETTINGS = {
    "total": f"{TOTAL} steps",
    "log_every": "10 steps",
    "checkpoint.every": "20 steps",
    "evaluators.eval.every": "40 steps",
    "evaluators.bound.num_samples": "2",
    "evaluators.samples.every": "40 steps",
    "evaluators.reconstructions.every": "end",
    "evaluators.interpolations.every": "end",
    "model.network.width": "8",
    "model.network.hidden": "16",
}


def arguments(folder) -> list[str]:
    return train_arguments(VAE, folder, *(f"--config.{name}={value}" for name, value in SETTINGS.items()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("storage") / "whole"
    answer = run("train", *arguments(folder))
    assert answer.status == 0 and answer.err == "", answer
    return folder


def one_error(status: int, err: str) -> str:
    assert status == 2, (status, err)
    lines = err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and "Traceback" not in err, err
    return lines[0]


WORDS = {
    "full disk": "No space left on device",
    "read-only folder": "Permission denied",
    "vanished drive": "is gone: No such file|is another than before: its drive was unmounted",  # beneath lies, or not
}


def test_a_run_goes_on_after_each_fault_and_ends_as_an_undisturbed_one(whole, tmp_path):
    """All three in one run, each at a later step than the one before."""
    folder = tmp_path / "disk" / "run"
    with storage(tmp_path / "disk") as disk:
        for fault, step in zip(WORDS, (80, 120, 200), strict=True):
            answer = break_under(disk, fault, arguments(folder), f"evaluation at step {step}")
            assert re.search(WORDS[fault], one_error(answer.status, answer.err)), fault
            assert f"finished {TOTAL} steps" not in answer.out
            disk.remedies[fault]()
            # The last good checkpoint is there and whole; a save that was going on is lost, the one before it is not.
            said: list[str] = []
            with Checkpoints(folder / "checkpoints") as checkpoints:
                latest = checkpoints.resume_step(said.append)
            assert latest is not None and latest >= step - 40 and not said, (fault, latest, said)
        # Orbax may be late with a part of a save that has failed; no reader takes that for a checkpoint.
        assert [name for name in disk.beneath if ".orbax-checkpoint-tmp" not in name] == []
        answer = run("train", *arguments(folder))
        assert answer.status == 0 and answer.err == "" and "continuing from step" in answer.out, answer
        assert checkpoint_steps(folder)[-1] == TOTAL
        same_run(folder, whole)
        assert not [name for name in os.listdir(folder) if name.endswith(".tmp")]


def test_a_start_on_storage_that_is_full_or_read_only_is_one_line(tmp_path):
    with storage(tmp_path / "disk") as disk:
        disk.remount("ro")
        process = start_bound("train", *arguments(tmp_path / "disk" / "run"))
        _, err = process.communicate(timeout=120)
        assert "Read-only file system" in one_error(process.returncode, err)
        disk.remount("rw")
        disk.faults["full disk"]()
        process = start_bound("train", *arguments(tmp_path / "disk" / "run"))
        _, err = process.communicate(timeout=120)
        assert "No space left on device" in one_error(process.returncode, err)
