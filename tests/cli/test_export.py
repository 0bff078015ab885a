"""An exported model draws what ``experiments.sample`` draws, in a process that can't import this code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from experiments.restore import restore
from genjax.train.export import export_program
from tests.cli.commands import one_line, read, run_many, snapshot
from tests.cli.storage import storage, why_not

CHECK = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("genjax", "experiments", "configs", "flax", "orbax"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import runpy
runpy.run_path(sys.argv[1])
"""


@pytest.fixture(scope="module")
def exported(vae_run, other_runs, tmp_path_factory):
    """A VAE, a classifier and a GAN, each with the folder it was written to."""
    folder = tmp_path_factory.mktemp("exported")
    found = {"vae": vae_run[0], "classifier": other_runs[0], "gan": other_runs[1]}
    commands = [("export", [f"--workdir={path}", f"--out={folder / name}"]) for name, path in found.items()]
    for answer in run_many(commands):
        assert answer.status == 0 and answer.err == "", answer
    return {name: (path, folder / name) for name, path in found.items()}


def call(folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(folder / "run.py")],
        cwd=folder, env={**environment, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["vae", "gan"])
def test_samples_are_those_of_the_run(exported, name):
    workdir, folder = exported[name]
    assert "(16, 8, 8, 1) float32" in call(folder)
    (answer,) = run_many([("sample", [f"--workdir={workdir}", f"--out={folder / 'same'}", "--num=16"])])
    assert answer.status == 0, answer
    (path,) = (folder / "same").glob("*.npz")
    with np.load(path, allow_pickle=False) as expected, np.load(folder / "samples.npz", allow_pickle=False) as found:
        images = np.round(found["images"] * 255).astype(int)
        assert images.std() > 1 and not np.array_equal(images[0], images[1])
        # Compiled differently, a value may lie on the other side of a half.
        assert np.abs(images - expected["images"].astype(int)).max() <= 1


def test_a_classifier_gives_logits_for_any_number_of_images(exported):
    import jax

    workdir, folder = exported["classifier"]
    run = restore(str(workdir), "latest", "cpu")
    program = jax.export.deserialize(bytearray((folder / "predict.stablehlo").read_bytes()))
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    with safe_open(folder / "weights.safetensors", "numpy") as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    for count in (1, 5):
        images = run.plan.test.gather(np.arange(count))["image"]
        expected = run.functions.extras["logits"](run.state, {"image": images})
        np.testing.assert_allclose(program.call(weights, images), expected, atol=1e-4)
    assert "[[" in call(folder)
    broken = {key: leaf * 1.1 for key, leaf in weights.items()}
    assert not np.allclose(program.call(broken, images), expected, atol=1e-4)  # the weights are read, not baked in


def test_weights_and_manifest_are_those_that_evaluation_uses(exported):
    workdir, folder = exported["vae"]
    run = restore(str(workdir), "latest", "cpu")
    manifest = read(folder / "manifest.json")
    with safe_open(folder / "weights.safetensors", "numpy") as file:
        assert json.loads(file.metadata()["manifest"]) == manifest
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    program = export_program(run.plan.family, run.state)
    assert weights.keys() == program.weights.keys() == manifest["arrays"].keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(array, program.weights[name])
        assert manifest["arrays"][name] == f"{array.dtype}[{','.join(map(str, array.shape))}]"
    kernel = next(name for name in weights if name.endswith("kernel"))
    network, *path = kernel.split("/")
    ema, last = run.state.ema[network], {"params": run.state.params[network]}
    for part in path:
        ema, last = ema[part], last[part]
    np.testing.assert_array_equal(weights[kernel], ema)
    assert not np.array_equal(weights[kernel], last)
    assert (manifest["format"], manifest["family"], manifest["step"], manifest["weights"]) == (1, "vae", 12, "averaged")
    assert manifest["config"] == read(workdir / "config.json") and {"jax", "python"} <= manifest["versions"].keys()


def test_what_is_refused(exported, tmp_path):
    workdir, folder = exported["vae"]
    before = snapshot(folder)
    cases = {
        (): "--workdir and --out are required",
        (f"--workdir={workdir}", f"--out={folder}"): "is not an empty folder",
        (f"--workdir={tmp_path}/no", f"--out={tmp_path}/out"): "no such folder",
        (f"--workdir={workdir}", f"--out={tmp_path}/out", "--checkpoint=7"): "no checkpoint 7",
        (f"--workdir={tmp_path}/no", f"--out={folder}/run.py/out"): "/run.py/out: Not a directory",
    }
    for answer, message in zip(run_many([("export", list(flags)) for flags in cases]), cases.values(), strict=True):
        assert message in one_line(answer)
    assert snapshot(folder) == before and not (tmp_path / "out").exists()


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_a_full_disk_leaves_nothing_and_the_same_command_works_once_there_is_room(exported, tmp_path):
    workdir, whole = exported["vae"]
    with storage(tmp_path / "drive") as drive:
        command = ("export", [f"--workdir={workdir}", f"--out={drive.path}/out"])
        drive.faults["full disk"]()
        (answer,) = run_many([command])
        assert "No space left on device" in one_line(answer)
        assert os.listdir(drive.path) == ["filler"]
        drive.remedies["full disk"]()
        (answer,) = run_many([command])
        assert answer.status == 0, answer
        assert {"manifest.json", "weights.safetensors"} < set(os.listdir(drive.path / "out")) <= set(os.listdir(whole))
