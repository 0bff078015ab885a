"""Denoising networks and their parts: sizes, definitions, what the result depends on, what only training may change."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import tree
from genjax.networks import DENOISERS, DiT, JiT, UNet
from genjax.networks import dit as transformer
from genjax.networks import unet as convolutional
from genjax.networks.embeddings import rotary_grid
from tests.test_denoising_parts import normal

SHAPES = [(28, 28, 1), (32, 32, 3), (64, 64, 3), (8, 12, 1)]
KEY = jax.random.key(0)
TINY = {
    "unet": {"width": 8, "multipliers": (1, 2), "blocks": 1},
    "dit": {"patch": 4, "depth": 2, "width": 16, "heads": 2},
    "jit": {"patch": 4, "depth": 4, "width": 16, "heads": 2, "bottleneck": 4, "context": 3, "context_start": 1},
}


def build(name, shape=(8, 12, 1), classes=3, **options):
    return DENOISERS[name](shape, classes, **{**TINY[name], **options})


def inputs(shape=(8, 12, 1), count=3, numbers=1, extra=0):
    """Images, noise levels, labels, augmentation labels."""
    images = normal(0, count, *shape[:2], shape[2] + extra)
    return images, normal(1, count, numbers), jnp.arange(count, dtype=jnp.int32), normal(2, count, 2)


def shapes_of(module, *arguments):
    """Parameters by name and result, without computing either."""
    variables = jax.eval_shape(lambda: module.init(KEY, *arguments, train=False))
    out = jax.eval_shape(lambda v: module.apply(v, *arguments, train=False), variables)
    return tree.named_leaves(variables["params"]), out


def parameters(module, *arguments):
    """Parameters away from the start, at which the network gives zero whatever it sees; without running it."""
    rng = np.random.default_rng(5)

    def fill(path, leaf):
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        if path[-1].key == "kernel":
            return jnp.asarray(noise / np.sqrt(np.prod(leaf.shape[:-1])))
        return jnp.asarray(0.3 * noise + ("scale" in path[-1].key))

    variables = jax.eval_shape(lambda: module.init(KEY, *arguments, train=False))
    return jax.tree_util.tree_map_with_path(fill, variables)


@functools.cache
def compiled(module, train):
    return jax.jit(lambda variables, rngs, *a: module.apply(variables, *a, train=train, rngs=rngs))


def result(module, variables, *arguments, train=False, rngs=None):
    return np.asarray(compiled(module, train)(variables, rngs, *arguments))


# Sizes.


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", DENOISERS)
def test_networks_fit_every_size(name, shape):
    for classes, numbers, extra, dtype in ((0, 1, 0, jnp.float32), (3, 2, shape[2], jnp.bfloat16)):
        x, noise, label, augment = inputs(shape, 2, numbers, extra)
        module = build(name, shape, classes, dtype=dtype)
        params, out = shapes_of(module, x, noise, label if classes else None, augment)
        assert (out.shape, out.dtype) == ((2, *shape), jnp.float32)
        assert {leaf.dtype for leaf in params.values()} == {jnp.dtype(jnp.float32)}


def size(module, channels, classes=True, augment=None):
    x = jnp.zeros((1, *module.image_shape[:2], channels))
    label = jnp.zeros(1, jnp.int32) if classes else None
    augment = None if augment is None else jnp.zeros((1, augment))
    return tree.size(jax.eval_shape(lambda: module.init(KEY, x, jnp.zeros((1, 1)), label, augment, train=False)))


def is_edm_for_cifar10(**changes):
    settings = {"width": 128, "multipliers": (2, 2, 2), "blocks": 4, "attention": (16,), "dropout": 0.13, **changes}
    return size(UNet((32, 32, 3), 0, **settings), 3, classes=False, augment=9) == 55_733_891


def test_the_unet_of_edm_is_among_the_settings():
    assert is_edm_for_cifar10()
    for broken in ({"attention": ()}, {"blocks": 3}, {"adaptive_scale": True}, {"embedding": "fourier"}):
        assert not is_edm_for_cifar10(**broken)
    # With classes there is a vector for each, and the one for none in place of a bias.
    settings = {"multipliers": (2, 2, 2), "blocks": 4, "attention": (16,)}
    conditional = UNet((32, 32, 3), 10, 128, **settings)
    assert size(conditional, 3, augment=9) == 55_733_891 + 11 * 128


@pytest.mark.parametrize(
    ("depth", "width", "heads", "millions"),
    [(12, 384, 6, 33), (12, 768, 12, 130), (24, 1024, 16, 458), (28, 1152, 16, 675)],
)
def test_dit_has_the_sizes_of_the_paper(depth, width, heads, millions):
    settings = {"patch": 2, "depth": depth, "width": width, "heads": heads}
    assert round(size(DiT((32, 32, 4), 1000, **settings), 4) / 1e6) == millions
    assert DiT((32, 32, 4), 1000, patch=2) == DiT((32, 32, 4), 1000, patch=2, depth=12, width=384, heads=6)


@pytest.mark.parametrize(
    ("depth", "width", "heads", "start", "bottleneck", "millions"),
    [(12, 768, 12, 4, 128, 131), (24, 1024, 16, 8, 128, 459), (32, 1280, 16, 10, 256, 952)],
)
def test_jit_has_the_sizes_of_the_paper(depth, width, heads, start, bottleneck, millions):
    settings = {"patch": 16, "depth": depth, "width": width, "heads": heads, "bottleneck": bottleneck}
    module = JiT((256, 256, 3), 1000, **settings, context=32, context_start=start)
    assert round(size(module, 3) / 1e6) == millions


def test_swiglu_has_as_many_parameters_as_gelu():
    x = jnp.zeros((1, 2, 48))
    sizes = [
        tree.size(jax.eval_shape(lambda kind=kind: transformer.MLP(192, kind).init(KEY, x, False)))
        for kind in transformer.MLPS
    ]
    assert abs(sizes[0] - sizes[1]) < 0.01 * sizes[0]


@pytest.mark.parametrize("channels", [1, 3, 4, 7, 8, 37, 40, 96, 120, 128, 136, 240, 256, 1024])
def test_groups_divide_the_channels(channels):
    groups = convolutional.norm_groups(channels)
    assert channels % groups == 0 and groups <= 32 and (groups == 1 or channels // groups >= 4)
    if channels in (128, 256, 1024):
        assert groups == 32


# What the result depends on.


def depends(module, index, arguments, change):
    """Whether changing the last image's argument number ``index`` changes its result; no other's may change."""
    variables = parameters(module, *arguments)
    first = result(module, variables, *arguments)
    changed = [a if i != index else change(a) for i, a in enumerate(arguments)]
    second = result(module, variables, *changed)
    np.testing.assert_allclose(first[:-1], second[:-1], rtol=0, atol=1e-5 * np.abs(first).max())
    return np.abs(first[-1] - second[-1]).max() > 1e-3 * np.abs(first).max()


def last(function):
    return lambda a: a.at[-1].set(function(a[-1]))


def second_number(a):
    return a.at[-1, 1].add(0.3)


def extra_channel(a):
    return a.at[-1, ..., -1].add(1.0)


CHANGES = {
    "image": (0, last(lambda a: a + 0.5)),
    "extra channel": (0, extra_channel),
    "first number": (1, last(lambda a: a.at[0].add(0.3))),
    "second number": (1, second_number),
    "label": (2, last(lambda a: a * 0)),
    "no label": (2, last(lambda a: a * 0 + 3)),
    "augmentation": (3, last(lambda a: a + 1.0)),
}


@pytest.mark.parametrize("name", DENOISERS)
def test_each_image_depends_on_all_that_is_said_of_it_and_on_no_other_image(name):
    module, arguments = build(name), inputs(numbers=2, extra=1)
    assert all(depends(module, index, arguments, change) for index, change in CHANGES.values())


class Careless(nn.Module):
    """A network that forgets part of what it is told, or mixes the images of a batch."""

    forgets: str = ""

    @nn.compact
    def __call__(self, x, noise, label, augment, *, train):
        if self.forgets == "second number":
            noise = noise[:, :1]
        if self.forgets == "augmentation":
            augment = None
        if self.forgets == "extra channel":
            x = x[..., :1]
        if self.forgets == "no label":
            label = label % 3
        if self.forgets == "others":
            noise = noise + noise.mean(0)
        return build("dit")(x, noise, label, augment, train=train)


@pytest.mark.parametrize("forgets", ["second number", "augmentation", "extra channel", "no label"])
def test_a_careless_network_is_found_out(forgets):
    index, change = CHANGES[forgets]
    arguments = inputs(numbers=2, extra=1)
    if forgets == "no label":
        change = last(lambda a: a * 0 + 3 + a % 3)  # for 2 it is 5, and 5 % 3 == 2
    assert not depends(Careless(forgets), index, arguments, change)


def test_a_network_that_mixes_images_is_found_out():
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        depends(Careless("others"), 1, inputs(numbers=2, extra=1), last(lambda a: a + 0.3))


@pytest.mark.parametrize("name", DENOISERS)
def test_labels_are_needed_with_classes_and_ignored_without(name):
    x, noise, label, _ = inputs()
    with pytest.raises(ValueError, match="3 classes and was given no labels"):
        jax.eval_shape(lambda: build(name).init(KEY, x, noise, train=False))
    unconditional = build(name, classes=0)
    with_label, without = (shapes_of(unconditional, x, noise, given)[0] for given in (label, None))
    assert with_label.keys() == without.keys()


@pytest.mark.parametrize("name", DENOISERS)
def test_the_result_is_zero_at_first_and_every_parameter_gets_a_gradient_later(name):
    module, arguments = build(name), inputs()
    variables = jax.jit(lambda: module.init(KEY, *arguments, train=False))()
    assert not result(module, variables, *arguments).any()
    variables = parameters(module, *arguments)
    gradients = jax.jit(jax.grad(lambda v: jnp.sum(jnp.sin(module.apply(v, *arguments, train=False)))))(variables)
    unused = [n for n, g in tree.named_leaves(gradients).items() if not jnp.abs(g).max() > 0]
    assert not unused


# Training only; memory; precision.


@pytest.mark.parametrize("name", DENOISERS)
def test_dropout_acts_in_training_only(name):
    module, arguments = build(name, dropout=0.4), inputs()
    variables = parameters(module, *arguments)
    plain = result(module, variables, *arguments)
    noisy = [
        result(module, variables, *arguments, train=True, rngs={"dropout": jax.random.key(seed)}) for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert not np.allclose(noisy[0], noisy[2]) and not np.allclose(noisy[0], plain)
    np.testing.assert_allclose(plain, result(build(name), variables, *arguments), rtol=1e-6)


def same_with_remat(module, other, arguments):
    variables = parameters(module, *arguments)

    def both(module):
        def loss(v):
            return jnp.sum(jnp.sin(module.apply(v, *arguments, train=True, rngs={"dropout": KEY})))

        return jax.jit(jax.value_and_grad(loss))(variables)

    pairs = zip(*(jax.tree.leaves(both(m)) for m in (module, other)), strict=True)
    return all(np.allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(a).max()) for a, b in pairs)


@pytest.mark.parametrize("name", DENOISERS)
def test_less_memory_leaves_parameters_and_gradients_alone(name):
    arguments = inputs()
    params, again = (shapes_of(build(name, remat=remat), *arguments)[0] for remat in (False, True))
    assert {n: p.shape for n, p in params.items()} == {n: p.shape for n, p in again.items()}
    small = {"dropout": 0.2, **({"multipliers": (1,)} if name == "unet" else {})}
    assert same_with_remat(build(name, **small), build(name, **small, remat=True), arguments)


def test_the_comparison_sees_other_gradients():
    assert not same_with_remat(build("dit"), build("dit", qk_norm=False, norm="rms"), inputs())


@pytest.mark.parametrize("name", DENOISERS)
def test_half_precision_is_close(name):
    arguments = inputs()
    variables = parameters(build(name), *arguments)
    exact, half = (result(build(name, dtype=dtype), variables, *arguments) for dtype in (None, jnp.bfloat16))
    assert 0 < np.linalg.norm(exact - half) < 0.05 * np.linalg.norm(exact)


def knows_positions(module):
    """Whether moving the patches of an image does more than move the result's."""
    x, noise, label, _ = inputs((8, 8, 1))
    variables = parameters(module, x, noise, label)
    apply = compiled.__wrapped__(module, False)  # anew, for what it calls may have been replaced
    out, moved = (np.asarray(apply(variables, None, a, noise, label)) for a in (x, jnp.roll(x, 4, axis=1)))
    return not np.allclose(np.roll(out, 4, axis=1), moved, rtol=0, atol=1e-3 * np.abs(out).max())


