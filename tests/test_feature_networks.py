"""Feature networks against PyTorch's, recorded by tests/reference/feature_networks.py, and their weights by name.

The environment variable GENJAX_WEIGHTS names the folder of the pretrained weights; without them one test is skipped.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.io.torch_weights import read_weights
from genjax.networks import FEATURES, efficientnet, inception
from genjax.networks.efficientnet import EfficientNetLite0, efficientnet_input, load_efficientnet_lite0
from genjax.networks.inception import InceptionV3, inception_input, load_inception_v3
from genjax.ops.resize import resize
from genjax.types import UserError
from tests.reference import feature_networks as reference

TOLERANCE = 1e-4  # of the largest value
RECORDED = np.load(Path(__file__).parent / "reference" / "feature_networks.npz")
LITE0 = "efficientnet_lite0_imagenet_f16.npz"


def difference(found, expected):
    """The largest, relative to the largest value expected; infinite for another shape."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return np.abs(found - expected).max() / np.abs(expected).max() if found.shape == expected.shape else np.inf


@functools.cache
def weights(name):
    shapes = json.loads(str(RECORDED["inception/shapes"])) if name == "inception" else reference.lite0_shapes()
    return reference.random_weights({key: tuple(shape) for key, shape in shapes.items()})


@functools.cache
def variables(name):
    load = {"inception": load_inception_v3, "efficientnet": load_efficientnet_lite0}[name]
    return load(weights(name))


def apply(module, variables, x):
    return jax.jit(module.apply)(variables, x)


# The networks.


def inception_differences(**_):
    x = (jnp.asarray(reference.small_images(), jnp.float32) - 128) / 128
    out = apply(InceptionV3(), variables("inception"), x)
    found = {f"map{i}": stage[..., :: reference.INCEPTION_STRIDE] for i, stage in enumerate(out.stages)}
    found |= {str(stage.shape[-1]): stage.mean((1, 2)) for stage in out.stages}
    found |= {"2048": out.pooled, "logits": out.logits, "logits_unbiased": out.logits_unbiased}
    assert all(value.dtype == jnp.float32 for value in jax.tree.leaves(out))
    return {name: difference(value, RECORDED[f"inception/{name}"]) for name, value in found.items()}


def test_inception_is_the_network_of_the_fid():
    differences = inception_differences()
    assert max(differences.values()) < TOLERANCE, differences


def counting_padding(x):
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=True)


def test_the_tolerance_tells_the_pools_of_the_fid_from_others(monkeypatch):
    """Both on the small blocks alone: the first with a mean, the last, which takes a maximum."""
    x = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (1, 5, 6, 192)), jnp.float32)
    part = {"params": variables("inception")["params"]["Mixed_5b"]}
    right = inception.Mixed(inception.mixed_5(32)).apply(part, x)
    monkeypatch.setattr(inception, "average_pool", counting_padding)
    wrong = inception.Mixed(inception.mixed_5(32)).apply(part, x)
    assert difference(wrong, right) > 100 * TOLERANCE
    np.testing.assert_array_equal(wrong[:, 1:-1, 1:-1], right[:, 1:-1, 1:-1])  # only the border differs
    monkeypatch.undo()
    x = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (1, 2, 3, 2048)), jnp.float32)
    part = {"params": variables("inception")["params"]["Mixed_7c"]}
    largest, mean = (inception.Mixed(inception.mixed_7(pool)).apply(part, x) for pool in ("max", "mean"))
    assert difference(mean, largest) > 100 * TOLERANCE


@pytest.mark.parametrize("broken", ["average_pool", "max_pool"])
def test_a_network_with_another_pool_is_rejected(monkeypatch, broken):
    if broken == "average_pool":
        monkeypatch.setattr(inception, "average_pool", counting_padding)
    else:  # the last block as the published network has it
        monkeypatch.setattr(inception, "max_pool", lambda x, s: (inception.average_pool if s == 1 else pool)(x))
        pool = functools.partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2))
    differences = inception_differences()
    assert differences["2048"] > 10 * TOLERANCE
    assert differences["map1"] < TOLERANCE  # what lies before those pools is the same


def test_inception_prepares_images_as_three_packages_do():
    icons = reference.icons()
    modes = {"legacy": "fidelity", "torch": "pytorch_fid", "clean": "clean"}
    x = jnp.concatenate([inception_input(icons, mode) for mode in modes])
    assert (x.shape, x.dtype) == ((3, 299, 299, 3), jnp.float32)
    pooled = apply(InceptionV3(), variables("inception"), x).pooled
    table = {
        (a, b): difference(pooled[i], RECORDED[f"inception/{b}"][0])
        for i, a in enumerate(modes)
        for b in modes.values()
    }
    for (mode, package), value in table.items():
        assert (value < TOLERANCE) == (modes[mode] == package), (mode, package, value)


