"""A sampler of many steps as a program: the same images for any number of them, and weights that are read."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.staging import STAGING, is_free, whole
from genjax import rng
from genjax.train.export import PLATFORMS, export_program
from genjax.train.sharding import device_mesh
from genjax.train.steps import Trainer
from genjax.types import UserError
from tests import fakes


def test_a_diffusion_transformer_draws_the_same_images():
    family = fakes.FAKES["diffusion-dit"].family()
    source = fakes.source(family.spec)
    trainer = Trainer(family, device_mesh(1), len(source), lambda key, images: images)
    state = trainer.init(0, source.gather(np.zeros(1, np.int64)))
    noisy = jax.tree.map(lambda x: x + 0.03 * jax.random.normal(jax.random.key(1), x.shape, x.dtype), state.ema)
    state = state.replace(ema=noisy)  # a transformer starts as the identity, which would hide its weights
    program = export_program(family, state)
    read = jax.export.deserialize(program.serialized)
    assert program.name == "sampler" and tuple(read.platforms) == PLATFORMS
    for index in (np.arange(5, dtype=np.int32), np.array([3], np.int32)):
        labels = index % 3
        keys = rng.example_keys(rng.stream(rng.root(7), "sample"), index)
        expected = jax.jit(family.sample)(state, keys, labels)
        np.testing.assert_allclose(read.call(program.weights, np.uint32(7), index, labels), expected, atol=1e-4)
    other = {name: leaf + 0.05 for name, leaf in program.weights.items()}
    assert not np.allclose(read.call(other, np.uint32(7), index, labels), expected, atol=1e-3)
    assert not np.allclose(read.call(program.weights, np.uint32(8), index, labels), expected, atol=1e-3)


def test_adaptive_steps_are_exported_with_labels():
    """Each image takes its own steps towards its own label, however many there are."""
    sampler = {"name": "adaptive", "rtol": 1e-4, "atol": 1e-4}  # below the tolerance, rounding chooses other steps
    family = fakes.FAKES["diffusion-jit"].family(sampler=sampler, guidance_scale=1.0)
    state = jax.jit(family.init)(jax.random.key(0), fakes.source(family.spec).gather(np.zeros(1, np.int64)))
    noisy = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape, x.dtype), state.ema)
    state = state.replace(ema=noisy)
    program = export_program(family, state)
    index, labels = np.array([4, 1, 4], np.int32), np.array([0, 1, 2], np.int32)
    read = jax.export.deserialize(program.serialized)
    drawn = np.asarray(read.call(program.weights, np.uint32(7), index, labels))
    keys = rng.example_keys(rng.stream(rng.root(7), "sample"), index[1:])
    np.testing.assert_allclose(drawn[1:], jax.jit(family.sample)(state, keys, labels[1:]), atol=1e-3)
    assert np.abs(drawn[0] - drawn[2]).max() > 1e-2  # one noise, two labels


def write(folder, until=3):
    for name in ("a", "b", "c")[:until]:
        (folder / name).write_text(name)


@pytest.mark.parametrize("there", [False, True])
def test_files_of_an_export_appear_together_or_not_at_all(tmp_path, there):
    out = tmp_path / "deep" / "out"
    if there:
        out.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    for error in (OSError(28, "full"), UserError("full"), KeyboardInterrupt()):
        with pytest.raises(type(error)), whole(out) as folder:
            write(folder, 2)
            assert not (out / "a").exists()
            raise error
        assert sorted(tmp_path.rglob("*")) == before and is_free(out)
    staging = out / STAGING if there else out.with_name(f".out{STAGING}")
    staging.mkdir(parents=True)
    (staging / "left").write_text("by a process that was killed")
    assert is_free(out)
    with whole(out) as folder:
        write(folder)
        with pytest.raises(UserError, match="out is being written by another process"), whole(out):
            pass
    assert sorted(os.listdir(out)) == ["a", "b", "c"] and os.listdir(out.parent) == ["out"]
    assert not is_free(out) and not is_free(out / "a")


@pytest.mark.parametrize("there", [False, True])
def test_an_export_that_cannot_be_moved_leaves_nothing(tmp_path, there, monkeypatch):
    out, moved = tmp_path / "out", []
    if there:
        out.mkdir()

    original = Path.rename

    def rename(path, target):
        moved.append(path.name)
        if not there or len(moved) == 2:
            raise OSError(5, "Input/output error")
        return original(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(UserError, match="cannot write --out=.*out: Input/output error"), whole(out) as folder:
        write(folder)
    assert moved == (["a", "b"] if there else [f".out{STAGING}"])
    assert is_free(out) and list(tmp_path.rglob("*")) == ([out] if there else [])


def test_a_place_that_cannot_be_written_is_said_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write --out=.*file/out: Not a directory"), whole(tmp_path / "file/out"):
        pytest.fail("it went on")
