"""A sampler of many steps as a program: the same images for any number of them, and weights that are read."""

from __future__ import annotations

import jax
import numpy as np

from genjax import rng
from genjax.train.export import PLATFORMS, export_program
from genjax.train.sharding import device_mesh
from genjax.train.steps import Trainer
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