@pytest.mark.parametrize("positions", transformer.POSITIONS)
def test_transformers_know_positions(positions, monkeypatch):
    module = build("dit", (8, 8, 1), positions=positions)
    assert knows_positions(module)
    monkeypatch.setattr(transformer, "sincos_grid", lambda H, W, D: np.zeros((H * W, D), np.float32))
    monkeypatch.setattr(transformer, "rotary_grid", lambda H, W, D: rotary_grid(1, 1, D, before=H * W - 1))
    assert not knows_positions(module)


@pytest.mark.parametrize(
    "options", [{"norm": "rms"}, {"mlp": "swiglu"}, {"positions": "rope"}, {"qk_norm": True}, {"mlp_ratio": 2.0}]
)
def test_every_option_of_the_transformer_changes_it(options):
    arguments = inputs()
    plain, other = build("dit"), build("dit", **options)
    params, again = (shapes_of(module, *arguments)[0] for module in (plain, other))
    if {n: p.shape for n, p in params.items()} == {n: p.shape for n, p in again.items()}:
        variables = parameters(plain, *arguments)
        first, second = (result(module, variables, *arguments) for module in (plain, other))
        assert not np.allclose(first, second, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    "options",
    [{"embedding": "fourier"}, {"adaptive_scale": True}, {"skip_scale": 1.0}, {"resampling": "fir"}, {"patch": 2},
     {"attention": (8,)}, {"heads": 2}, {"head_channels": 4}],
)  # fmt: skip
def test_every_option_of_the_unet_changes_it(options):
    arguments = inputs()
    plain, other = build("unet"), build("unet", **options)
    params, again = (shapes_of(module, *arguments)[0] for module in (plain, other))
    if {n: p.shape for n, p in params.items()} == {n: p.shape for n, p in again.items()}:
        variables = parameters(plain, *arguments)
        first, second = (result(module, variables, *arguments) for module in (plain, other))
        assert not np.allclose(first, second, rtol=1e-3, atol=1e-3)


