"""Families that break the contract in one way each, and the check that must notice."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from genjax import rng
from genjax.families import adversarial
from genjax.families.base import Family
from genjax.io.checkpoint import Checkpoints
from tests import fakes
from tests.contract import checks


def stepping(change: Callable) -> Callable[[Family], Family]:
    """A family whose step is followed by ``change(before, after) -> after``."""

    def breaks(family: Family) -> Family:
        def train_step(state, batch, key):
            after, metrics = family.train_step(state, batch, key)
            return change(state, after), metrics

        return dataclasses.replace(family, train_step=train_step)

    return breaks


def first_kernel(function: Callable) -> Callable:
    """Applies ``function(before, after)`` to the parameter "Conv_0/kernel" of the classifier."""

    def change(before, after):
        old, new = before.params["classifier"]["Conv_0"], after.params["classifier"]["Conv_0"]
        layer = {**new, "kernel": function(old["kernel"], new["kernel"])}
        return after.replace(params={"classifier": {**after.params["classifier"], "Conv_0": layer}})

    return change


def ignores_the_key(family: Family) -> Family:
    return dataclasses.replace(
        family, train_step=lambda state, batch, key: family.train_step(state, batch, rng.root(0))
    )


def initialises_without_the_key(family: Family) -> Family:
    return dataclasses.replace(family, init=lambda key, batch: family.init(rng.root(0), batch))


def ignores_its_hparams(family: Family) -> Family:
    def train_step(state, batch, key):
        fixed = {name: jnp.full_like(value, 0.01) for name, value in state.hparams.items()}
        after, metrics = family.train_step(state.replace(hparams=fixed), batch, key)
        return after.replace(hparams=state.hparams), metrics

    return dataclasses.replace(family, train_step=train_step)


def counts_outside_the_state(family: Family) -> Family:
    """Each compiled program gets a number of its own."""
    programs = itertools.count()
    return stepping(first_kernel(lambda old, new: new + 0.1 * next(programs)))(family)


def evaluates_by_position(family: Family) -> Family:
    def eval_step(state, batch, key):
        noise = jax.random.normal(key, (len(batch["image"]),))
        return {name: value + noise for name, value in family.eval_step(state, batch, key).items()}

    return dataclasses.replace(family, eval_step=eval_step)


def evaluates_across_the_batch(family: Family) -> Family:
    def eval_step(state, batch, key):
        return {name: value - jnp.mean(value**2) for name, value in family.eval_step(state, batch, key).items()}

    return dataclasses.replace(family, eval_step=eval_step)


def evaluates_to_one_number(family: Family) -> Family:
    def eval_step(state, batch, key):
        return {name: jnp.mean(value) for name, value in family.eval_step(state, batch, key).items()}

    return dataclasses.replace(family, eval_step=eval_step)


def sampling(change: Callable) -> Callable[[Family], Family]:
    """A family whose ``sample`` is ``change(sample)``."""
    return lambda family: dataclasses.replace(family, sample=change(family.sample))


def one_key(sample: Callable) -> Callable:
    return lambda state, keys, labels: sample(state, jnp.broadcast_to(keys[0], keys.shape), labels)


def split_first_key(sample: Callable) -> Callable:
    return lambda state, keys, labels: sample(state, jax.random.split(keys[0], len(keys)), labels)


def no_label(sample: Callable) -> Callable:
    return lambda state, keys, labels: sample(state, keys, jnp.zeros_like(labels))


def signed(sample: Callable) -> Callable:
    return lambda state, keys, labels: 2.0 * sample(state, keys, labels) - 1.0


def updates_for_each_slice(family: Family) -> Family:
    return fakes.FAKES["gan-two-discriminator-updates"].family()


def updates_twice(family: Family) -> Family:
    def train_step(state, batch, key):
        once, _ = family.train_step(state, batch, key)
        return family.train_step(once.replace(step=state.step), batch, key)

    return dataclasses.replace(family, train_step=train_step)


# The fake, what is done to it, the check, and what that says.
BROKEN = {
    "another dtype": (
        "classifier-cnn",
        stepping(first_kernel(lambda old, new: new.astype(jnp.bfloat16))),
        checks.check_structure,
        "changes .*Conv_0/kernel",
    ),
    "a leaf too many": (
        "classifier-cnn",
        stepping(lambda old, new: new.replace(extra={"more": new.step})),
        checks.check_structure,
        "changes .*extra/more",
    ),
    "one number for a batch": (
        "classifier-cnn",
        evaluates_to_one_number,
        checks.check_structure,
        "not one value per example",
    ),
    "a parameter stands still": (
        "classifier-cnn",
        stepping(first_kernel(lambda old, new: old)),
        checks.check_moves,
        r"does not move: params \['classifier/Conv_0/kernel'\]",
    ),
    "a parameter is lost": (
        "classifier-cnn",
        stepping(first_kernel(lambda old, new: new * jnp.nan)),
        checks.check_moves,
        "not finite: params",
    ),
    "the average is stuck": (
        "classifier-cnn",
        stepping(lambda old, new: new.replace(ema=old.ema)),
        checks.check_moves,
        "does not move: ema",
    ),
    "batch statistics are stuck": (
        "classifier-resnet",
        stepping(lambda old, new: new.replace(collections=old.collections)),
        checks.check_moves,
        "does not move: collections",
    ),
    "the step is not counted": (
        "classifier-cnn",
        stepping(lambda old, new: new.replace(step=old.step)),
        checks.check_moves,
        "3 steps count as 0",
    ),
    "no noise": ("classifier-cnn", ignores_the_key, checks.check_noise, "the key has no effect"),
    "one start for every seed": (
        "classifier-cnn",
        initialises_without_the_key,
        checks.check_noise,
        "every seed starts alike",
    ),
    "a number outside of the state": (
        "classifier-cnn",
        counts_outside_the_state,
        checks.check_scan,
        "not the same.*Conv_0/kernel",
    ),
    "a number outside of the population": (
        "classifier-cnn",
        counts_outside_the_state,
        checks.check_population,
        "Conv_0/kernel differs",
    ),
    "hparams without effect": (
        "classifier-cnn",
        ignores_its_hparams,
        checks.check_hparams,
        "learning_rate/classifier has no effect",
    ),
    "noise by position": ("classifier-cnn", evaluates_by_position, checks.check_padding, "differs by"),
    "examples that see each other": ("classifier-cnn", evaluates_across_the_batch, checks.check_padding, "differs by"),
    "one key for all samples": (
        "vae-bernoulli",
        sampling(one_key),
        checks.check_samples,
        "differs by|two samples are the same",
    ),
    "keys by position": ("vae-bernoulli", sampling(split_first_key), checks.check_samples, "differs by"),
    "labels without effect": (
        "vae-conditional-gaussian",
        sampling(no_label),
        checks.check_samples,
        "label heard by .*False",
    ),
    "samples in [-1, 1]": ("vae-bernoulli", sampling(signed), checks.check_samples, r"samples in \[-"),
    "one update too many": ("classifier-cnn", updates_twice, checks.check_update_counts, r"\[6\] updates in 3 steps"),
    "an update for each slice": (
        "gan-accumulated",
        updates_for_each_slice,
        checks.check_update_counts,
        r"discriminator: \[6\] updates in 3 steps",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_family_is_rejected(name):
    fake, breaks, check, message = BROKEN[name]
    sound = checks.bench_of(fake)
    with pytest.raises(AssertionError, match=message):
        check(checks.Bench(breaks(sound.family), sound))


@pytest.mark.parametrize("part", ["params", "collections", "opt"])
def test_a_discriminator_update_that_touches_the_generator_is_rejected(part, monkeypatch):
    update = adversarial.discriminator_update

    def touches(state, *args):
        after, metrics = update(state, *args)
        own = getattr(after, part)
        moved = jax.tree.map(lambda leaf: leaf + 1, own[adversarial.GENERATOR])
        return after.replace(**{part: {**own, adversarial.GENERATOR: moved}}), metrics

    monkeypatch.setattr(adversarial, "discriminator_update", touches)
    with pytest.raises(AssertionError, match="not the same"):
        checks.check_players(checks.bench_of("gan"))


@pytest.mark.parametrize(
    ("quiet", "network"),
    [
        (checks.quiet_classifier, "classifier"),
        (checks.quiet_gan, adversarial.DISCRIMINATOR),
        (checks.quiet_gan, adversarial.GENERATOR),
    ],
)
def test_gradients_that_are_summed_over_slices_are_rejected(quiet, network, monkeypatch):
    whole, sliced = quiet(1), quiet(2)
    step, rate = sliced.step, f"learning_rate/{network}"
    doubled = {**sliced.start.hparams, rate: 2 * sliced.start.hparams[rate]}

    def summed(state, *args):
        after, metrics = step(state.replace(hparams=doubled), *args)
        return after.replace(hparams=state.hparams), metrics

    monkeypatch.setattr(sliced, "step", summed)
    with pytest.raises(AssertionError, match=f"params/{network}/.* differs by"):
        checks.check_accumulation(whole, sliced)


def test_a_generator_that_sees_one_slice_of_several_is_rejected(monkeypatch):
    update = adversarial.generator_update

    def sees_the_last(state, batch, *args):
        return update(state, jax.tree.map(lambda x: jnp.broadcast_to(x[-1:], x.shape), batch), *args)

    monkeypatch.setattr(adversarial, "generator_update", sees_the_last)
    sound = checks.quiet_gan(2)
    with pytest.raises(AssertionError, match="params/generator/.* differs by"):
        checks.check_accumulation(checks.quiet_gan(1), checks.Bench(sound.family, sound))


def test_a_checkpoint_of_another_step_is_rejected(monkeypatch, tmp_path):
    bench = checks.bench_of("classifier-cnn")
    monkeypatch.setattr(Checkpoints, "restore", lambda self, step, abstract: (bench.copy(bench.start), {}))
    with pytest.raises(AssertionError, match="not the same"):
        checks.check_restore(bench, tmp_path)