def test_efficientnet_is_a_plain_reading_of_the_architecture():
    x = (jnp.asarray(reference.small_images(), jnp.float32) - 127) / 128
    out = apply(EfficientNetLite0(), variables("efficientnet"), x)
    found = {f"map{i}": stage[..., :: reference.EFFICIENTNET_STRIDE] for i, stage in enumerate(out.stages)}
    found |= {"pooled": out.pooled, "logits": out.logits}
    differences = {name: difference(value, RECORDED[f"efficientnet/{name}"]) for name, value in found.items()}
    assert max(differences.values()) < TOLERANCE, differences
    assert [stage.shape[-1] for stage in out.stages] == [16, 24, 40, 80, 112, 192, 320]
    # An even side is padded below and right only; symmetric padding would see other pixels.
    shifted = apply(EfficientNetLite0(), variables("efficientnet"), x[:, ::-1, ::-1]).stages[0][:, ::-1, ::-1]
    assert difference(shifted, out.stages[0]) > 100 * TOLERANCE


# Resizing.


@pytest.mark.parametrize("size", reference.SIZES)
@pytest.mark.parametrize("mode", inception.RESIZES)
def test_resizing_is_that_of_the_reference(mode, size):
    images = reference.resize_images(reference.SIZES[size])
    sample = np.ix_([0], reference.SAMPLE, reference.SAMPLE, range(3))
    resized = RECORDED[f"resize/{size}/{mode}"]
    expected = 2 * resized - 1 if mode == "torch" else (resized - 128) / 128
    for other in inception.RESIZES:
        value = difference(np.asarray(inception_input(images, other))[sample], expected)
        assert (value < 1e-5) == (other == mode), (other, value)


def test_resizing_leaves_an_image_of_that_size_alone():
    x = jnp.asarray(np.random.default_rng(0).uniform(0, 255, (2, 7, 5, 3)), jnp.float32)
    for method in ("tensorflow1", "torch_bilinear", "pillow_bicubic"):
        np.testing.assert_allclose(resize(x, (7, 5), method), x, rtol=1e-6)
        np.testing.assert_allclose(resize(jnp.full((1, 4, 9, 1), 3.0), (6, 5), method), 3.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((jnp.zeros((2, 3, 3, 3)), (4, 4), "area"), "method='area' is unknown; accepted: pillow_bicubic"),
        ((jnp.zeros((3, 3, 3)), (4, 4), "tensorflow1"), r"needs images \[B, H, W, C\]"),
        ((jnp.zeros((2, 3, 3, 3)), (4, 0), "tensorflow1"), "height and width of at least 1"),
    ],
)
def test_resizing_refuses_what_is_no_image_or_method(arguments, message):
    with pytest.raises(ValueError, match=message):
        resize(*arguments)


def test_inputs_have_the_ranges_they_say():
    for value in (0, 255):
        images = np.full((1, 8, 8, 1), value, np.uint8)
        ends = {mode: float(inception_input(images, mode)[0, 0, 0, 2]) for mode in inception.RESIZES}
        lite = efficientnet_input(images, 16)
        assert lite.shape == (1, 16, 16, 3)
        expected = (-1, -1, -1, -127 / 128) if value == 0 else (127 / 128, 1, 127 / 128, 1)
        np.testing.assert_allclose([*ends.values(), float(lite.mean())], expected, atol=1e-6)
    with pytest.raises(ValueError, match="mode='area' is unknown; accepted: clean, legacy, torch"):
        inception_input(images, "area")
    with pytest.raises(ValueError, match=r"needs images \[B, H, W, 1 or 3\]"):
        inception_input(np.zeros((1, 8, 8, 2)), "clean")


# Tables and weights.


def test_feature_networks_have_a_table_of_their_own():
    assert {"efficientnet_lite0": EfficientNetLite0, "inception_v3": InceptionV3} == FEATURES
    for network, side in ((EfficientNetLite0, 1), (InceptionV3, 75)):
        jax.eval_shape(network().init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
        for shape in ((1, side - 1, side, 3), (1, side, side, 1), (side, side, 3)):
            with pytest.raises(ValueError, match=rf"needs images \[B, H, W, 3\] of at least {side}x{side}"):
                jax.eval_shape(network().init, jax.random.key(0), jnp.zeros(shape))


def test_loaded_weights_are_all_the_parameters_in_float32():
    for name, module in (("inception", inception), ("efficientnet", efficientnet)):
        expected = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), dict(module.shapes()))
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables(name)["params"]) == expected