def test_heads_by_channels_are_heads_by_number():
    arguments = inputs()
    variables = parameters(build("unet", heads=4), *arguments)
    first, second = (result(build("unet", **o), variables, *arguments) for o in ({"heads": 4}, {"head_channels": 4}))
    np.testing.assert_array_equal(first, second)


def test_attention_stands_where_the_settings_say():
    def attending(**options):
        params, _ = shapes_of(UNet((28, 28, 1), 0, 8, (1, 2, 2), blocks=2, **options), *inputs((28, 28, 1))[:2])
        return sorted(name.removesuffix("/qkv/kernel") for name in params if name.endswith("qkv/kernel"))

    assert attending() == ["middle_0"]
    assert attending(attention=(14,)) == ["decoder_1_2", "encoder_1_0", "encoder_1_1", "middle_0"]


def test_jit_has_a_bottleneck_and_class_tokens():
    x, noise, label, _ = inputs()
    params, _ = shapes_of(build("jit"), x, noise, label)
    assert params["bottleneck/kernel"].shape == (16, 4) and "bottleneck/bias" not in params
    assert params["embed/kernel"].shape == (4, 16) and params["context"].shape == (3, 16)
    assert "context" not in shapes_of(build("jit", classes=0), x, noise)[0]
    params, _ = shapes_of(build("jit", bottleneck=0, context=0), x, noise, label)
    assert params["embed/kernel"].shape == (16, 16) and not {"context", "bottleneck/kernel"} & set(params)


