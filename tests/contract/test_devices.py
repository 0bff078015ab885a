"""A run on eight devices is the run on one; this file is also the program that compares them."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genjax.families import FAMILIES

DEVICES = 8


def compare(name: str, streamed: bool) -> None:
    """A few steps of plain gradient descent of a family, on one device and on all."""
    import jax
    import numpy as np

    from genjax.data.augment import augment
    from genjax.train.feed import ResidentFeed, StreamedFeed
    from genjax.train.sharding import data_mesh, replicated
    from genjax.train.steps import Trainer
    from tests import fakes
    from tests.contract.checks import STEPS, assert_close

    fake = dataclasses.replace(fakes.FAKES[name], accumulation=1)
    family = fake.family(optim=fake.optim(fakes.SGD))
    source = fakes.source()
    one, all_ = (
        Trainer(family, data_mesh(devices), len(source), augment(("flip",))) for devices in (1, jax.device_count())
    )
    start = jax.device_get(one.init(0, source.gather(np.zeros(1, np.int64))))
    expected = ResidentFeed(one, source).run(jax.device_put(start, replicated(one.mesh)), STEPS)

    def on_all_devices(feed):
        end = feed.run(jax.device_put(start, replicated(all_.mesh)), STEPS)
        feed.close()
        assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(end)} == {DEVICES}
        return end

    assert_close(on_all_devices(ResidentFeed(all_, source)), expected)
    if streamed:
        assert_close(on_all_devices(StreamedFeed(all_, source, iter([(0, STEPS)]), seed=0, prefetch=1)), expected)

    source.images[one.indices(0, 0, np)[-1]] ^= 255  # one image of all is enough to be noticed
    with pytest.raises(AssertionError):
        assert_close(on_all_devices(ResidentFeed(all_, source)), expected)
    print("the same:", name, flush=True)


@pytest.mark.slow
def test_eight_devices_make_the_steps_of_one():
    names = ["vae-bernoulli", "classifier-resnet", "gan-two-discriminator-updates", "diffusion-dit"]
    assert {name.partition("-")[0] for name in names} == set(FAMILIES)
    root = Path(__file__).resolve().parents[2]
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={DEVICES}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "tests.contract.test_devices", *names]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"the same: {name}" for name in names]


if __name__ == "__main__":
    for number, given in enumerate(sys.argv[1:]):
        compare(given, streamed=number == 0)
