"""Evaluators on functions whose numbers are known: what they report, with which protocol, and when they refuse."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from genjax import rng
from genjax.data.base import ArraySource
from genjax.evaluators import (
    EVALUATORS,
    AccuracyScore,
    Classification,
    ImportanceBound,
    Interpolations,
    Mean,
    Reconstructions,
    Samples,
)
from genjax.evaluators.base import Context, Stopped, to_uint8
from genjax.train.evaluation import evaluate
from genjax.train.plan import Scheduled
from genjax.types import ImageSpec, UserError

SPEC = ImageSpec(4, 6, 1, classes=3, class_names=("ant", "bee", "cat"))
COUNT = 23
PROVENANCE = {"source": "noise", "split": "test", "count": COUNT}
STATE = {"shift": np.float32(0.0)}


def source(spec=SPEC):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (COUNT, *spec.shape), np.uint8)
    labels = (np.arange(COUNT) % spec.classes).astype(np.int32) if spec.classes else None
    return ArraySource(spec, "noise", PROVENANCE, images, labels)


def logits_of(state, batch):
    """Right but for every fourth example, sure of itself by the index."""
    assert "mask" not in batch
    answer = jnp.where(batch["index"] % 4 == 0, batch["label"] + 1, batch["label"]) % 3
    return jax.nn.one_hot(answer, 3) * (1.0 + batch["index"][:, None] / 10)


def eval_step(state, batch, key):
    noise = jax.vmap(jax.random.normal)(rng.example_keys(key, batch["index"]))
    return {"index": batch["index"].astype(jnp.float32), "noise": noise + state["shift"]}


def importance_bound(state, batch, key, num):
    return jnp.log(num) + jnp.where(batch["index"] % 2 == 0, -10.0, -20.0)


def sample(state, keys, labels):
    grey = jax.vmap(jax.random.uniform)(keys)
    image = jnp.broadcast_to(grey[:, None, None, None] * 0.5, (len(labels), *SPEC.shape))
    return image.at[:, 0, 0, 0].set(labels / 2.0)


def context(batch_size=5, functions=None, spec=SPEC, **options):
    extras = {"logits": logits_of, "importance_bound": importance_bound}
    functions = functions or SimpleNamespace(eval_step=eval_step, sample=sample, extras=extras)
    return Context(functions, options.pop("state", STATE), source(spec), spec, 7, batch_size, **options)


def test_the_table_names_them():
    assert set(EVALUATORS) == {
        "mean", "classification", "accuracy_score", "importance_bound", "bits_per_dim", "active_units", "distribution",
        "image_pairs", "memorisation", "modes", "spectrum", "disentanglement",
        "samples", "reconstructions", "interpolations", "traversals",
    }  # fmt: skip


# Numbers.


@pytest.mark.parametrize("batch_size", [1, 5, COUNT, 64])
def test_mean_is_exact_at_any_batch_size(batch_size):
    report = Mean()(context(batch_size))
    assert report.scalars["index"] == pytest.approx(np.arange(COUNT).mean())
    reference = Mean()(context(4)).scalars["noise"]
    assert report.scalars["noise"] == pytest.approx(reference, abs=1e-6)
    error = report.protocol["standard_error"]["index"]
    assert error == pytest.approx(stats.sem(np.arange(COUNT)))
    assert {k: report.protocol[k] for k in ("data", "examples", "seed")} == {
        "data": PROVENANCE, "examples": COUNT, "seed": 7
    }  # fmt: skip
    assert Mean()(dataclasses.replace(context(batch_size), seed=8)).scalars["noise"] != pytest.approx(reference)


def test_the_smaller_of_two_limits_holds():
    limited = dataclasses.replace(context(), limit=5)
    counts = [Mean(limit=limit)(limited).protocol["examples"] for limit in (0, 3, 7)]
    assert counts == [5, 3, 5]


@pytest.mark.parametrize("limit", [1, 5, 7, COUNT, 100])
def test_a_limit_takes_the_first_examples_and_says_so(limit):
    report = Mean(limit=limit)(context())
    seen = min(limit, COUNT)
    assert report.protocol["examples"] == seen
    assert report.scalars["index"] == pytest.approx(np.arange(seen).mean())


def check_classification(evaluator, batch_size):
    report = evaluator(context(batch_size))
    index, label = np.arange(COUNT), np.arange(COUNT) % 3
    answer = np.where(index % 4 == 0, label + 1, label) % 3
    height = 1.0 + index / 10
    log_probs = special.log_softmax(np.eye(3)[answer] * height[:, None], axis=-1)
    right = int((answer == label).sum())
    assert right == 17
    assert report.scalars["accuracy"] == pytest.approx(right / COUNT)
    assert report.scalars["nll"] == pytest.approx(-log_probs[index, label].mean(), rel=1e-5)
    assert 0 < report.scalars["calibration_error"] < 1
    matrix = np.zeros((3, 3), int)
    np.add.at(matrix, (label, answer), 1)
    assert report.protocol["confusion"] == matrix.tolist()
    table = report.protocol["by_class"]
    assert list(table) == ["ant", "bee", "cat"] and sum(row["examples"] for row in table.values()) == COUNT
    assert table["ant"]["recall"] == matrix[0, 0] / matrix[0].sum()
    expected = stats.binomtest(right, COUNT).proportion_ci(method="wilson")
    assert report.protocol["accuracy_interval_95"] == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert report.protocol["examples"] == COUNT and report.protocol["calibration_bins"] == 15
    assert report.images["confusion"].dtype == np.uint8 and report.images["confusion"].shape[-1] == 3


def test_classification_by_hand():
    check_classification(Classification(), 5)
    check_classification(Classification(), COUNT)


def test_the_classification_check_rejects_counting_the_padding():
    class Unmasked(Context):
        def batches(self, limit=0):
            for batch in super().batches(limit):
                yield {**batch, "mask": np.ones_like(batch["mask"])}

    def padded(ctx):
        return Classification()(Unmasked(**{f.name: getattr(ctx, f.name) for f in dataclasses.fields(ctx)}))

    with pytest.raises(AssertionError):
        check_classification(padded, 5)


def test_accuracy_score_is_the_accuracy_of_each_class_and_of_all():
    report = AccuracyScore()(context(5))
    index, label = np.arange(COUNT), np.arange(COUNT) % 3
    right = index % 4 != 0
    assert report.scalars == {"accuracy_score": pytest.approx(17 / COUNT)}
    classes = {name: right[label == k].mean() for k, name in enumerate(SPEC.class_names)}
    assert report.protocol["per_class"] == pytest.approx(classes)
    expected = stats.binomtest(17, COUNT).proportion_ci(method="wilson")
    assert report.protocol["interval_95"] == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert report.protocol["examples"] == COUNT and report.protocol["data"] == PROVENANCE
    for top, right in ((2, 17), (3, COUNT)):  # two logits that tie for the second place are both behind it
        assert AccuracyScore(top=top)(context(5)).scalars == {f"accuracy_score_top_{top}": pytest.approx(right / COUNT)}
    with pytest.raises(UserError, match="'accuracy_score': top=4; accepted: 1 to 3"):
        AccuracyScore(top=4).check(context())
    with pytest.raises(ValueError, match="top=0 is too small"):
        AccuracyScore(top=0)


def test_importance_bound_says_how_many_draws():
    report = ImportanceBound(num_samples=20, limit=6)(context())
    assert report.scalars == {"importance_bound_20": pytest.approx(np.log(20) - 15.0, rel=1e-6)}
    assert report.protocol["draws"] == 20 and report.protocol["examples"] == 6
    assert report.protocol["standard_error"]["importance_bound_20"] == pytest.approx(stats.sem([10, 20] * 3), rel=1e-5)
    assert report.protocol["seed"] == 7 and report.protocol["data"] == PROVENANCE


# Pictures.


def test_samples_are_the_same_latents_at_every_call_and_batch_size():
    first = Samples(num=12)(context()).images["samples"]
    np.testing.assert_array_equal(first, Samples(num=12)(context()).images["samples"])
    np.testing.assert_array_equal(first, Samples(num=12)(context(batch_size=64)).images["samples"])
    other = Samples(num=12)(dataclasses.replace(context(), seed=8)).images["samples"]
    assert (first != other).any()
    few, many = context().samples(3, np.zeros(4, np.int32)), context().samples(3, np.zeros(13, np.int32))
    np.testing.assert_array_equal(few, many[:4])
    assert many.shape == (13, *SPEC.shape) and len(np.unique(many[:, 1, 1, 0])) == 13


def test_samples_have_a_class_a_column():
    drawn = Samples(num=12)(context()).images["samples"]
    tile_height, tile_width = 4 * 14, 6 * 14
    assert drawn.shape == (4 * (tile_height + 2) + 2, 3 * (tile_width + 2) + 2, 3)
    corners = drawn[2 :: tile_height + 2, 2 :: tile_width + 2, 0]
    np.testing.assert_array_equal(corners, [[0, 128, 255]] * 4)
    assert context().default_labels(7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert context(spec=ImageSpec(4, 6, 1)).default_labels(3).tolist() == [0, 0, 0]


def test_reconstructions_and_interpolations_see_examples_spread_over_the_split():
    def reconstruct(state, batch, key):
        assert batch["index"].tolist() == [0, 7, 14, 22]
        return batch["image"] / 255.0

    def interpolate(state, batch, keys, num):
        assert len(keys) == 2 and (jax.random.key_data(keys)[0] != jax.random.key_data(keys)[1]).any()
        return jnp.broadcast_to(jnp.linspace(0, 1, num)[None, :, None, None, None], (2, num, *SPEC.shape))

    functions = SimpleNamespace(extras={"reconstruct": reconstruct, "interpolate": interpolate})
    picture = Reconstructions(num=4)(context(functions=functions)).images["reconstructions"]
    np.testing.assert_array_equal(picture[2:58], picture[60:116])  # a perfect reconstruction is the original above it
    assert len(np.unique(picture[2:58])) > 20
    picture = Interpolations(rows=2, num=5)(context(functions=functions)).images["interpolations"]
    np.testing.assert_array_equal(picture[2 :: 4 * 14 + 2, 2 :: 6 * 14 + 2, 0], [[0, 64, 128, 191, 255]] * 2)


def test_examples_are_spread_evenly_and_no_more_than_there_are():
    assert context().examples(5)["index"].tolist() == [0, 5, 11, 16, 22]
    assert context().examples(1)["index"].tolist() == [0]
    everything = context().examples(1000)
    assert everything["index"].tolist() == list(range(COUNT)) and everything["index"].dtype == np.int32
    np.testing.assert_array_equal(everything["image"], source().images)


def test_to_uint8_rounds_and_clips():
    given = np.array([-0.5, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 1.7], np.float32)
    assert to_uint8(given).tolist() == [0, 0, 0, 1, 255, 255]
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(every.astype(np.float32) / 255.0), every)


# Refusing and stopping.


@pytest.mark.parametrize(
    ("evaluator", "name", "needed"),
    [
        (Classification(), "classification", "logits"),
        (AccuracyScore(), "accuracy_score", "logits"),
        (ImportanceBound(), "importance_bound", "importance_bound"),
        (Reconstructions(), "reconstructions", "reconstruct"),
        (Interpolations(), "interpolations", "interpolate"),
    ],
)
@pytest.mark.parametrize("offered", [(), ("encode", "decode")])
def test_a_missing_function_names_the_evaluator_and_what_there_is(evaluator, name, needed, offered):
    functions = SimpleNamespace(extras=dict.fromkeys(offered))
    with pytest.raises(UserError) as caught:
        evaluator(context(functions=functions))
    expected = ", ".join(sorted(offered)) or "none"
    assert str(caught.value) == f"evaluator '{name}' needs the function '{needed}'; this family offers: {expected}"


def test_a_family_that_cannot_sample_says_so():
    with pytest.raises(UserError, match="can't sample; accepted: a family with a sample function"):
        Samples()(context(functions=SimpleNamespace(sample=None, extras={})))


class StopAfter:
    """True from the call after the first ``count``."""

    def __init__(self, count):
        self.left = count

    def __call__(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("evaluator", [Mean(), Classification(), ImportanceBound()])
def test_an_evaluation_stops_between_batches(evaluator):
    with pytest.raises(Stopped):
        evaluator(context(stop=StopAfter(2)))
    evaluator(context(stop=StopAfter(5)))  # five batches are all there are


def test_all_findings_become_one_report():
    plan = [
        Scheduled("first", Mean(limit=4), None),
        Scheduled("grid", Samples(6), 10),
        Scheduled("c", Classification(), 2),
    ]
    report, protocols = evaluate(context(), plan)
    assert set(report.scalars) == {"index", "noise", "accuracy", "nll", "calibration_error"}
    assert set(report.images) == {"samples", "confusion"}
    assert set(protocols) == {"first", "c"}  # a picture alone has no numbers to explain
    assert protocols["first"]["scalars"]["index"] == 1.5 and protocols["first"]["examples"] == 4
    assert protocols["first"]["seconds"] >= 0


def test_a_stop_reaches_whoever_asked_for_the_evaluation():
    with pytest.raises(Stopped):
        evaluate(context(stop=StopAfter(6)), [Scheduled("a", Mean(), None), Scheduled("b", Mean(), None)])


def test_two_evaluators_with_numbers_of_one_name_lose_none():
    plan = [Scheduled("some", Mean(limit=4), None), Scheduled("all", Mean(), None)]
    report, protocols = evaluate(context(), plan)
    assert report.scalars["index"] == protocols["some"]["scalars"]["index"] == 1.5
    assert report.scalars["all/index"] == protocols["all"]["scalars"]["index"] == (COUNT - 1) / 2
