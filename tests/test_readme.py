"""The commands of the README run as they stand there, in their smoke form, and the worked example works."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

from experiments import cli
from genjax import build, networks
from genjax.train.loop import train
from genjax.train.sharding import data_mesh
from tests import tiny_tfds
from tests.cli.commands import ROOT, run_many

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: str, language: str) -> list[str]:
    return [body for name, body in FENCE.findall((ROOT / document).read_text()) if name == language]


def commands() -> list[list[str]]:
    lines = [line for block in blocks("README.md", "sh") for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.strip()]


def smoke(argument: str) -> str:
    """Adds ``smoke`` to the config's argument, and nothing else."""
    if not argument.startswith("--config="):
        return argument
    return argument + (",smoke" if ":" in argument else ":smoke")


def test_every_command_is_one_this_test_knows():
    known = {"make", "pip", "tensorboard", "python"}
    assert {words[0] for words in commands()} == known
    assert {words[2] for words in commands() if words[0] == "python"} == {
        f"experiments.{name}" for name in ("train", "evaluate", "sample", "prepare", "report", "export", "sweep")
    }


def test_make_targets_exist():
    targets = [words[1] for words in commands() if words[0] == "make"]
    assert targets == ["demo", "test"]
    for target in targets:
        made = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr


@pytest.mark.slow
def test_commands_run(tmp_path, monkeypatch):
    for name in ("mnist", "fashion_mnist"):
        tiny_tfds.prepare(name, tmp_path / "tfds", train=96, test=48)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    python = [words[2:] for words in commands() if words[0] == "python"]
    cases = [(module.removeprefix("experiments."), [smoke(word) for word in words]) for module, *words in python]
    cases = [case for case in cases if case[0] != "prepare"]  # which is in tests/test_prepare.py
    for (module, words), answer in zip(cases, run_many(cases, cwd=tmp_path), strict=True):
        assert answer.status == 0, f"{module} {' '.join(words)}\n{answer.out}\n{answer.err}"
    assert len(cases) >= 7
    assert (tmp_path / "runs/vae/samples").is_dir() and (tmp_path / "runs/gan/images/samples.png").exists()
    assert (tmp_path / "runs/sweep/report/report.md").exists()
    assert (tmp_path / "runs/RESULTS.md").exists() and (tmp_path / "runs/results/index.html").exists()


def load(source: str, path: Path):
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_worked_example_adds_a_network(tmp_path, monkeypatch):
    network, config = blocks("docs/extending.md", "python")
    mixer = load(network, tmp_path / "my_mixer.py").Mixer
    monkeypatch.setitem(networks.CLASSIFIERS, "mixer", mixer)
    chosen = load(config, tmp_path / "my_digits_mixer.py").get_config("accelerator=cpu,smoke")
    plan = build.experiment(chosen)
    from genjax.io.workdir import Workdir, read_json

    with Workdir.open_for_training(tmp_path / "run", plan.config) as workdir:
        assert train(plan, workdir, data_mesh(1)).signal is None
        accuracy = read_json(workdir.evaluation)["evaluators"]["eval"]["scalars"]["accuracy"]
    assert 0.0 <= accuracy <= 1.0 and np.isfinite(accuracy)


def test_exit_statuses_are_those_of_the_guide():
    guide = (ROOT / "docs/results-guide.md").read_text()
    assert f"{cli.USAGE} something" in guide and f"{cli.DIVERGED} the training diverged" in guide