# Of the TensorFlow graph, one block of each kind: our layers and what it calls them.
GRAPH = {
    "Mixed_5c": "conv tower.conv tower.conv_1 tower_1.conv tower_1.conv_1 tower_1.conv_2 tower_2.conv",
    "Mixed_6a": "conv tower.conv tower.conv_1 tower.conv_2",
    "Mixed_6e": "conv tower.conv tower.conv_1 tower.conv_2 tower_1.conv tower_1.conv_1 tower_1.conv_2 tower_1.conv_3 "
    "tower_1.conv_4 tower_2.conv",
    "Mixed_7a": "tower.conv tower.conv_1 tower_1.conv tower_1.conv_1 tower_1.conv_2 tower_1.conv_3",
    "Mixed_7c": "conv tower_conv tower_mixed_conv tower_mixed_conv_1 tower_1_conv tower_1_conv_1 tower_1_mixed_conv "
    "tower_1_mixed_conv_1 tower_2_conv",
}


def test_the_torchscript_file_gives_the_same_parameters():
    plain, names = weights("inception"), inception.script_names()
    assert len(set(names.values())) == len(names) == sum(key.endswith(".conv.weight") for key in plain)
    numbers = {"Mixed_5c": 1, "Mixed_6a": 3, "Mixed_6e": 7, "Mixed_7a": 8, "Mixed_7c": 10}
    for block, expected in GRAPH.items():
        found = [name for layer, name in names.items() if layer.startswith(block)]
        assert found == [f"layers.mixed_{numbers[block]}.{name}" for name in expected.split()]
    parts = {"weight": "conv.weight", "beta": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var"}
    script = {f"{names[layer]}.{part}": plain[f"{layer}.{key}"] for layer in names for part, key in parts.items()}
    script |= {f"output.{part}": plain[f"fc.{part}"] for part in ("weight", "bias")}
    unscaled = {key: np.ones_like(a) if key.endswith("bn.weight") else a for key, a in plain.items()}
    jax.tree.map(np.testing.assert_array_equal, load_inception_v3(script), load_inception_v3(unscaled))
    del script["layers.mixed_4.tower_1.conv_2.mean"]
    with pytest.raises(UserError, match=r"Mixed_6b.branch7x7dbl_3.bn.running_mean is missing"):
        load_inception_v3(script)


BROKEN = {
    "missing": (lambda a: None, "is missing; must be an array of shape"),
    "misshapen": (lambda a: a[:-1], r"has shape \[.*\]; must be \["),
    "not finite": (lambda a: a * np.nan, "must hold finite real numbers"),
    "integers": (lambda a: a.astype(int), r"\(int64\) must hold finite real numbers"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize(
    ("network", "key"),
    [
        ("inception", "Mixed_6c.branch7x7dbl_4.conv.weight"),
        ("inception", "fc.bias"),
        ("efficientnet", "_blocks.7._bn1.running_mean"),
        ("efficientnet", "_fc.weight"),
    ],
)
def test_a_missing_or_wrong_array_is_named_in_one_line(network, key, kind):
    change, message = BROKEN[kind]
    load = {"inception": load_inception_v3, "efficientnet": load_efficientnet_lite0}[network]
    broken = {name: value for name, value in weights(network).items() if name != key}
    if kind != "missing":
        broken[key] = change(weights(network)[key])
    with pytest.raises(UserError, match=message) as caught:
        load(broken, where="a/file.pth")
    assert str(caught.value).startswith(f"a/file.pth: {key} ") and "\n" not in str(caught.value)


def test_a_negative_variance_is_named():
    broken = weights("efficientnet") | {"_bn1.running_var": -weights("efficientnet")["_bn1.running_var"]}
    with pytest.raises(UserError, match="_bn1.running_var is negative"):
        load_efficientnet_lite0(broken)


def test_pretrained_efficientnet_says_what_it_says_in_pytorch():
    path = Path(os.environ.get("GENJAX_WEIGHTS", "weights")) / LITE0
    if not path.is_file():
        pytest.skip(f"no {LITE0}; name its folder in GENJAX_WEIGHTS")
    loaded = load_efficientnet_lite0(read_weights(path), where=str(path))
    x = (jnp.asarray(reference.small_images(), jnp.float32) - 127) / 128
    logits = apply(EfficientNetLite0(), loaded, x).logits
    assert difference(logits, RECORDED["efficientnet/pretrained"]) < TOLERANCE
    random = apply(EfficientNetLite0(), variables("efficientnet"), x).logits
    assert difference(random, RECORDED["efficientnet/pretrained"]) > 0.1
