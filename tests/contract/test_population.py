"""Members of a population against the same runs alone, for every family."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest

from genjax import build, populations
from genjax.data.augment import augment
from genjax.data.base import Source
from genjax.train.feed import make_feeds
from genjax.train.population import InTurns, Together
from genjax.train.sharding import data_mesh
from genjax.train.steps import Trainer
from genjax.types import UserError
from tests import fakes
from tests.contract.checks import Bench, assert_close, assert_same, bench_of, differ, scaled

STEPS, CALLS = 4, (2, 2)  # calls of one length, which is one program to compile
FACTORS = (1.0, 0.5, 0.0)  # of all numbers in the state's hparams, for each member
NAMES = ["classifier-cnn", "classifier-resnet", "gan", "gan-two-discriminator-updates", "vae-bernoulli"]


@dataclasses.dataclass(frozen=True)
class Streamed(Source):
    """A source whose images are not in one array, so that they are streamed."""

    inner: Source

    def __len__(self) -> int:
        return len(self.inner)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return self.inner.gather(indices)


def streamed(source: Source) -> Streamed:
    return Streamed(source.spec, source.name, source.provenance, source)


def calls():
    return iter([(sum(CALLS[:i]), count) for i, count in enumerate(CALLS)])


def starts(bench: Bench) -> list:
    """A state for each member, with a seed and numbers of its own."""
    states = [bench.trainer.init(seed, bench.example) for seed in range(len(FACTORS))]
    return [s.replace(hparams=scaled(s.hparams, factor)) for s, factor in zip(states, FACTORS, strict=True)]


def advance(bench: Bench, kind: type, states: list, source: Source) -> list[tuple]:
    """States and metrics of all members after the calls."""
    trainer = bench.trainer
    if issubclass(kind, Together):
        trainer = Trainer(bench.family, data_mesh(1), len(source), augment(("flip",)), members=True)
    population = kind(functools.partial(make_feeds, trainer, source, calls, 1), states)
    metrics: list[list[dict]] = [[] for _ in states]
    for count in CALLS:
        for i, read in enumerate(population.run(count, [True] * len(states))):
            metrics[i].append(read())
    population.close()
    joined = [{name: np.concatenate([m[name] for m in member]) for name in member[0]} for member in metrics]
    return [(jax.tree.map(np.asarray, population.state(i)), joined[i]) for i in range(len(states))]


def check_members(bench: Bench, kind: type, source: Source, same) -> None:
    alone = [advance(bench, InTurns, [state], bench.source)[0] for state in starts(bench)]
    found = advance(bench, kind, starts(bench), source)
    assert len(found) == len(alone)
    for member, expected in zip(found, alone, strict=True):
        assert int(member[0].step) == STEPS and all(len(values) == STEPS for values in member[1].values())
        same(member, expected)
    assert differ(found[0][0].params, found[1][0].params), "two members are the same"


@pytest.mark.parametrize("name", NAMES)
def test_members_in_turns_are_the_runs_alone_bit_by_bit(name):
    check_members(bench_of(name), InTurns, bench_of(name).source, assert_same)


@pytest.mark.parametrize("name", NAMES)
def test_members_together_are_the_runs_alone(name):
    check_members(bench_of(name), Together, bench_of(name).source, assert_close)


@pytest.mark.parametrize("kind", [InTurns, Together])
def test_streamed_members_read_their_own_order_of_the_data(kind):
    bench = bench_of("vae-bernoulli")
    check_members(bench, kind, streamed(bench.source), assert_close)


class OneOrder(Together):
    """Gives every member the data of the first."""

    def __init__(self, feeds, states):
        super().__init__(lambda seeds: feeds([(seeds[0][0],) * len(states)]), states)


class OneSeed(Together):
    """Gives every member the seed of the first, and so its order and its noise."""

    def __init__(self, feeds, states):
        first = states[0].hparams["seed"]
        super().__init__(feeds, [s.replace(hparams={**s.hparams, "seed": first}) for s in states])


class Shifted(Together):
    def state(self, member):
        return super().state((member + 1) % len(FACTORS))


@pytest.mark.parametrize("broken", [OneOrder, OneSeed, Shifted])
def test_the_member_check_rejects(broken):
    bench = bench_of("vae-bernoulli")
    with pytest.raises(AssertionError, match="differs by"):
        check_members(bench, broken, streamed(bench.source), assert_close)


def test_a_member_that_is_not_finite_leaves_the_others_alone():
    bench = bench_of("vae-bernoulli")
    for kind in (InTurns, Together):
        states = starts(bench)
        states[1] = states[1].replace(hparams={**states[1].hparams, "learning_rate/vae": np.float32(np.inf)})
        found = advance(bench, kind, states, bench.source)
        assert not np.isfinite(found[1][1]["loss"]).all()
        expected = advance(bench, kind, starts(bench), bench.source)
        for i in (0, 2):
            assert_same(found[i], expected[i])


@pytest.mark.parametrize("name", fakes.FAKES)
def test_what_may_vary_is_in_the_state_alone(name):
    """The step of the family with another value is the step of this one on a state with that value."""
    fake, bench = fakes.FAKES[name], bench_of(name)
    optim = fake.optim()
    settings = build.dynamic_settings({"model": fake.model, "optim": optim})
    assert "seed" in settings and len(settings) == len(bench.start.hparams)
    for setting in settings:
        section, _, key = setting.rpartition(".")
        if setting == "seed":
            continue
        network = section.removeprefix("optim").removeprefix(".")
        if section == "model":
            other = fake.family(**{key: 0.3})
        elif network:
            other = fake.family(optim={**optim, network: {**optim[network], key: 3e-3}})
        else:
            other = fake.family(optim={**optim, key: 3e-3})
        changed = {k: v for k, v in other.hparams.items() if v != bench.family.hparams[k]}
        assert len(changed) == 1, f"{setting} changes {changed}"
        given = {**bench.start.hparams, **{k: np.float32(v) for k, v in changed.items()}}
        if name not in ("classifier-cnn", "gan", "vae-bernoulli"):
            continue  # what a family reads is the same with any of its networks
        state = bench.start.replace(hparams=given)
        assert_same(
            jax.jit(other.train_step)(state, bench.batch, bench.key()), bench.step(state, bench.batch, bench.key())
        )


def plain_config() -> dict:
    from configs.vae import digits_conv

    return build.to_plain(digits_conv.get_config("accelerator=cpu,smoke"))


def test_a_population_is_named_by_what_varies():
    plans = populations.varied(plain_config(), {"seed": [3, 4], "optim.learning_rate": [1e-3, 5e-4], "model.beta": [2]})
    assert list(plans) == [
        f"seed={seed},learning_rate={rate},beta=2" for seed in (3, 4) for rate in ("0.001", "0.0005")
    ]
    plan = plans["seed=4,learning_rate=0.0005,beta=2"]
    assert plan.config["seed"] == 4 and plan.config["optim"]["learning_rate"] == 5e-4
    assert plan.family.hparams == {"learning_rate/vae": 5e-4, "beta": 2}
    assert len({id(plan.train) for plan in plans.values()}) == 1  # the data is read once


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"batch_size": [8, 16]},
            "--vary=batch_size: can't vary within a population; accepted: seed, optim.learning_r",
        ),
        ({"optim.b1": [0.5]}, "--vary=optim.b1: can't vary"),
        ({"seed": [1, 1]}, "--vary=seed=1,1: needs values, each of them once"),
        ({"seed": [0.5]}, "seed=0.5 is a float; accepted: int"),
        ({"seed": [-1]}, "seed=-1 is too small"),
        ({"optim.learning_rate": [0.1, -0.1]}, "learning_rate=-0.1 must be positive"),
        ({"optim.learning_rate": [0.1, 0.10000001]}, "two members would be called learning_rate=0.1"),
    ],
)
def test_what_makes_no_population_is_refused_in_one_line(values, message):
    with pytest.raises(UserError) as caught:
        populations.varied(plain_config(), values)
    assert message in str(caught.value) and "\n" not in str(caught.value)
