"""Networks: shapes at every image size, what they depend on, and what only training may change."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import tree
from genjax.networks import AUTOENCODERS, CLASSIFIERS, CNN, ConvVAE, Discriminator, Generator, ResNet
from genjax.networks.cnn import global_mean
from genjax.networks.ladder import ladder
from genjax.networks.layers import Conv

SHAPES = [(28, 28, 1), (32, 32, 3), (64, 64, 3), (8, 8, 1)]
KEY = jax.random.key(0)
LABEL = jnp.array([0, 2])


def images(shape, count=2, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, (count, *shape)), jnp.float32)


def shapes_of(module, *arguments, **options):
    """Shapes of the parameters by name, and of the result, without computing either."""
    variables = jax.eval_shape(lambda: module.init(KEY, *arguments, **options))
    out = jax.eval_shape(lambda v: module.apply(v, *arguments, **options), variables)
    return {name: leaf.shape for name, leaf in tree.named_leaves(variables["params"]).items()}, out


def kernels(params):
    return [shape for name, shape in params.items() if name.endswith("kernel") and len(shape) == 4]


# Sizes.


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_give_a_logit_a_class(name, shape):
    for dtype in (jnp.float32, jnp.bfloat16):
        params, out = shapes_of(CLASSIFIERS[name](num_classes=7, dtype=dtype), jnp.zeros((2, *shape)), train=False)
        assert (out.shape, out.dtype) == ((2, 7), jnp.float32)
        assert shape[-1] in [kernel[2] for kernel in kernels(params)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("classes", [0, 3])
def test_image_networks_fit_every_size(shape, classes):
    label = LABEL if classes else None
    _, out = shapes_of(Generator(shape, classes, width=8), jnp.zeros((2, 5)), label, train=False)
    assert (out.shape, out.dtype) == ((2, *shape), jnp.float32)
    _, out = shapes_of(Discriminator(shape, classes, width=8), jnp.zeros((2, *shape)), label, train=False)
    assert (out.shape, out.dtype) == ((2,), jnp.float32)
    for name, network in AUTOENCODERS.items():
        for outputs in (1, 2):
            module = network(image_shape=shape, outputs_per_value=outputs, num_classes=classes, dtype=jnp.bfloat16)
            _, out = shapes_of(module, jnp.zeros((2, *shape)), label)
            assert (out.shape, out.dtype) == ((2, *shape, outputs), jnp.float32), name


def check_ladder(ladder):
    expected = {28: (2, 7), 32: (3, 4), 64: (4, 4), 8: (1, 4), 24: (2, 6), 48: (3, 6), 96: (4, 6), 128: (5, 4)}
    for side, (depth, base) in expected.items():
        assert ladder((side, side, 1)) == (depth, (base, base))
        assert base * 2**depth == side
    assert ladder((32, 64, 3)) == (3, (4, 8))
    assert ladder((8, 12, 3)) == (1, (4, 6))


def test_the_ladder_halves_down_to_four_to_fifteen():
    check_ladder(ladder)
    with pytest.raises(AssertionError):
        check_ladder(lambda shape: (2, (shape[0] // 4, shape[1] // 4)))


@pytest.mark.parametrize("side", [4, 7, 6, 31, 33, 34, 1, (28, 27), (8, 160)])
def test_the_ladder_refuses_what_does_not_halve(side):
    height, width = side if isinstance(side, tuple) else (side, side)
    for build in (ladder, Generator, Discriminator, ConvVAE):
        with pytest.raises(ValueError, match=f"image size {height}x{width} does not fit: .* 8, 24, 28, 32") as caught:
            build((height, width, 1))
        assert "\n" not in str(caught.value)


# Architecture.


def test_cnn_is_three_convolutions_and_one_dense_layer():
    params, _ = shapes_of(CNN(10), jnp.zeros((1, 28, 28, 1)), train=False)
    assert params == {
        "Conv_0/kernel": (3, 3, 1, 32), "Conv_0/bias": (32,),
        "Conv_1/kernel": (3, 3, 32, 64), "Conv_1/bias": (64,),
        "Conv_2/kernel": (3, 3, 64, 128), "Conv_2/bias": (128,),
        "Dense_0/kernel": (7 * 7 * 128, 10), "Dense_0/bias": (10,),
    }  # fmt: skip
    assert CNN(10).strides == (1, 2, 2)
    # Other strides would leave another grid for the dense layer.
    other, _ = shapes_of(CNN(10, strides=(1, 1, 2)), jnp.zeros((1, 28, 28, 1)), train=False)
    assert other["Dense_0/kernel"] == (14 * 14 * 128, 10)
    with pytest.raises(ValueError, match="2 features but 3 strides"):
        CNN(10, features=(8, 8))


def by_definition(x, kernel, bias):
    """f(y), y(i,j) = sum_p sum_q x(i+p-1, j+q-1) k(p,q) + b, f = max(0, .), one channel, zero outside."""
    out = np.zeros_like(x)
    for i, j in np.ndindex(x.shape):
        for p, q in np.ndindex(3, 3):
            if 0 <= i + p - 1 < x.shape[0] and 0 <= j + q - 1 < x.shape[1]:
                out[i, j] += x[i + p - 1, j + q - 1] * kernel[p, q]
    return np.maximum(out + bias, 0.0)


class Layer(nn.Module):
    """One layer of the CNN: convolution and activation."""

    activation: str = "relu"

    @nn.compact
    def __call__(self, x):
        y = Conv(1, (3, 3))(x)
        return {"relu": nn.relu, "leaky": nn.leaky_relu, "none": lambda y: y}[self.activation](y)


def test_a_layer_is_its_definition_with_relu():
    x = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    params = {"Conv_0": {"kernel": images((3, 1, 1), 3), "bias": jnp.array([0.1])}}
    expected = by_definition(x, np.asarray(params["Conv_0"]["kernel"])[..., 0, 0], 0.1)
    assert (expected == 0).any() and (expected > 0).any()
    results = {a: Layer(a).apply({"params": params}, x[None, ..., None])[0, ..., 0] for a in ("relu", "leaky", "none")}
    np.testing.assert_allclose(results["relu"], expected, atol=1e-5)
    assert not np.allclose(results["leaky"], expected, atol=1e-3)
    assert not np.allclose(results["none"], expected, atol=1e-3)


def test_cnn_is_its_layers_one_after_the_other():
    module, x = CNN(3, features=(1, 1), strides=(1, 2)), images((6, 6, 1))
    params = module.init(KEY, x, train=False)["params"]
    params = jax.tree.map(lambda leaf: leaf + 0.05, params)
    layer = [
        (np.asarray(params[f"Conv_{i}"]["kernel"])[..., 0, 0], np.asarray(params[f"Conv_{i}"]["bias"])) for i in (0, 1)
    ]
    for image, logits in zip(np.asarray(x)[..., 0], module.apply({"params": params}, x, train=False), strict=True):
        hidden = by_definition(image, *layer[0])
        hidden = by_definition(hidden, *layer[1])[1::2, 1::2]  # SAME at stride 2 pads below and right on an even side
        np.testing.assert_allclose(
            logits, hidden.ravel() @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], rtol=1e-4, atol=1e-5
        )


def test_dcgan_has_two_strided_four_by_four_convolutions_at_28():
    params, _ = shapes_of(Discriminator((28, 28, 1)), jnp.zeros((1, 28, 28, 1)), None, train=False)
    assert kernels(params) == [(4, 4, 1, 64), (4, 4, 64, 128)]
    assert params["Dense_0/kernel"] == (7 * 7 * 128, 1)  # two halvings
    params, _ = shapes_of(Generator((28, 28, 1)), jnp.zeros((1, 100)), None, train=False)
    assert kernels(params) == [(4, 4, 128, 64), (4, 4, 64, 1)]
    assert params["Dense_0/kernel"] == (100, 7 * 7 * 128) and "Dense_0/bias" not in params


def test_resnet_blocks_keep_the_shortcut_free_where_shapes_agree():
    params, _ = shapes_of(ResNet(10, width=4, blocks=(2, 1)), jnp.zeros((1, 8, 8, 3)), train=False)
    pointwise = [name for name, shape in params.items() if shape[:2] == (1, 1)]
    assert pointwise == ["Block_2/Conv_0/kernel"]
    assert global_mean(jnp.ones((2, 3, 4, 5), jnp.bfloat16)).dtype == jnp.float32
    np.testing.assert_allclose(global_mean(images((3, 4, 5))), images((3, 4, 5)).mean((1, 2)), atol=1e-6)


# What the result depends on.


def test_generated_images_lie_between_minus_one_and_one():
    module = Generator((8, 8, 3), width=4)
    z = 100.0 * jax.random.normal(KEY, (4, 6))
    variables = module.init(KEY, z, None, train=False)
    out = module.apply({**variables, "params": jax.tree.map(lambda p: 50.0 * p, variables["params"])}, z, None, False)
    assert float(jnp.abs(out).max()) <= 1.0 and float(jnp.abs(out).max()) > 0.99


def depends_on_label(module, x, classes):
    """Whether changing one example's label changes its result and no other's."""
    label = jnp.array([0, 1]) if classes else None
    arguments = () if isinstance(module, ConvVAE) else (False,)
    variables = module.init(KEY, x, label, *arguments)
    first = module.apply(variables, x, label, *arguments)
    second = module.apply(variables, x, label.at[1].set(2) if classes else None, *arguments)
    np.testing.assert_allclose(first[0], second[0], atol=1e-6)
    return not np.allclose(first[1], second[1], atol=1e-6)


@pytest.mark.parametrize("classes", [0, 3])
def test_conditional_networks_and_no_others_depend_on_the_label(classes):
    shape = (8, 8, 1)
    z = jax.random.normal(KEY, (2, 5))
    assert depends_on_label(Generator(shape, classes, width=4), z, classes) == bool(classes)
    assert depends_on_label(Discriminator(shape, classes, width=4), images(shape), classes) == bool(classes)
    assert depends_on_label(ConvVAE(shape, num_classes=classes, width=4, latent_dim=3), images(shape), classes) == bool(
        classes
    )


def test_both_halves_of_a_conditional_autoencoder_depend_on_the_label():
    module, x = ConvVAE((8, 8, 1), num_classes=3, width=4, latent_dim=3, hidden=6), images((8, 8, 1))
    variables = module.init(KEY, x, LABEL)
    codes = [module.apply(variables, x, jnp.array([0, k]), method="encode") for k in (1, 2)]
    for first, second in zip(*codes, strict=True):
        assert first.shape == (2, 3) and np.allclose(first[0], second[0]) and not np.allclose(first[1], second[1])
    z = jnp.ones((2, 3))
    first, second = (module.apply(variables, z, jnp.array([0, k]), method="decode") for k in (1, 2))
    assert np.allclose(first[0], second[0]) and not np.allclose(first[1], second[1])


NOISY = {
    "cnn": (CNN(3, (4,), (2,), dropout=0.5), ()),
    "alexnet": (CLASSIFIERS["alexnet"](3, width=4, hidden=16), ()),
    "discriminator": (Discriminator((8, 8, 1), width=4, dropout=0.5), (None,)),
}


@pytest.mark.parametrize("name", NOISY)
def test_dropout_acts_in_training_only(name):
    module, label = NOISY[name]
    x = images((8, 8, 1))
    variables = module.init(KEY, x, *label, train=False)

    def apply(train, seed):
        return np.asarray(module.apply(variables, x, *label, train=train, rngs={"dropout": jax.random.key(seed)}))

    np.testing.assert_array_equal(apply(False, 0), apply(False, 1))
    np.testing.assert_array_equal(apply(False, 0), module.apply(variables, x, *label, train=False))  # asks for no key
    np.testing.assert_array_equal(apply(True, 0), apply(True, 0))
    assert not np.allclose(apply(True, 0), apply(True, 1))


@pytest.mark.parametrize("module", [Generator((8, 8, 1), width=4), ResNet(3, width=4, blocks=(1,))])
def test_batch_statistics_change_in_training_only(module):
    inputs = (jax.random.normal(KEY, (4, 5)), None) if isinstance(module, Generator) else (images((8, 8, 1), 4),)
    variables = module.init(KEY, *inputs, train=False)
    before = variables["batch_stats"]
    out, updates = module.apply(variables, *inputs, train=False, mutable=["batch_stats"])
    assert all((a == b).all() for a, b in zip(*map(jax.tree.leaves, (before, updates["batch_stats"])), strict=True))
    trained, updates = module.apply(variables, *inputs, train=True, mutable=["batch_stats"])
    assert all((a != b).any() for a, b in zip(*map(jax.tree.leaves, (before, updates["batch_stats"])), strict=True))
    assert not np.allclose(out, trained)
    # In evaluation an example stands alone; in training its neighbours count.
    part = tuple(x if x is None else x[:2] for x in inputs)
    np.testing.assert_allclose(module.apply(variables, *part, train=False), out[:2], atol=1e-5)
    assert not np.allclose(module.apply(variables, *part, train=True, mutable=["batch_stats"])[0], trained[:2])


def test_a_wide_network_stops_at_its_maximum():
    params, _ = shapes_of(
        Discriminator((64, 64, 3), width=16, max_width=32), jnp.zeros((1, 64, 64, 3)), None, train=False
    )
    assert [shape[-1] for shape in kernels(params)] == [16, 32, 32, 32]
    params, _ = shapes_of(ConvVAE((64, 64, 3), width=16, max_width=32), jnp.zeros((1, 64, 64, 3)), None)
    assert [s for n, s in params.items() if n.startswith("down") and n.endswith("kernel")] == [
        (3, 3, 3, 16), (3, 3, 16, 32), (3, 3, 32, 32), (3, 3, 32, 32)
    ]  # fmt: skip
