"""What every family promises, as checks that a broken family fails with ``AssertionError``."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from genjax import rng, tree
from genjax.data.augment import augment
from genjax.evaluators.base import Context
from genjax.evaluators.numbers import Mean
from genjax.families import adversarial
from genjax.families.base import Family, TrainState
from genjax.families.gan import gan
from genjax.io.checkpoint import Checkpoints
from genjax.networks import Discriminator
from genjax.train.feed import ResidentFeed, StreamedFeed
from genjax.train.optim import sgd
from genjax.train.sharding import data_mesh
from genjax.train.steps import Trainer, compile_functions
from genjax.types import Array, ImageSpec, Metrics
from tests import fakes

STEPS = 3


class Bench:
    """A family, the data of the tests, and what is compiled of both, once for all checks.

    Args:
      family: what is to be checked.
      sound: the bench of the family that this one was made from, to share what has not changed.
    """

    def __init__(self, family: Family, sound: Bench | None = None):
        self.family = family
        self.source = fakes.source(family.spec)
        self.trainer = Trainer(family, data_mesh(1), len(self.source), augment(("flip",)))
        self.functions = compile_functions(family)
        self.traces = 0
        self.step = jax.jit(self._counted_step)
        self.example = self.source.gather(np.zeros(1, np.int64))
        self.start = self.trainer.init(0, self.example) if sound is None else sound.start
        if sound is not None and family.train_step is sound.family.train_step:
            self.moved = sound.moved
        examples = self.source.gather(np.arange(family.examples_per_step))
        shape = (family.microbatches, family.slice_size)
        self.batch = {name: array.reshape(*shape, *array.shape[1:]) for name, array in examples.items()}
        self.resident = ResidentFeed(self.trainer, self.source)

    def _counted_step(self, *args):
        self.traces += 1
        return self.family.train_step(*args)

    def key(self, step: int = 0, seed: int = 0):
        return rng.step_key(rng.root(seed), step)

    def copy(self, state: TrainState) -> TrainState:
        """A state that may be donated."""
        return jax.tree.map(jnp.copy, state)

    @functools.cached_property
    def moved(self) -> TrainState:
        """The state after a few steps on one batch."""
        state = self.start
        for step in range(STEPS):
            state, _ = self.step(state, self.batch, self.key(step))
        return state

    @functools.cached_property
    def by_calls(self) -> tuple[TrainState, Metrics]:
        """State and metrics after a few calls of one step, as a run makes them."""
        state, metrics = self.copy(self.start), []
        for _ in range(STEPS):
            state, values = self.resident.run(state, 1)
            metrics.append(values)
        return state, {name: np.concatenate([values[name] for values in metrics]) for name in metrics[0]}

    def context(self, batch_size: int, **changes: Any) -> Context:
        functions = dataclasses.replace(self.functions, **changes)
        return Context(functions, self.moved, self.source, self.family.spec, seed=0, batch_size=batch_size)


def check_structure(bench: Bench) -> None:
    """A step keeps names, shapes and dtypes, and gives scalars; ``eval_step`` gives one value per example."""
    after, metrics = jax.eval_shape(bench.family.train_step, bench.start, bench.batch, bench.key())
    assert described(after) == described(bench.start), differences(described(after), described(bench.start))
    assert {value.shape for value in metrics.values()} == {()}, f"not scalars: {metrics}"
    assert set(bench.family.headline) <= metrics.keys(), bench.family.headline
    batch = next(bench.context(5).batches())
    values = jax.eval_shape(bench.family.eval_step, bench.start, batch, bench.key())
    assert values and {value.shape for value in values.values()} == {(5,)}, f"not one value per example: {values}"


def check_moves(bench: Bench, still: tuple[str, ...] = ()) -> None:
    """After a few steps all that is trained has moved, bar ``still``, and everything is finite."""
    before, after = bench.start, bench.moved
    assert int(after.step) == STEPS, f"{STEPS} steps count as {after.step}"
    for part in ("params", "ema", "collections", "opt"):
        old, new = tree.named_leaves(getattr(before, part)), tree.named_leaves(getattr(after, part))
        broken = [name for name, leaf in new.items() if not np.isfinite(leaf).all()]
        assert not broken, f"not finite: {part} {broken}"
        same = {name for name, leaf in new.items() if np.array_equal(leaf, old[name])}
        expected = (
            {name for name in new if name.replace("/params/", "/") in still} if part in ("params", "ema") else set()
        )
        assert part == "opt" or same == expected, f"does not move: {part} {sorted(same ^ expected)}"
    assert_same(before.hparams, after.hparams)


def check_noise(bench: Bench, noisy: bool = True) -> None:
    """The same key gives the same bits and, where there is noise, another key others; another seed starts elsewhere."""
    first, again, other = (bench.step(bench.start, bench.batch, bench.key(seed=seed)) for seed in (0, 0, 1))
    assert_same(first, again)
    assert differ(first[0].opt, other[0].opt) == noisy, "the key has no effect" if noisy else "the key has an effect"
    starts = [bench.trainer.init(seed, bench.example).params for seed in (0, 1)]
    assert differ(*starts), "every seed starts alike"


def check_scan(bench: Bench) -> None:
    """Calls of one step and one scan give the same bits."""
    assert_same(bench.by_calls, bench.resident.run(bench.copy(bench.start), STEPS))


def check_stream(bench: Bench) -> None:
    """Batches streamed from the host give the same bits as a split on the device."""
    feed = StreamedFeed(bench.trainer, bench.source, iter([(0, STEPS)]), seed=0, prefetch=1)
    try:
        assert_same(bench.by_calls, feed.run(bench.copy(bench.start), STEPS))
    finally:
        feed.close()


def check_restore(bench: Bench, folder: Path) -> None:
    """A run that is stopped, stored and restored ends with the bits of one that is not."""
    state, _ = bench.resident.run(bench.copy(bench.start), 1)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, state)
        state, _ = checkpoints.restore(1, bench.trainer.abstract_state(bench.example))
    for _ in range(STEPS - 1):
        state, _ = bench.resident.run(state, 1)
    assert_same(bench.by_calls[0], state)


def check_padding(bench: Bench) -> None:
    """Means over a split depend neither on the batch size nor on what a padded row gives, NaN included."""

    def poisoned(state, batch, key):
        padded = np.arange(len(batch["index"])) + batch["index"][0] != batch["index"]
        values = bench.functions.eval_step(state, batch, key)
        return {name: np.where(padded, np.nan, value) for name, value in values.items()}

    size = len(bench.source)
    whole = Mean()(bench.context(size)).scalars
    for context in (bench.context(size // 2), bench.context(size // 2, eval_step=poisoned)):
        scalars = Mean()(context).scalars
        assert np.isfinite(list(scalars.values())).all(), scalars
        assert_close(scalars, whole)


def check_samples(bench: Bench) -> None:
    """Images in [0, 1], image i the same in any batch, all of them different, and labels heard where that is meant."""
    count, spec = 7, bench.family.spec
    labels = bench.context(1).default_labels(count)
    images = bench.context(count).samples(0, labels)
    assert images.shape == (count, *spec.shape) and images.dtype == np.float32, (images.shape, images.dtype)
    assert images.min() >= 0 and images.max() <= 1, f"samples in [{images.min()}, {images.max()}]"
    small = bench.context(4)
    assert_close(small.samples(0, labels), images)
    assert len(np.unique(images.reshape(count, -1), axis=0)) == count, "two samples are the same"
    assert differ(small.samples(1, labels), images), "every seed gives the same samples"
    relabelled = small.samples(0, (labels + 1) % spec.classes)
    apart = np.abs(relabelled - images).max(axis=(1, 2, 3)) > 1e-4
    assert (apart == bench.family.conditional).all(), f"label heard by {apart}"


def check_population(bench: Bench) -> None:
    """``vmap`` of the step over stacked states with numbers of their own gives what each of them gives alone."""
    members = [bench.trainer.init(seed, bench.example) for seed in range(3)]
    members = [
        state.replace(hparams=scaled(state.hparams, factor))
        for state, factor in zip(members, (1.0, 0.5, 0.0), strict=True)
    ]
    rows = [(state, bench.batch, bench.key(seed=seed)) for seed, state in enumerate(members)]
    together = jax.jit(jax.vmap(bench.family.train_step))(*jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows))
    for number, row in enumerate(rows):
        assert_close(jax.tree.map(lambda leaf, i=number: leaf[i], together), bench.step(*row))


def check_hparams(bench: Bench) -> None:
    """Each number of the state has its effect, without another trace of the step.

    After a few steps: layers that begin at zero hide what comes before them in the first.
    """
    step = lambda state: bench.step(state, bench.batch, bench.key())[0].params  # noqa: E731
    before = step(bench.moved)
    traces = bench.traces
    for name, value in bench.start.hparams.items():
        if name != "seed":
            state = bench.moved.replace(hparams={**bench.moved.hparams, name: 0.5 * value})
            assert differ(before, step(state)), f"{name} has no effect"
    assert bench.traces == traces, "another value compiled another program"


def check_players(bench: Bench) -> None:
    """An update of one player leaves parameters, collections and optimizer of the other as they are.

    The discriminator makes one update a step: one inside of a loop can't be looked at.
    """
    turns = []

    def recorded(update):
        def wrapped(state, *args):
            after, metrics = update(state, *args)
            turns.append((state, after))
            return after, metrics

        return wrapped

    def step(*args):
        names = ("discriminator_update", "generator_update")
        with mock.patch.multiple(adversarial, **{name: recorded(getattr(adversarial, name)) for name in names}):
            bench.family.train_step(*args)
        return list(turns)

    networks = (adversarial.DISCRIMINATOR, adversarial.GENERATOR)
    for own, other, (before, after) in zip(
        networks, networks[::-1], jax.jit(step)(bench.start, bench.batch, bench.key()), strict=True
    ):
        for part in ("params", "collections", "opt"):
            old, new = getattr(before, part), getattr(after, part)
            assert_same(old[other], new[other])
            assert not jax.tree.leaves(new[own]) or differ(old[own], new[own]), f"{own} stands still: {part}"


def check_update_counts(bench: Bench, discriminator_updates: int = 1) -> None:
    """One update of every network in a step, whatever the slices, but as many of the discriminator as are asked for."""
    for name, opt in bench.moved.opt.items():
        counts = [int(leaf) for path, leaf in tree.named_leaves(opt).items() if path.split("/")[-1] == "count"]
        updates = discriminator_updates if name == adversarial.DISCRIMINATOR else 1
        assert counts == [STEPS * updates], f"{name}: {counts} updates in {STEPS} steps"


def check_accumulation(whole: Bench, sliced: Bench) -> None:
    """Batches in slices make the step of whole batches."""
    assert whole.family.examples_per_step == sliced.family.examples_per_step
    shape = (whole.family.microbatches, whole.family.slice_size)
    batch = {name: array.reshape(*shape, *array.shape[2:]) for name, array in sliced.batch.items()}
    assert_close(sliced.step(whole.start, sliced.batch, whole.key()), whole.step(whole.start, batch, whole.key()))


@functools.cache
def bench_of(name: str) -> Bench:
    """The bench of a fake."""
    return Bench(fakes.FAKES[name].family())


@functools.cache
def quiet_classifier(accumulation: int) -> Bench:
    """A classifier without dropout, for which every slice draws noise of its own."""
    fake = dataclasses.replace(fakes.FAKES["classifier-cnn"], accumulation=accumulation)
    return Bench(fake.family(optim=fake.optim(fakes.SGD), network={**fake.model["network"], "dropout": 0.0}))


class Painter(nn.Module):
    """A generator with one picture for each label: no noise, and no batch normalisation, which sees its slice only."""

    spec: ImageSpec

    @nn.compact
    def __call__(self, z: Array, label: Array, train: bool) -> Array:
        return jnp.tanh(nn.Embed(self.spec.classes, self.spec.pixels)(label)).reshape(-1, *self.spec.shape)


@functools.cache
def quiet_gan(accumulation: int) -> Bench:
    """Two updates of a discriminator without dropout, and one of a generator whose images depend on labels alone."""
    spec = fakes.SPEC
    return Bench(
        gan(
            spec,
            Painter(spec),
            Discriminator(spec.shape, spec.classes, width=4, dropout=0.0),
            # The discriminator starts with small weights, through which the generator gets small gradients.
            generator_optimizer=sgd(100.0, 100, momentum=0.0),
            discriminator_optimizer=sgd(0.1, 100, momentum=0.0),
            slice_size=fakes.BATCH // accumulation,
            accumulation=accumulation,
            conditional=True,
            discriminator_updates=2,
        )
    )


def described(state: Any) -> dict[str, tuple]:
    return {name: (leaf.shape, leaf.dtype) for name, leaf in tree.named_leaves(state).items()}


def differences(a: dict, b: dict) -> str:
    return "the step changes " + str(
        {name: (a.get(name), b.get(name)) for name in a.keys() | b.keys() if a.get(name) != b.get(name)}
    )


def scaled(hparams: Any, factor: float) -> dict[str, Any]:
    return {name: value if name == "seed" else value * factor for name, value in hparams.items()}


def differ(a: Any, b: Any) -> bool:
    return any(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def assert_same(a: Any, b: Any) -> None:
    """Bit for bit."""
    a, b = tree.named_leaves(a), tree.named_leaves(b)
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    apart = {
        name: float(np.abs(np.asarray(a[name], np.float64) - b[name]).max()) for name in a if differ(a[name], b[name])
    }
    assert not apart, f"not the same, by at most: {apart}"


def assert_close(a: Any, b: Any, tolerance: float = 1e-5) -> None:
    """To a tolerance relative to the larger of 1 and each leaf's largest value."""
    a, b = tree.named_leaves(a), tree.named_leaves(b)
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    for name in a:
        x, y = np.asarray(a[name], np.float64), np.asarray(b[name], np.float64)
        apart = np.abs(x - y).max() / max(1.0, np.abs(y).max())
        assert apart <= tolerance, f"{name} differs by {apart:.2g}"
