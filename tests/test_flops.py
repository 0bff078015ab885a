"""The operations of a step: XLA's count where that is whole, and the rest from the traced program."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from genjax.data.augment import augment
from genjax.families import adversarial, update
from genjax.families.classifier import classifier
from genjax.networks.cnn import CNN
from genjax.train.feed import ResidentFeed
from genjax.train.flops import operations, step_flops
from genjax.train.optim import adam
from genjax.train.sharding import data_mesh
from genjax.train.steps import Trainer
from genjax.types import ImageSpec
from tests import fakes

SPEC = ImageSpec(12, 12, 1, classes=3)


def trained(family, steps: int = 1, members: int = 0) -> Trainer:
    """A trainer that has compiled a call."""
    source = fakes.source(family.spec, 60)
    trainer = Trainer(family, data_mesh(1), len(source), augment(()), members=bool(members))
    assert trainer.flops == 0
    state = trainer.init(0, source.gather(np.zeros(1, np.int64)))
    if members:
        state = jax.tree.map(lambda leaf: jnp.stack([leaf] * members), state)
    ResidentFeed(trainer, source).run(state, steps)
    return trainer


def cnn(slice_size: int, accumulation: int = 1):
    return classifier(SPEC, CNN(3, (8, 16), (1, 2)), adam(1e-3, 10), slice_size, accumulation)


def multiplications(batch, side, taps, widths, strides, classes):
    """Multiplications of the CNN's forward pass by the definition of a convolution, border taps left out."""
    total, channels = 0, 1
    for features, stride in zip(widths, strides, strict=True):
        out = -(-side // stride)
        pad = max((out - 1) * stride + taps - side, 0) // 2
        inside = sum(0 <= i * stride + t - pad < side for i in range(out) for t in range(taps))
        total += inside**2 * channels * features
        side, channels = out, features
    return batch * (total + side * side * channels * classes)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_step_is_counted_by_the_definition_of_its_layers(steps, accumulation):
    forward = multiplications(32, 12, 3, (8, 16), (1, 2), 3)
    first = multiplications(32, 12, 3, (8,), (1,), 0)
    # Two operations a multiplication; a gradient in the kernels and one in the images, but not in the data.
    expected = 2 * (3 * forward - first)
    flops = trained(cnn(32 // accumulation, accumulation), steps).flops
    assert 0.97 * expected < flops < 1.25 * expected, flops / expected


def test_slices_are_counted_as_often_as_there_are():
    one = trained(cnn(8)).flops
    for accumulation in (2, 5):
        assert trained(cnn(8, accumulation)).flops == pytest.approx(accumulation * one, rel=0.05)


def test_without_a_loop_over_slices_the_count_is_that_of_xla():
    trainer = trained(cnn(8))
    (program,) = trainer._programs.values()
    assert trainer.flops == program.cost_analysis()["flops"]


def test_members_in_one_program_are_all_counted():
    assert trained(cnn(8, 2), members=3).flops == pytest.approx(3 * trained(cnn(8, 2)).flops, rel=0.1)


def unrolled(body, carry, slices, count):
    """``scan_slices`` without a loop."""
    outs = []
    for i in range(count):
        carry, out = body(carry, jax.tree.map(lambda leaf, i=i: leaf[i], slices))
        outs.append(out)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outs)


@pytest.mark.parametrize("accumulation, discriminator_updates", [(1, 3), (2, 2)])
def test_loops_of_two_players_are_counted_as_if_there_were_none(accumulation, discriminator_updates, monkeypatch):
    fake = fakes.Fake(fakes.FAKES["gan"].model, accumulation)
    family = fake.family(discriminator_updates=discriminator_updates)
    found = trained(family).flops
    for module in (adversarial, update):
        monkeypatch.setattr(module, "scan_slices", unrolled)
    assert found == pytest.approx(trained(fake.family(discriminator_updates=discriminator_updates)).flops, rel=0.05)


# The closed form.

IMAGES, KERNEL = np.ones((5, 12, 9, 4), np.float32), np.ones((3, 4, 4, 6), np.float32)


def conv(x, kernel=KERNEL, strides=(1, 1), padding="SAME", **options):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)


EXACT = {
    "matrix product": lambda x: x[0, 0] @ KERNEL[0, 0],
    "batched product": lambda x: jnp.einsum("bijc,bkjc->bik", x, x),
    "convolution": conv,
    "strided": lambda x: conv(x, strides=(2, 3)),
    "padded": lambda x: conv(x, padding=((3, 0), (2, 5))),
    "without padding": lambda x: conv(x, padding="VALID"),
    "spread images": lambda x: conv(x, lhs_dilation=(2, 3), padding=((2, 1), (4, 4))),
    "spread taps": lambda x: conv(x, rhs_dilation=(2, 3)),
    "groups": lambda x: conv(x, KERNEL[:, :, :2], feature_group_count=2),
    "groups of images": lambda x: conv(x[:4], batch_group_count=2),
    "element-wise": lambda x: x * 2.0 + x / x,
    "moved": lambda x: x[1:].reshape(-1),
}


@pytest.mark.parametrize("name", EXACT)
def test_the_closed_form_is_that_of_xla(name):
    traced = jax.jit(EXACT[name]).trace(IMAGES)
    assert operations(traced.jaxpr, "cpu") == (traced.lower().cost_analysis().get("flops", 0.0),) * 2


def product(x):
    return x @ np.ones((4, 4), np.float32)  # 2 * 4 * 4 * 4 = 128 operations


def loop(length, body=product):
    return lambda x: lax.scan(lambda x, _: (body(x), None), x, length=length)[0]


CONTROL = {
    "loop": (loop(5), (128, 640)),
    "loop in a loop": (loop(3, lambda x: product(loop(5)(x))), (256, 3 * (128 + 640))),
    "loop of unknown length": (lambda x: lax.while_loop(lambda x: x[0, 0] < 9, product, x), (128, 128)),
    "function": (jax.jit(lambda x: jax.checkpoint(loop(2))(x)), (128, 256)),
    "branches": (lambda x: lax.cond(x[0, 0] > 0, product, loop(2), x), (128, 256)),
    "platform": (lambda x: lax.platform_dependent(x, cpu=loop(3), default=loop(7)), (128, 384)),
    "another platform": (lambda x: lax.platform_dependent(x, tpu=loop(3), default=loop(7)), (128, 896)),
}


@pytest.mark.parametrize("name", CONTROL)
def test_loops_count_as_often_as_they_run(name):
    function, expected = CONTROL[name]
    assert operations(jax.make_jaxpr(function)(jnp.ones((4, 4))), "cpu") == expected


def test_xlas_count_is_kept_scaled_or_replaced():
    traced = jax.make_jaxpr(loop(10, loop(3)))(jnp.ones((4, 4)))  # ten steps of three slices each
    assert step_flops(150.0, traced, 10, "cpu") == pytest.approx(3 * 150.0)
    assert step_flops(96.0, traced, 10, "cpu") == pytest.approx(3 * 96.0)  # without what was to be computed again
    assert step_flops(0.0, traced, 10, "cpu") == pytest.approx(3 * 128.0)  # XLA doesn't count
    assert step_flops(-1.0, traced, 10, "cpu") == pytest.approx(3 * 128.0)  # the product is a call of a library
    assert step_flops(7.0, jax.make_jaxpr(lambda: jnp.arange(3))(), 1, "cpu") == 7.0
