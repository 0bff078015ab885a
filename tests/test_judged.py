"""Samples before a classifier: the features of every network, and the numbers of a judge whose answers are known."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments.judge import in_batches
from genjax.data.base import ArraySource
from genjax.evaluators.base import Context, Stopped, to_uint8
from genjax.evaluators.judged import Judge, Judged
from genjax.families.base import Optimizer
from genjax.families.classifier import classifier
from genjax.metrics.frechet import fit, frechet_distance
from genjax.networks import CLASSIFIERS, CNN, AlexNet, ResNet, cnn, resnet
from genjax.networks.layers import Conv
from genjax.train.optim import OPTIMIZERS
from genjax.types import ImageSpec, UserError
from tests.fakes import FAKES

# Features of a network.

NETWORKS = {
    "cnn": CNN(3, (4, 5), (1, 2), dropout=0.3),
    "alexnet": AlexNet(3, width=4, hidden=16),
    "resnet": ResNet(3, width=4, blocks=(1, 1), remat=True),
}
WIDTH = {"cnn": 5, "alexnet": 16, "resnet": 8}
IMAGES = np.random.default_rng(0).normal(size=(3, 8, 12, 3)).astype(np.float32)


def sown(module, variables, x=IMAGES, **options):
    logits, left = module.apply(variables, x, train=False, mutable=["intermediates"], **options)
    return logits, left["intermediates"]


def test_every_classifier_is_here():
    assert set(NETWORKS) == set(CLASSIFIERS)


@pytest.mark.parametrize("name", NETWORKS)
def test_sowing_changes_neither_parameters_nor_logits(name, monkeypatch):
    module = NETWORKS[name]
    variables = module.init(jax.random.key(0), IMAGES, train=False)
    logits, left = sown(module, variables)
    assert set(variables) <= {"params", "batch_stats"} and set(left) == {"features"}
    for place in (cnn, resnet):
        monkeypatch.setattr(place, "sow_features", lambda module, x: None)
    before = module.init(jax.random.key(0), IMAGES, train=False)
    jax.tree.map(np.testing.assert_array_equal, variables, before)
    np.testing.assert_array_equal(module.apply(before, IMAGES, train=False), logits)


def check_features(name, features, logits, intermediates, variables):
    assert features.shape == (len(IMAGES), WIDTH[name]) and features.dtype == jnp.float32
    if name == "cnn":  # the last convolution's output, before the grid is made one long row
        last = nn.relu(intermediates["Conv_1"]["__call__"][0])
        expected = np.asarray(last).mean(axis=(1, 2))
        np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
        return
    dense = max(k for k in variables["params"] if k.startswith("Dense"))
    kernel, bias = (variables["params"][dense][part] for part in ("kernel", "bias"))
    np.testing.assert_allclose(features @ kernel + bias, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_what_the_last_layer_sees(name):
    module = NETWORKS[name]
    variables = module.init(jax.random.key(0), IMAGES, train=False)
    logits, left = sown(module, variables, capture_intermediates=lambda module, _: isinstance(module, Conv))
    (features,) = left["features"]
    check_features(name, features, logits, left, variables)
    for broken in (features[:, ::-1], 2 * features, features - features.mean(0)):
        with pytest.raises(AssertionError):
            check_features(name, broken, logits, left, variables)
    half = module.clone(dtype=jnp.bfloat16)
    assert sown(half, variables)[1]["features"][0].dtype == jnp.float32


@pytest.fixture(scope="module")
def trained():
    """A classifier family and its state, averages and parameters apart."""
    spec = ImageSpec(8, 12, 3, classes=3)
    family = FAKES["classifier-cnn"].family(spec)
    batch = {"image": np.random.default_rng(1).integers(0, 256, (5, *spec.shape), np.uint8)}
    state = family.init(jax.random.key(0), batch)
    return family, state.replace(params=jax.tree.map(lambda x: 2 * x + 1, state.params)), batch


def test_the_family_gives_features_of_the_averaged_weights(trained):
    family, state, batch = trained
    features = family.extras["features"](state, batch)
    assert features.shape == (5, 4) and features.dtype == jnp.float32
    bare = state.replace(ema={})
    assert np.abs(family.extras["features"](bare, batch) - features).max() > 0.1
    alone = family.extras["features"](state, {"image": batch["image"][3:4]})
    np.testing.assert_allclose(alone[0], features[3], rtol=1e-5, atol=1e-6)


def test_a_network_without_features_is_named():
    class Plain(nn.Module):
        num_classes: int

        @nn.compact
        def __call__(self, x, train):
            return nn.Dense(self.num_classes)(x.reshape(len(x), -1))

    spec = ImageSpec(4, 4, 1, classes=3)
    optimizer: Optimizer = OPTIMIZERS["sgd"](learning_rate=0.1, total_steps=1)
    family = classifier(spec, Plain(3), optimizer, slice_size=2)
    batch = {"image": np.zeros((2, 4, 4, 1), np.uint8)}
    state = family.init(jax.random.key(0), batch)
    assert family.extras["logits"](state, batch).shape == (2, 3)
    with pytest.raises(UserError, match="network Plain gives no features; accepted: one that calls sow_features"):
        family.extras["features"](state, batch)


def test_batches_of_one_size_whatever_there_is():
    seen = []

    def double(batch):
        seen.append(batch.shape)
        return 2.0 * batch[:, 0]

    for count in (1, 4, 5, 11):
        images = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
        np.testing.assert_array_equal(in_batches(double, images, 4), 2 * images[:, 0])
    assert set(seen) == {(4, 3)} and len(seen) == 1 + 1 + 2 + 3


# A judge whose answers are known.

SPEC = ImageSpec(4, 6, 1, classes=3, class_names=("ant", "bee", "cat"))
COUNT = 23
PROVENANCE = {"source": "noise", "split": "test", "count": COUNT}


def source(count=COUNT, seed=0):
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, *SPEC.shape), np.uint8)
    return ArraySource(SPEC, "noise", PROVENANCE, images, (np.arange(count) % 3).astype(np.int32))


def sample(state, keys, labels):
    """The label in the first pixel, noise in the others."""
    image = 0.5 * jax.vmap(lambda key: jax.random.uniform(key, SPEC.shape))(keys)
    return image.at[:, 0, 0, 0].set(labels / 2.0)


def context(batch_size=5, **options):
    functions = SimpleNamespace(eval_step=None, sample=sample, extras={})
    return Context(functions, {}, options.pop("source", source()), SPEC, 7, batch_size, **options)


def classes_of(images):
    assert images.dtype == np.uint8 and images.shape[1:] == SPEC.shape
    return np.round(images[:, 0, 0, 0] / 127.5).astype(int)


def features_of(images):
    assert images.dtype == np.uint8 and images.shape[1:] == SPEC.shape
    return images.reshape(len(images), -1)[:, :4].astype(np.float32)


def judged(num=60, classes=classes_of, features=features_of, **options):
    return Judged(Judge(classes, features, {"run": "x"}, SPEC.class_names), num, **options)


def test_classes_by_a_perfect_judge():
    report = judged(labelled=True)(context())
    assert [report.scalars[f"share/{name}"] for name in SPEC.class_names] == pytest.approx([1 / 3] * 3)
    assert report.scalars["smallest_class_share"] == pytest.approx(1 / 3)
    assert report.scalars["class_entropy"] == pytest.approx(np.log(3))
    assert report.scalars["label_accuracy"] == 1.0
    assert report.protocol == {
        "samples": 60,
        "seed": 7,
        "data": PROVENANCE,
        "examples": COUNT,
        "feature_dims": 4,
        "classifier": {"run": "x"},
        "label_accuracy_interval_95": (pytest.approx(1 / (1 + 1.959964**2 / 60)), 1.0),
    }


def test_classes_of_a_collapsed_generator():
    report = judged(classes=lambda images: np.arange(len(images)) % 2, labelled=True)(context())
    assert report.scalars["smallest_class_share"] == 0.0
    assert report.scalars["class_entropy"] == pytest.approx(np.log(2))
    assert report.scalars["label_accuracy"] == pytest.approx(20 / 60)  # i % 2 is i % 3 for two of six
    assert sum(value for name, value in report.scalars.items() if name.startswith("share/")) == pytest.approx(1.0)
    one = judged(classes=lambda images: np.ones(len(images), int))(context())
    assert one.scalars["class_entropy"] == 0.0 and "label_accuracy" not in one.scalars
    assert not [name for name in one.protocol if "label" in name]
    counts = np.random.default_rng(0).integers(0, 3, 60)
    entropy = judged(classes=lambda images: counts)(context()).scalars["class_entropy"]
    assert entropy == pytest.approx(stats.entropy(np.bincount(counts, minlength=3)))


def check_distance(evaluator, batch_size):
    """Samples against all of the split and nothing else, at any batch size."""
    ctx = context(batch_size)
    samples = to_uint8(ctx.samples(7, ctx.default_labels(60)))
    expected = frechet_distance(fit(features_of(samples)), fit(features_of(source().images)))
    report = evaluator(ctx)
    assert report.scalars["frechet_distance"] == pytest.approx(expected, rel=1e-9)
    assert report.protocol["examples"] == COUNT and report.protocol["samples"] == 60


def test_the_distance_is_that_of_samples_from_the_whole_split():
    for batch_size in (1, 5, COUNT, 64):
        check_distance(judged(), batch_size)


class WithPadding(Judge):
    def real(self, context):
        features = np.concatenate([self.features_of(batch["image"]) for batch in context.batches()])
        return dataclasses.replace(fit(features), count=COUNT)


class OfTheFirstBatch(Judge):
    def real(self, context):
        return dataclasses.replace(fit(self.features_of(next(context.batches())["image"])), count=COUNT)


class AgainstThemselves(Judge):
    def distance(self, images, real):
        return frechet_distance(fit(self.features_of(images)), fit(self.features_of(images)))


@pytest.mark.parametrize("broken", [WithPadding, OfTheFirstBatch, AgainstThemselves])
def test_the_check_of_the_distance_rejects(broken):
    evaluator = judged()
    judge = broken(*(getattr(evaluator.judge, field.name) for field in dataclasses.fields(Judge)))
    with pytest.raises(AssertionError):
        check_distance(dataclasses.replace(evaluator, judge=judge), 5)


def test_a_better_generator_is_nearer():
    real = Context(
        SimpleNamespace(sample=lambda state, keys, labels: jnp.asarray(source(len(keys), seed=3).images) / 255.0),
        {}, source(), SPEC, 7, 64,
    )  # fmt: skip
    near, far = judged(num=40)(real), judged(num=40)(context())
    assert near.scalars["frechet_distance"] < 0.5 * far.scalars["frechet_distance"]


def test_training_images_are_there_for_comparison():
    training = source(100, seed=5)
    report = judged()(context(training=training))
    index = np.linspace(0, 99, 60).astype(int)
    expected = frechet_distance(fit(features_of(training.images[index])), fit(features_of(source().images)))
    assert report.protocol["frechet_distance_of_training_images"] == pytest.approx(expected, rel=1e-4)
    few = judged()(context(training=source(10, seed=5))).protocol["frechet_distance_of_training_images"]
    assert few == pytest.approx(
        frechet_distance(fit(features_of(source(10, seed=5).images)), fit(features_of(source().images))), rel=1e-4
    )
    assert "frechet_distance_of_training_images" not in judged()(context(training=source(1))).protocol


def test_limits_and_stops():
    report = judged()(dataclasses.replace(context(), limit=9))
    assert report.protocol["examples"] == 9
    with pytest.raises(Stopped):
        judged()(context(stop=lambda: True))
    with pytest.raises(UserError, match="needs at least 2 test examples; there are 1"):
        judged()(dataclasses.replace(context(), limit=1))
    with pytest.raises(ValueError, match="num=1 is too small; accepted: at least 2"):
        judged(num=1)
