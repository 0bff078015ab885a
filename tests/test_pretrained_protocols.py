"""Protocols of colour images: what pretrained networks accept, which split they compare with, who may be called FID.

The pretrained networks themselves are held to PyTorch's in tests/test_feature_networks.py; here a small one stands for
them. The environment variable GENJAX_WEIGHTS names the folder of real weights; without them one test is skipped.
"""

from __future__ import annotations

import dataclasses
import os
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.data.base import ArraySource
from genjax.evaluators import distribution, features
from genjax.evaluators.base import Context, Stopped
from genjax.evaluators.distribution import Distribution
from genjax.evaluators.features import PRETRAINED, SHIPPED, FeatureNetwork, feature_network
from genjax.evaluators.protocols import PROTOCOLS, PUBLISHED, Protocol, Seen, measure
from genjax.evaluators.weights import Weights
from genjax.networks import efficientnet, inception
from genjax.types import ImageSpec, UserError

SPEC = ImageSpec(6, 4, 3)
TINY = Protocol("tiny", 200, reference=150, split="train", neighbours=3, subsets=10, subset_size=50, blocks=4, splits=2)


def colours(variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean colour and its square, and who of the three is brightest."""
    mean = jnp.asarray(images, jnp.float32).mean((1, 2)) / 255.0
    return jnp.concatenate([mean, mean**2], axis=-1), 20.0 * mean


def images(count: int, seed: int, low: int = 0, high: int = 256, spec: ImageSpec = SPEC) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (count, *spec.shape), np.uint8)


def source(split: str, count: int, seed: int, spec: ImageSpec = SPEC, name: str = "noise") -> ArraySource:
    drawn = images(count, seed, spec=spec)
    return ArraySource(spec, name, {"source": "noise", "where": "here", "split": split, "count": count}, drawn)


@pytest.fixture(autouse=True)
def tiny(tmp_path, monkeypatch):
    """A protocol "tiny" of a network of mean colours, with a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    network = FeatureNetwork("tiny", colours, {}, {"name": "tiny", "sha256": "0"}, batch_size=32)
    monkeypatch.setitem(PROTOCOLS, "tiny", TINY)
    real = feature_network
    monkeypatch.setattr(distribution, "feature_network", lambda name: network if name == "tiny" else real(name))
    return network


def context(spec: ImageSpec = SPEC, low: int = 0, **changes: Any) -> Context:
    """A model whose samples are noise as the data's, or brighter."""
    drawn = images(1000, 7, low, spec=spec) / np.float32(255.0)
    functions = SimpleNamespace(eval_step=None, extras={}, sample=lambda state, keys, labels: drawn[: len(labels)])
    state: Any = None
    base = Context(functions, state, source("test", 40, 1, spec), spec, seed=0, batch_size=500, compiled=jax.jit)
    model = {"family": "fake", "weights": "averaged", "sampling": {}, "dtype": "float32"}
    return dataclasses.replace(base, **{"training": source("train", 450, 2, spec), "model": model, **changes})


# What is compared with what.


def test_the_reference_is_spread_over_the_split_that_the_protocol_names(tiny, monkeypatch):
    seen: list[np.ndarray] = []
    monkeypatch.setattr(
        distribution,
        "measure",
        lambda protocol, real, fake: seen.append(real.features) or measure(protocol, real, fake),
    )
    given = context()
    report = Distribution("tiny")(given)
    assert given.training is not None
    expected, _ = tiny.of(given.training.gather(np.linspace(0, 449, 150).astype(int))["image"], jax.jit)
    np.testing.assert_allclose(seen[0], expected, rtol=1e-6)
    facts = report.protocol["reference"]
    assert facts == {"data": {"source": "noise", "split": "train", "count": 450}, "count": 150}
    assert report.protocol["model"] == given.model and report.protocol["settings"]["split"] == "train"
    Distribution("tiny")(given)  # from the cache
    np.testing.assert_array_equal(seen[1], seen[0])


def test_samples_that_differ_are_further_away():
    near, far = (Distribution("tiny")(context(low=low)).scalars for low in (0, 60))
    assert far["frechet_distance"] > 20 * near["frechet_distance"]
    assert far["kernel_distance"] > 0.01 > abs(near["kernel_distance"])
    assert "class_frechet_distance" not in near  # images without labels


def test_numbers_that_want_more_rows_than_there_are_are_left_out():
    rng = np.random.default_rng(0)

    def seen(count: int, dims: int) -> Seen:
        rows = rng.normal(size=(count, dims))
        return Seen(rows, rows[:, :3], np.arange(count) % 2)

    protocol = dataclasses.replace(TINY, samples=100, reference=0)
    few, many = (measure(protocol, seen(300, dims), seen(100, dims)) for dims in (60, 10))
    assert set(many.scalars) - set(few.scalars) == {"frechet_distance_infinity", "class_frechet_distance"}
    assert set(few.intervals) == {"frechet_distance", "kernel_distance", "precision", "coverage"}


def test_an_evaluation_ends_when_it_is_asked_to():
    with pytest.raises(Stopped):
        Distribution("tiny")(context(stop=lambda: True))


# Who may be called FID.


def test_only_inception_on_50000_samples_and_the_customary_split_is_called_fid():
    for name, protocol in PROTOCOLS.items():
        customary = (protocol.samples, protocol.split, protocol.reference, protocol.ema) == (
            50_000,
            "train",
            50_000,
            True,
        )
        published = protocol.features.startswith("inception_v3_") and customary and protocol.data == "cifar10"
        assert protocol.fid == published == ("fid" in name), name
    rows = np.random.default_rng(0).normal(size=(300, 5))
    names = [
        set(
            measure(
                dataclasses.replace(TINY, fid=fid), Seen(rows[:150], rows[:150]), Seen(rows[100:], rows[100:])
            ).scalars
        )
        for fid in (False, True)
    ]
    assert names[0] - names[1] == set(PUBLISHED) and names[1] - names[0] == set(PUBLISHED.values())


# What is refused.


def test_the_pretrained_networks_take_colour_images_of_any_size(tiny):
    for height, width in ((1, 1), (28, 17)):
        assert tiny.misfit(ImageSpec(height, width, 3)) is None
        assert tiny.of(np.zeros((3, height, width, 3), np.uint8), jax.jit)[0].shape == (3, 6)
    assert (
        tiny.misfit(ImageSpec(28, 28, 1)) == "looks at images of (height, width, 3); those of this run are (28, 28, 1)"
    )
    for wrong in (np.zeros((2, 8, 8, 1), np.uint8), np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises(ValueError, match="accepted: uint8 images of .height, width, 3."):
            tiny.of(wrong, jax.jit)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spec": ImageSpec(6, 4, 1)}, r"protocol tiny looks at images of \(height, width, 3\); those of this run"),
        ({"training": None}, "protocol tiny needs the training split"),
        ({"training": source("train", 149, 0)}, "protocol tiny wants 150 reference images; the train split has 149"),
        ({"model": {"weights": "last"}}, "protocol tiny wants averaged weights, and this run keeps none"),
        ({"model": {}}, "protocol tiny wants averaged weights"),
        ({"functions": SimpleNamespace(eval_step=None, extras={}, sample=None)}, "this family can't sample"),
    ],
)
def test_what_a_protocol_cannot_judge_is_said_before_anything_is_drawn(changes, message):
    spec = changes.pop("spec", SPEC)
    with pytest.raises(UserError, match=message) as caught:
        Distribution("tiny").check(dataclasses.replace(context(spec), **changes))
    assert "\n" not in str(caught.value)
    Distribution("tiny").check(context())


