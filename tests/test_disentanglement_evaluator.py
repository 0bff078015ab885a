"""The disentanglement evaluator and traversals, on codes that are known."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genjax import rng
from genjax.data import sources
from genjax.data.procedural import shapes
from genjax.evaluators import Disentanglement, Traversals
from genjax.evaluators.base import Context, Stopped
from genjax.evaluators.disentanglement import encoded, sharing
from genjax.types import UserError
from tests.cli.commands import ROOT, one_line, run_many, train_arguments

SOURCE = shapes("all", size=16, scales=4, orientations=4, positions=6)
VALUES = SOURCE.factors.values
STANDARD = (VALUES - VALUES.mean(0)) / VALUES.std(0)
FEW = {"examples": 1500, "draws": 3, "train_votes": 300, "test_votes": 150}
SCORES = {
    "mig", "sap", "modularity", "disentanglement", "completeness", "informativeness", "factor_vae_score"
}  # fmt: skip


def perfect(state, batch, key):
    """One dimension for each factor."""
    noise = jax.vmap(lambda k: jax.random.normal(k, (5,)))(rng.example_keys(key, batch["index"]))
    return jnp.asarray(STANDARD)[batch["index"]] * jnp.array([1.0, -3.0, 0.5, 1.0, 1.0]) + 1e-3 * noise


def mixed(state, batch, key):
    """Every factor in every dimension, by a reflection."""
    return perfect(state, batch, key) / jnp.array([1.0, -3.0, 0.5, 1.0, 1.0]) @ (jnp.eye(5) - 2.0 / 5.0)


def nothing(state, batch, key):
    return jnp.zeros((len(batch["index"]), 5))


def context(encode=perfect, source=SOURCE, batch_size=200, **options):
    functions = SimpleNamespace(extras={"encode": encode} if encode else {}, sample=None, eval_step=None)
    return Context(functions, {}, source, source.spec, options.pop("seed", 7), batch_size, **options)


def check(evaluator):
    best = evaluator(context()).scalars
    assert set(best) == SCORES
    assert best == {name: pytest.approx(1.0, abs=0.05) for name in SCORES}
    worse = evaluator(context(mixed)).scalars
    assert worse["informativeness"] > 0.95
    assert max(worse[name] for name in ("mig", "sap", "disentanglement", "completeness")) < 0.5
    assert evaluator(context(nothing)).scalars["factor_vae_score"] == 0.0


def test_perfect_codes_and_mixtures():
    check(Disentanglement(**FEW))


def test_codes_that_say_nothing():
    scores = Disentanglement(**FEW)(context(nothing)).scalars
    assert scores == {name: pytest.approx(0.0, abs=1e-2) for name in SCORES}


class OtherFactors(Disentanglement):
    """Codes and factors of different examples."""

    def _draw(self, context, values, count, number):
        return super()._draw(context, np.roll(values, 1, axis=0), count, number)


class Unmoved(Disentanglement):
    """The same code for every example."""

    def _draw(self, context, values, count, number):
        return super()._draw(dataclasses.replace(context, functions=_constant(context)), values, count, number)


def _constant(given):
    encode = given.functions.extras["encode"]
    return SimpleNamespace(extras={"encode": lambda s, b, k: encode(s, {**b, "index": b["index"] * 0}, k)})


@pytest.mark.parametrize("broken", [OtherFactors, Unmoved])
def test_the_check_rejects(broken):
    with pytest.raises(AssertionError):
        check(broken(**FEW))


def test_the_numbers_come_with_what_produced_them():
    evaluator = Disentanglement(**FEW)
    report = evaluator(context(mixed))
    facts = report.protocol
    assert facts["data"] == SOURCE.provenance and facts["factors"]["position_y"] == 6
    assert (facts["seed"], facts["draws"], facts["examples"], facts["bins"]) == (7, 3, 1500, 20)
    assert facts["importances"] == {"model": "lasso", "alpha": 0.02, "fitted_to": 750}
    assert facts["votes"] == {"train": 300, "test": 150, "batch": 64, "threshold": 0.05}
    rounds = [evaluator._draw(context(mixed), VALUES, 1500, number) for number in range(3)]
    for name, (low, high) in facts["intervals_95"].items():
        values = [scores[name] for scores in rounds]
        assert report.scalars[name] == pytest.approx(np.mean(values))
        expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
        assert (low, high) == pytest.approx(expected, abs=1e-8)
    assert len({scores["mig"] for scores in rounds}) == 3


def test_draws_depend_on_the_seed_and_not_on_the_batch_size():
    scores = Disentanglement(**FEW)(context(mixed)).scalars
    assert Disentanglement(**FEW)(context(mixed, batch_size=77)).scalars == pytest.approx(scores, abs=1e-3)
    assert Disentanglement(**FEW)(context(mixed, seed=8)).scalars["mig"] != pytest.approx(scores["mig"], abs=1e-9)


def test_a_limit_makes_draws_smaller_and_says_so():
    assert Disentanglement(**FEW)(context(limit=400)).protocol["examples"] == 400


def test_codes_are_those_of_the_examples():
    index = np.array([5, 3, 1000, 3, 8, 9, 2])
    for size in (1, 3, 64):
        found = encoded(context(mixed, batch_size=size), index, "a")
        np.testing.assert_allclose(found, STANDARD[index] @ (np.eye(5) - 0.4), atol=0.02)
    assert (encoded(context(), index, "a") != encoded(context(), index, "b")).any()


def check_sharing(function):
    factors = np.stack([np.repeat([0, 2, 5], [600, 300, 100]), np.arange(1000) % 2], axis=1)
    draw, generator = function(np.arange(1000)[:, None] * 1.0, factors), np.random.default_rng(0)
    for factor in (0, 1):
        drawn = [factors[draw(factor, 16, generator)[:, 0].astype(int)] for _ in range(600)]
        assert all(len(np.unique(rows[:, factor])) == 1 for rows in drawn)
        assert sum(len(np.unique(rows[:, 1 - factor])) > 1 for rows in drawn) > 590
        # All values alike, however frequent they are.
        counts = np.unique([rows[0, factor] for rows in drawn], return_counts=True)[1]
        assert len(counts) == 3 - factor and counts.min() > 0.8 * 600 / len(counts)
    many = draw(0, 4000, np.random.default_rng(1))[:, 0]
    assert len(np.unique(many)) > 90  # every example of a value


def test_batches_share_one_factor():
    check_sharing(sharing)


@pytest.mark.parametrize(
    "broken",
    [
        lambda codes, factors: sharing(codes, np.roll(factors, 1, axis=0)),
        lambda codes, factors: sharing(codes, factors[:, ::-1]),
        lambda codes, factors: lambda factor, count, g: np.repeat(sharing(codes, factors)(factor, 1, g), count, 0),
        lambda codes, factors: (
            lambda factor, count, g: codes[
                g.choice(np.flatnonzero(factors[:, factor] == g.choice(factors[:, factor])), count)
            ]
        ),
    ],
    ids=["other examples", "another factor", "one example", "values as frequent as they are"],
)
def test_the_check_of_batches_rejects(broken):
    with pytest.raises(AssertionError):
        check_sharing(broken)


# Traversals.


def decode(state, z, labels):
    """Grey by the sum of the code."""
    grey = jnp.clip(0.5 + z.sum(-1) / 10.0, 0.0, 1.0)
    return jnp.broadcast_to(grey[:, None, None, None], (len(z), 16, 16, 1))


def test_traversals_move_one_latent_at_a_time_the_most_varied_first():
    def encode(state, batch, key):
        number = batch["index"].astype(jnp.float32) / 1000.0
        return jnp.stack([0.1 * number + 0.3, 2.0 * number - 1.0, jnp.full(len(number), 0.2)], axis=1)

    functions = SimpleNamespace(extras={"encode": encode, "decode": decode})
    evaluator = Traversals(rows=2, num=3, examples=50)
    picture = evaluator(dataclasses.replace(context(), functions=functions)).images["traversals"]
    greys = picture[2 :: 4 * 16 + 2, 2 :: 4 * 16 + 2, 0]
    # The code of the first example is (0.3, -1, 0.2); the second latent varies most, and the last not at all.
    sums = np.array([[0.5 - 2.0, 0.5, 0.5 + 2.0], [-0.8 - 2.0, -0.8, -0.8 + 2.0]])
    np.testing.assert_array_equal(greys, np.floor((0.5 + sums / 10.0) * 255 + 0.5))


def test_traversals_show_no_more_latents_than_there_are():
    functions = SimpleNamespace(extras={"encode": perfect, "decode": decode})
    picture = Traversals(rows=9, num=2)(dataclasses.replace(context(), functions=functions)).images["traversals"]
    assert picture.shape[0] == 5 * 66 + 2


# What is refused.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encode": None}, "evaluator 'disentanglement' needs the function 'encode'; this family offers: none"),
        ({"source": sources.digits("test")}, "needs images of known factors; accepted: data.source=shapes"),
        ({"source": shapes("all[:99]")}, "draws examples=1500, and the test split has 99"),
        ({"encode": lambda *a: perfect(*a)[:, :1]}, "evaluator 'disentanglement': .*1 dimension"),
        ({"encode": lambda *a: perfect(*a) * jnp.nan}, "accepted: finite ones"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_refused(options, words):
    with pytest.raises(UserError, match=words):
        Disentanglement(**FEW)(context(**options))


@pytest.mark.parametrize(
    "settings", [{"examples": 3}, {"draws": 1}, {"bins": 1}, {"train_votes": 0}, {"test_votes": 0}, {"alpha": 1.0}]
)
def test_settings_out_of_range(settings):
    with pytest.raises(ValueError, match="accepted: at least"):
        Disentanglement(**settings)


def test_it_stops_between_batches():
    with pytest.raises(Stopped):
        Disentanglement(**FEW)(context(stop=iter([False] * 9 + [True]).__next__))


SHAPES = f"{ROOT}/configs/vae/shapes_beta_vae.py"


def test_bad_settings_at_the_command_line(tmp_path):
    cases = {
        "evaluators.disentanglement.draws=1": "draws=1 is too small; accepted: at least 2",
        "evaluators.disentanglement.examples=41": "draws examples=41, and the test split has 40",
        "evaluators.disentanglement.example=5": "'examples'",
    }
    arguments = [train_arguments(SHAPES, tmp_path / "run", f"--config.{change}") for change in cases]
    for answer, words in zip(run_many([("train", a) for a in arguments]), cases.values(), strict=True):
        assert words in one_line(answer)
    assert not list(tmp_path.iterdir())
