"""What varies in a sweep: counts, order, names, and what is refused."""

from __future__ import annotations

import math

import pytest

from genjax.sweep import Choice, Range, chain, product, quasi_random, random, run_names, seeds, unique, values, zipped
from genjax.types import UserError

RATES = values("optim.learning_rate", 1e-4, 3e-4)


def test_lists_of_overrides_combine():
    assert RATES == [{"optim.learning_rate": 1e-4}, {"optim.learning_rate": 3e-4}]
    assert [run["seed"] for run in seeds(3)] == [0, 1, 2]
    grid = product(RATES, seeds(3))
    assert len(grid) == 6 and grid[0] == {"optim.learning_rate": 1e-4, "seed": 0}
    assert zipped(RATES, values("batch_size", 32, 64))[1] == {"optim.learning_rate": 3e-4, "batch_size": 64}
    assert len(chain(RATES, seeds(3))) == 5


def test_a_run_is_the_same_however_its_numbers_are_written():
    betas = chain(values("model.beta", 1), values("model.beta", 0.5, 1.0))
    assert betas == [{"model.beta": 1}, {"model.beta": 0.5}]  # also where it was asked for before:
    assert run_names([{"model.beta": 1.0}], {"beta=1": {"model.beta": 1}}) == ["beta=1"]
    assert len(chain([{"a": (1, 2), "b": 3}], [{"b": 3.0, "a": [1.0, 2.0]}])) == 1
    apart = chain(values("x", True, 1, "1", None, 2**53 + 1, 2**53))  # which all are something else
    assert len(apart) == 6 and len(set(run_names(apart))) == 6


def test_draws_keep_to_their_ranges_and_are_the_same_again():
    space = {"rate": Range(1e-5, 1e-1, scale="log"), "depth": Range(2, 6, integer=True), "act": Choice("a", "b")}
    for draw in (random, quasi_random):
        runs = draw(space, 64, seed=1)
        assert runs == draw(space, 64, seed=1) != draw(space, 64, seed=2)
        assert all(1e-5 <= run["rate"] <= 1e-1 for run in runs) and {run["depth"] for run in runs} == {2, 3, 4, 5, 6}
        assert {run["act"] for run in runs} == {"a", "b"}
        below = sum(run["rate"] < 1e-3 for run in runs)  # half of them, on a logarithmic scale
        assert 20 <= below <= 44
    quasi = quasi_random(space, 64, seed=1)
    per_decade = [sum(10**-k <= run["rate"] < 10 ** (1 - k) for run in quasi) for k in (5, 4, 3, 2)]
    assert max(per_decade) - min(per_decade) <= 4
    linear = random({"rate": Range(1e-5, 1e-1)}, 64, seed=1)
    assert sum(run["rate"] < 1e-3 for run in linear) <= 5


def test_names_come_from_what_was_overridden():
    assert run_names(product(RATES, seeds(2)))[:2] == ["learning_rate=0.0001,seed=0", "learning_rate=0.0001,seed=1"]
    both = run_names(
        zipped(values("optim.generator.learning_rate", 1e-4), values("optim.discriminator.learning_rate", 2e-4))
    )
    assert len(both) == 1 and "generator" in both[0] and "discriminator" in both[0]
    odd = run_names(values("model.network.name", "a/b c"))
    assert "/" not in odd[0] and " " not in odd[0]


def test_what_is_no_range_is_refused():
    for wrong in ((2.0, 1.0, "linear"), (0.0, 1.0, "log"), (1.0, 2.0, "lag"), (math.nan, 1.0, "linear")):
        with pytest.raises(UserError):
            Range(*wrong[:2], scale=wrong[2])
    with pytest.raises(UserError):
        zipped(RATES, seeds(3))
    with pytest.raises(UserError, match=r"^\{1: 2\}: 1 is no setting; accepted: such as 'optim.learning_rate'$"):
        unique([{"seed": 1}, {1: 2}])  # pyright: ignore[reportArgumentType]