def test_dropout_of_jit_is_in_the_middle_half():
    arguments = inputs()
    for depth, noisy in ((4, True), (1, False)):  # of one block, none is in the middle half
        module = build("jit", depth=depth, context_start=0, dropout=0.5)
        variables = parameters(module, *arguments)
        first, second = (
            result(module, variables, *arguments, train=True, rngs={"dropout": jax.random.key(s)}) for s in (0, 1)
        )
        assert np.allclose(first, second) != noisy


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: UNet((28, 28, 1), multipliers=(1, 2, 2, 2)), "28x28 does not fit 4 multipliers .* multiples of 8"),
        (lambda: UNet((28, 28, 1), attention=(16,)), r"attention=\(16,\): no grid has height 16; accepted: 28, 14, 7"),
        (lambda: UNet((28, 28, 1), width=7), "width=7 does not fit; accepted: an even number from 4"),
        (lambda: UNet((28, 28, 1), multipliers=()), "multipliers=0 is too small"),
        (lambda: UNet((28, 28, 1), multipliers=(1, 0)), r"multipliers\[1\]=0 is too small"),
        (lambda: UNet((28, 28, 1), heads=3), "heads=3 does not fit attention over 256 channels; accepted: a divisor"),
        (lambda: UNet((28, 28, 1), head_channels=48), "head_channels=48 does not fit attention over 256 channels"),
        (lambda: UNet((28, 28, 1), head_channels=-1), "head_channels=-1 does not fit"),
        (lambda: UNet((28, 28, 1), embedding="learned"), "'learned' is unknown; accepted: positional, fourier"),
        (lambda: UNet((28, 28, 1), resampling="bilinear"), "resampling='bilinear' is unknown; accepted: plain, fir"),
        (lambda: UNet((28, 28, 1), dropout=1.0), "dropout=1.0 is out of range"),
        (lambda: DiT((28, 28, 1), patch=8), "patch=8 does not fit images of 28x28; accepted: a divisor"),
        (lambda: DiT((28, 28, 1), heads=5), "width=384 does not fit heads=5; accepted: a multiple of 20"),
        (lambda: DiT((28, 28, 1), norm="batch"), "norm='batch' is unknown; accepted: layer, rms"),
        (lambda: DiT((28, 28, 1), mlp="relu"), "mlp='relu' is unknown; accepted: gelu, swiglu"),
        (lambda: DiT((28, 28, 1), positions="learned"), "positions='learned' is unknown; accepted: sincos, rope"),
        (lambda: DiT((28, 28, 1), mlp_ratio=0.0), "mlp_hidden=0 is too small"),
        (lambda: DiT((28, 28, 1), dropout=-0.1), "dropout=-0.1 is out of range"),
        (lambda: JiT((28, 28, 1), bottleneck=-1), "bottleneck=-1 is out of range; accepted: at least 0"),
        (lambda: JiT((28, 28, 1), 10, context_start=12), "context_start=12 names no block; accepted: 0 to 11"),
        (lambda: JiT((28, 28, 1), depth=0), "depth=0 is too small"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_raise_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
