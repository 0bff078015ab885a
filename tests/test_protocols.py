"""Numbers under a name: shipped feature networks, what a protocol fixes, and the evaluator that keeps to it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from genjax.data.base import ArraySource
from genjax.data.embedded import digits
from genjax.evaluators import features, protocols, reference
from genjax.evaluators.base import Context, Report
from genjax.evaluators.distribution import Distribution
from genjax.evaluators.features import SHIPPED, pack, read, shipped
from genjax.evaluators.protocols import PROTOCOLS, Protocol, Seen, card, comparable, measure
from genjax.types import UserError

PROTOCOL = Protocol("digits", samples=400, neighbours=3, subsets=20, subset_size=100, blocks=5, splits=4)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_shipped_network_of_the_digits_is_as_good_as_it_says():
    network, test = shipped("digits"), digits("test")
    batch = test.gather(np.arange(len(test)))
    rows, logits = network.of(batch["image"], jax.jit)
    assert round(float(np.mean(logits.argmax(-1) == batch["label"])), 4) == network.facts["accuracy"] > 0.97
    assert rows.dtype == np.float32 and len(rows) == len(test)
    again, _ = network.of(batch["image"], jax.jit, batch_size=64)
    np.testing.assert_allclose(rows, again, atol=1e-5)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_every_shipped_network_can_be_read_and_says_what_it_is(name):
    network = shipped(name)
    rows, logits = network.of(np.zeros((2, *network.shape), np.uint8), lambda function: function, batch_size=2)
    assert np.isfinite(rows).all() and logits.shape == (2, len(network.class_names))
    assert network.facts["sha256"] == SHIPPED[name]
    assert set(network.facts) == {"name", "sha256", "network", "data", "accuracy"}
    assert "where" not in network.facts["data"] and network.facts["data"]["split"] == "train"


def test_a_changed_file_and_an_unknown_name_are_refused(monkeypatch):
    monkeypatch.setitem(features.SHIPPED, "digits", "0" * 64)
    shipped.cache_clear()
    with pytest.raises(UserError, match="SHA-256 of its file is 9"):
        shipped("digits")
    with pytest.raises(UserError, match="unknown; accepted: digits, fashion_mnist, mnist"):
        shipped("imagenet")


def test_images_of_another_shape_or_range_are_refused():
    network = shipped("digits")
    for images in (np.zeros((2, 28, 28, 1), np.uint8), np.zeros((2, 8, 8, 1), np.float32)):
        with pytest.raises(ValueError, match="accepted: uint8 images of"):
            network.of(images, lambda function: function)


def test_packing_keeps_weights_to_half_precision():
    network = shipped("digits")
    about = {**network.facts, "shape": network.shape, "class_names": network.class_names}
    again = read("digits", pack(network.variables, about))
    jax.tree.map(np.testing.assert_array_equal, again.variables, network.variables)
    assert again.facts["sha256"] != network.facts["sha256"]  # another description, another file


def normal(count: int, shift: float = 0.0, seed: int = 0, dims: int = 6) -> Seen:
    """Rows whose class is the sign of the first value."""
    rows = np.random.default_rng(seed).normal(size=(count, dims)) + shift
    logits = np.stack([rows[:, 0], -rows[:, 0]], axis=-1)
    return Seen(rows.astype(np.float32), logits, (rows[:, 0] < 0).astype(np.int32))


def test_equal_distributions_are_at_no_distance_and_shifted_ones_are():
    equal = measure(PROTOCOL, normal(2000), normal(400, seed=1))
    shifted = measure(PROTOCOL, normal(2000), normal(400, 0.5, seed=1))
    for name in ("frechet_distance_infinity", "kernel_distance"):
        low, high = equal.intervals[name]
        assert low <= 0.02 and high >= -0.02, (name, low, high)
        assert shifted.intervals[name][0] > high, name
    assert abs(shifted.scalars["frechet_distance_infinity"] - 6 * 0.5**2) < 0.4  # |m_a - m_b|^2
    assert shifted.scalars["precision"] < equal.scalars["precision"]
    for measured in (equal, shifted):
        assert all(low <= measured.scalars[name] <= high for name, (low, high) in measured.intervals.items())
        assert measured.scalars["class_frechet_distance"] > 0


def test_fewer_images_than_the_protocol_says_are_refused():
    with pytest.raises(ValueError, match="399 samples; this protocol wants 400"):
        measure(PROTOCOL, normal(2000), normal(399, seed=1))
    wanting = dataclasses.replace(PROTOCOL, reference=2001)
    with pytest.raises(ValueError, match="2000 reference images; this protocol wants 2001"):
        measure(wanting, normal(2000), normal(400, seed=1))


def test_without_labels_there_is_no_distance_by_class():
    fake = normal(400, seed=1)
    unlabelled = dataclasses.replace(fake, labels=None)
    assert "class_frechet_distance" not in measure(PROTOCOL, normal(2000), unlabelled).scalars
    few = dataclasses.replace(fake, labels=np.arange(400) // 3)
    assert "class_frechet_distance" not in measure(PROTOCOL, normal(2000), few).scalars


def test_cards_compare_by_what_fixes_the_numbers():
    facts = {"features": {"sha256": "a"}, "reference": {"count": 3}, "intervals_95": {}}
    first = card("digits_2k", PROTOCOLS["digits_2k"], facts)
    assert comparable(first, {**first, "intervals_95": {"x": 1}}) is None
    other = card("digits_2k", dataclasses.replace(PROTOCOLS["digits_2k"], seed=1), facts)
    for key, value, line in (
        ("protocol", "mnist_2k", "protocol is 'digits_2k' in one and 'mnist_2k' in the other"),
        ("features", {"sha256": "b"}, "features.sha256 is 'a' in one and 'b' in the other"),
        ("settings", other["settings"], "settings.seed is 0 in one and 1 in the other"),
        ("settings", {}, "settings.samples is 2000 in one and None in the other"),
        ("version", 0, "version is 1 in one and 0 in the other"),
    ):
        assert comparable(first, {**first, key: value}) == line


def test_cards_compare_models_by_weights_and_dtype_and_within_a_family_by_sampling():
    model = {
        "family": "diffusion",
        "weights": "averaged",
        "sampling": {"sampler": {"name": "heun"}},
        "dtype": "float32",
    }

    def against(**changes: Any) -> str | None:
        return comparable({"model": model}, {"model": {**model, **changes}})

    assert against() is None
    assert against(weights="last") == "model.weights is 'averaged' in one and 'last' in the other"
    assert against(dtype="bfloat16") == "model.dtype is 'float32' in one and 'bfloat16' in the other"
    euler = against(sampling={"sampler": {"name": "euler"}})
    assert euler == "model.sampling.sampler.name is 'heun' in one and 'euler' in the other"
    assert against(family="gan", sampling={}) is None  # another family samples in its own way
    assert "model.weights" in str(against(family="gan", sampling={}, weights="last"))
    assert "model.weights is None" in str(comparable({}, {"model": model}))  # a record from before cards said so


def test_reference_arrays_are_kept_until_anything_changes(tmp_path):
    made = []

    def compute() -> dict[str, np.ndarray]:
        made.append(1)
        return {"features": np.full((2, 3), len(made), np.float32)}

    first, again = (reference.cached({"network": "a"}, compute) for _ in range(2))
    np.testing.assert_array_equal(first["features"], again["features"])
    assert len(made) == 1
    assert reference.cached({"network": "b"}, compute)["features"][0, 0] == 2
    for file in (tmp_path / "cache" / "genjax" / "reference").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    assert reference.cached({"network": "a"}, compute)["features"][0, 0] == 3  # cut short: made again


def test_a_folder_that_cannot_be_written_costs_time_alone(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert reference.cached({}, lambda: {"x": np.ones(1)})["x"] == 1


def context(draw: Any, **changes: Any) -> Context:
    """A model of the digits whose samples are what ``draw`` makes of an array of labels."""
    source = digits("test")
    functions = SimpleNamespace(eval_step=None, extras={}, sample=lambda state, keys, labels: draw(np.asarray(labels)))
    state: Any = None
    return Context(functions, state, source, source.spec, seed=0, batch_size=1000, conditional=True, **changes)


def evaluated(draw: Any) -> Report:
    return Distribution("digits_2k")(context(draw, compiled=jax.jit))


def test_training_images_are_near_and_noise_is_far(monkeypatch):
    train = digits("train").gather(np.arange(1000))
    real = {digit: train["image"][train["label"] == digit] / 255.0 for digit in range(10)}
    rng = np.random.default_rng(0)
    near = evaluated(lambda labels: np.stack([real[label][rng.integers(len(real[label]))] for label in labels]))
    far = evaluated(lambda labels: rng.uniform(size=(len(labels), 8, 8, 1)))
    wrong = evaluated(lambda labels: np.stack([real[9 - label][rng.integers(50)] for label in labels]))
    assert near.scalars["frechet_distance"] < 0.1 * far.scalars["frechet_distance"]
    assert near.scalars["coverage"] > 0.9 > far.scalars["coverage"]
    assert near.scalars["class_score"] > 8
    # What all images together do not show: each class is another's.
    assert abs(wrong.scalars["frechet_distance"] - near.scalars["frechet_distance"]) < 0.2
    protocol = near.protocol
    assert protocol["protocol"] == "digits_2k" and protocol["settings"]["samples"] == 2000
    assert protocol["features"]["sha256"] == SHIPPED["digits"] and protocol["reference"]["count"] == 296
    assert comparable(near.protocol, far.protocol) is None
    monkeypatch.setattr(protocols, "VERSION", 2)
    assert "version" in str(
        comparable(near.protocol, evaluated(lambda labels: np.zeros((len(labels), 8, 8, 1))).protocol)
    )


def test_runs_that_a_protocol_does_not_fit_are_refused():
    with pytest.raises(UserError, match="protocol='fid' is unknown; accepted: .*digits_2k"):
        Distribution("fid")
    with pytest.raises(UserError, match="looks at images of"):
        Distribution("mnist_2k")(context(lambda labels: labels))
    with pytest.raises(UserError, match="protocol mnist_10k wants averaged weights, and this run keeps none"):
        Distribution("mnist_10k")(context(lambda labels: labels, model={"weights": "last"}))
    with pytest.raises(UserError, match="looks at images of"):  # no longer the weights
        Distribution("mnist_10k")(context(lambda labels: labels, model={"weights": "averaged"}))
    base = context(lambda labels: labels)
    letters = tuple("abcdefghij")
    spec = dataclasses.replace(base.spec, class_names=letters)
    with pytest.raises(UserError, match="knows the classes 0, 1"):
        Distribution("digits_2k")(dataclasses.replace(base, spec=spec))
    small = base.source.gather(np.arange(5))
    source = ArraySource(base.spec, "few", {"split": "test"}, small["image"], small["label"])
    draw = context(lambda labels: np.zeros((len(labels), 8, 8, 1)), compiled=jax.jit)
    with pytest.raises(UserError, match="protocol digits_2k"):
        Distribution("digits_2k")(dataclasses.replace(draw, source=source))
