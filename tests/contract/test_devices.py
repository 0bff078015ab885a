"""A run on eight devices is the run on one, whatever they share; this file is also the program that compares them."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genjax.families import FAMILIES
from genjax.types import UserError

DEVICES = 8
MESHES = {"data": (1, 1), "fsdp": (4, 1), "tensor": (2, 2)}  # fsdp and tensor; the rest of the devices is "data"
COMPARED = {  # each divides batches, the second and third the state too
    "vae-bernoulli": ("data", "fsdp"),
    "classifier-resnet": ("fsdp",),
    "gan-two-discriminator-updates": ("fsdp",),
    "diffusion-dit": ("tensor",),
}


def compare(name: str, streamed: bool) -> None:
    """A few steps of plain gradient descent of a family, on one device and on all, by each of its meshes."""
    import jax
    import numpy as np

    from genjax.data.augment import augment
    from genjax.train import sharding
    from genjax.train.feed import ResidentFeed, StreamedFeed
    from genjax.train.sharding import device_mesh, replicated, state_shardings
    from genjax.train.steps import Trainer
    from tests import fakes
    from tests.contract.checks import STEPS, assert_close

    fake = dataclasses.replace(fakes.FAKES[name], accumulation=1)
    family = fake.family(optim=fake.optim(fakes.SGD))
    source = fakes.source()
    example = source.gather(np.zeros(1, np.int64))

    def trainer(mesh):
        return Trainer(family, mesh, len(source), augment(("flip",)))

    one = trainer(device_mesh(1))
    start = jax.device_get(one.init(0, example))
    expected = ResidentFeed(one, source).run(jax.device_put(start, replicated(one.mesh)), STEPS)

    def on_all_devices(all_, feed):
        places = state_shardings(start, all_.mesh)
        state, metrics = feed.run(jax.device_put(start, places), STEPS)
        feed.close()
        assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves((state, metrics))} == {DEVICES}
        jax.tree.map(lambda leaf, place: check_place(leaf, place), state, places)
        return state, metrics

    sharding.FSDP_SIZE = 16  # the networks are small
    if "tensor" not in COMPARED[name]:
        with pytest.raises(UserError, match=r"accelerator.tensor=2 finds nothing to divide"):
            trainer(device_mesh(-1, *MESHES["tensor"])).init(0, example)
    for axis in COMPARED[name]:
        fsdp, tensor = MESHES[axis]
        all_ = trainer(device_mesh(-1, fsdp, tensor))
        assert dict(all_.mesh.shape) == {"data": DEVICES // (fsdp * tensor), "fsdp": fsdp, "tensor": tensor}
        born = all_.init(0, example)
        jax.tree.map(check_place, born, state_shardings(start, all_.mesh))
        assert_close(born, start)
        divided = [leaf for leaf in jax.tree.leaves(born.params) if not leaf.is_fully_replicated]
        assert bool(divided) == (axis != "data")
        assert_close(on_all_devices(all_, ResidentFeed(all_, source)), expected)
        if streamed and axis == "fsdp":
            feed = StreamedFeed(all_, source, iter([(0, STEPS)]), seed=0, prefetch=1)
            assert_close(on_all_devices(all_, feed), expected)
        print("the same:", name, axis, flush=True)

    source.images[one.indices(0, 0, np)[-1]] ^= 255  # one image of all is enough to be noticed
    with pytest.raises(AssertionError):
        assert_close(on_all_devices(all_, ResidentFeed(all_, source)), expected)


def check_place(leaf, place) -> None:
    assert leaf.sharding.is_equivalent_to(place, leaf.ndim), (leaf.sharding, place)


@pytest.mark.slow
def test_eight_devices_make_the_steps_of_one():
    assert {name.partition("-")[0] for name in COMPARED} == set(FAMILIES)
    root = Path(__file__).resolve().parents[2]
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={DEVICES}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "tests.contract.test_devices", *COMPARED]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"the same: {name} {axis}" for name, axes in COMPARED.items() for axis in axes]


if __name__ == "__main__":
    for number, given in enumerate(sys.argv[1:]):
        compare(given, streamed=number == 0)
