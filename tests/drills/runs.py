"""The runs that are disturbed: one small config for each family, with every duty so often that a moment hits one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.cli.commands import ROOT, Answer, environment, train_arguments

accelerator = "cpu"  # of all runs; on a GPU they are told to be deterministic

_COMMON = {
    "log_every": "10 steps",
    "checkpoint.every": "20 steps",
    "evaluators.eval.every": "40 steps",
    "evaluators.eval.limit": "200",
}
_UNET = {f"model.network.{name}": value for name, value in (("width", "8"), ("multipliers", "(1,)"))}
# Family -> config, total steps (a run that saves thirty times or more), settings.
FAMILIES: dict[str, tuple[str, int, dict[str, str]]] = {
    "classifier": ("classifier/digits_cnn", 1000, {"model.network.features": "(8, 8, 8)"}),
    "gan": (
        "gan/digits_dcgan",
        600,
        {
            "model.generator.width": "8",
            "model.discriminator.width": "8",
            "evaluators.samples.every": "40 steps",
            "evaluators.interpolations.every": "end",
        },
    ),
    "vae": (
        "vae/digits_conv",
        1500,  # every other fault befalls this one
        {
            "model.network.width": "8",
            "model.network.hidden": "16",
            "evaluators.samples.every": "40 steps",
            "evaluators.reconstructions.every": "40 steps",
            "evaluators.interpolations.every": "end",
            "evaluators.bound.num_samples": "2",
        },
    ),
    "diffusion": (
        "diffusion/digits_flow",
        600,
        _UNET
        | {
            "model.sampler.num_steps": "2",
            "evaluators.samples.every": "40 steps",
            "evaluators.interpolations.every": "end",
            "evaluators.likelihood.num_steps": "2",
            "evaluators.likelihood.limit": "40",
        },
    ),
}


def arguments(family: str, folder: Path, total: int | None = None) -> list[str]:
    """Of ``experiments.train``; ``total`` steps instead of the table's."""
    config, steps, settings = FAMILIES[family]
    settings = {"total": f"{total or steps} steps", **_COMMON, **settings}
    if family == "classifier":
        settings.pop("evaluators.eval.limit")
    if accelerator == "gpu":
        settings["accelerator.deterministic"] = "True"
    overrides = [f"--config.{name}={value}" for name, value in settings.items()]
    return train_arguments(f"{ROOT}/configs/{config}.py", folder, *overrides, arg=f"accelerator={accelerator}")


class Started:
    """A training whose output goes to a file, so that nobody has to read it while it runs."""

    def __init__(self, command: Sequence[str]):
        self._out, self._err = (tempfile.TemporaryFile("w+") for _ in range(2))  # noqa: SIM115 (closed by answer)
        words = [sys.executable, "-u", "-m", "experiments.train", *command]
        pipes = {"stdout": self._out, "stderr": self._err}
        platform = {"JAX_PLATFORMS": "cpu"} if accelerator == "cpu" else {}
        self.process = subprocess.Popen(words, cwd=ROOT, env=environment(**platform), **pipes)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return os.pread(self._out.fileno(), 1 << 20, 0).decode()

    def answer(self, timeout: float = 600) -> Answer:
        """How it ended; waits for that."""
        status = self.process.wait(timeout)
        found = Answer(status, self.out, os.pread(self._err.fileno(), 1 << 20, 0).decode())
        self._out.close()
        self._err.close()
        return found