def test_a_protocol_of_one_set_is_not_for_another(monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "tiny", dataclasses.replace(TINY, data="cifar10"))
    with pytest.raises(UserError, match="protocol tiny is for cifar10; the data of this run are noise"):
        Distribution("tiny").check(context())
    Distribution("tiny").check(context(training=source("train", 450, 2, name="cifar10")))


def test_averages_of_a_stated_length_are_averages():
    Distribution("tiny").check(context(model={"weights": "length 0.08 averaged"}))


def test_short_protocols_take_the_weights_there_are(monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "tiny", dataclasses.replace(TINY, ema=False))
    Distribution("tiny").check(context(model={"weights": "last"}))
    assert {name for name, protocol in PROTOCOLS.items() if not protocol.ema} - {"tiny"} == {
        name for name in PROTOCOLS if name.endswith("_2k")
    }


def test_missing_weights_are_said_before_training(tmp_path, monkeypatch):
    monkeypatch.setenv("GENJAX_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match="weights of inception_v3: found no pt_inception"):
        Distribution("cifar10_fid_50k_clean").check(
            context(training=source("train", 50_000, 0, ImageSpec(1, 1, 3), name="cifar10"))
        )


# The pretrained networks behind one interface.


def random(shapes: Any) -> dict[str, Any]:
    return {"params": jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), dict(shapes))}


def test_every_pretrained_network_gives_features_and_logits(monkeypatch):
    made = {
        "efficientnet_lite0": Weights(random(efficientnet.shapes()), {"sha256": "e", "format": "f"}),
        "inception_v3": Weights(random(inception.shapes()), {"sha256": "i", "format": "f"}),
    }
    monkeypatch.setattr(features, "weights", made.__getitem__)
    sizes = {"efficientnet_lite0": (1280, 1000), "inception_v3": (2048, 1008)}
    for name, about in PRETRAINED.items():
        network = feature_network(name)
        assert network is feature_network(name)
        out = jax.eval_shape(network.apply, network.variables, np.zeros((2, 32, 32, 3), np.uint8))
        assert [leaf.shape for leaf in out] == [(2, size) for size in sizes[about.weights]], name
        assert network.facts["name"] == name and network.facts["sha256"] == made[about.weights].facts["sha256"]
    resizes = {feature_network(name).facts["resize"] for name in PRETRAINED}
    assert len(resizes) == len(PRETRAINED)  # so that no two of one file have the same facts
    with pytest.raises(UserError, match=f"features='vgg' is unknown; accepted: .*{sorted(SHIPPED)[0]}"):
        feature_network("vgg")
    assert {protocol.features for protocol in PROTOCOLS.values()} <= {*SHIPPED, *PRETRAINED, "tiny"}


def test_efficientnet_sees_blur_and_noise_in_images_of_any_size():
    if not os.environ.get("GENJAX_WEIGHTS"):
        pytest.skip("no weights of EfficientNet-Lite0; name their folder in GENJAX_WEIGHTS")
    network = feature_network("efficientnet_lite0")
    y, x = np.mgrid[:40, :24] / 24.0
    smooth = np.stack([np.sin(3 * x), np.cos(2 * y), x * y], axis=-1)
    image = (127.5 + 80.0 * smooth)[None].astype(np.uint8)
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 40, image.shape), 0, 255).astype(np.uint8)
    rows, logits = network.of(np.concatenate([image, image, noisy]), jax.jit, batch_size=3)
    assert rows.shape == (3, 1280) and logits.shape == (3, 1000) and rows.dtype == np.float32
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-5, atol=1e-6)
    assert np.abs(rows[2] - rows[0]).mean() > 0.02
