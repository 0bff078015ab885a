"""The blocks of the denoising networks against their definitions written out, which broken blocks fail."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from genjax.networks import dit as transformer
from genjax.networks import unet as convolutional
from tests.test_denoising_networks import KEY, parameters
from tests.test_denoising_parts import attention_by_definition, normal


def affine(x, part):
    return x @ part["kernel"] + part["bias"]


def plain_conv(x, part):
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, part["kernel"], (1, 1), "SAME", dimension_numbers=dims) + part["bias"]


def norm_of(x, part):
    return nn.GroupNorm(convolutional.norm_groups(x.shape[-1]), epsilon=1e-6).apply({"params": part}, x)


def multi_head(n, part, heads):
    qkv = affine(n, part).reshape(*n.shape[:2], 3, heads, -1)
    return attention_by_definition(*(qkv[:, :, i] for i in range(3))).reshape(n.shape)


def unet_block(p, x, emb, resample, adaptive, heads, skip_scale):
    """Karras et al. 2022, figure 5 and table 7, with the library's own operations."""
    B, H, W, _ = x.shape

    def resize(x):
        if resample == "down":
            return x.reshape(B, H // 2, 2, W // 2, 2, -1).mean((2, 4))
        return x.repeat(2, 1).repeat(2, 2) if resample == "up" else x

    h = plain_conv(resize(nn.silu(norm_of(x, p["norm_in"]))), p["conv_in"])
    said = affine(emb, p["emb"])[:, None, None]
    if adaptive:
        scale, shift = jnp.split(said, 2, -1)
        h = nn.silu(norm_of(h, p["norm_out"]) * (1 + scale) + shift)
    else:
        h = nn.silu(norm_of(h + said, p["norm_out"]))
    h = plain_conv(h, p["conv_out"])
    x = affine(resize(x), p["skip"]) if "skip" in p else x
    x = (x + h) * skip_scale
    if heads:
        tokens = norm_of(x, p["norm_attention"]).reshape(B, -1, x.shape[-1])
        x = (x + affine(multi_head(tokens, p["qkv"], heads), p["attention_out"]).reshape(x.shape)) * skip_scale
    return x


def unet_block_error(features=8, resample="", adaptive=False, heads=0, skip_scale=0.5, broken=None, swap=False):
    """Largest relative difference from the definition, of which ``broken`` and ``swap`` change a part."""
    x, emb = normal(0, 2, 4, 6, 8), normal(1, 2, 5)
    module = convolutional.Block(features, resample, "plain", heads, adaptive, skip_scale)
    variables = parameters(module, x, emb)
    params = dict(variables["params"])
    if swap:  # shift for scale
        params["emb"] = jax.tree.map(lambda leaf: jnp.roll(leaf, features, -1), params["emb"])
    settings = {"resample": resample, "adaptive": adaptive, "heads": heads, "skip_scale": skip_scale}
    expected = unet_block(params, x, emb, **{**settings, **(broken or {})})
    return np.abs(module.apply(variables, x, emb, False) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    "settings",
    [{}, {"features": 12, "heads": 3}, {"resample": "up"}, {"resample": "up", "features": 4, "adaptive": True},
     {"resample": "down"}, {"resample": "down", "features": 16, "heads": 2, "skip_scale": 1.0}],
)  # fmt: skip
def test_the_block_of_the_unet_is_its_definition(settings):
    assert unet_block_error(**settings) < 1e-5


def test_the_definition_rejects_broken_blocks():
    assert unet_block_error(adaptive=True, heads=2) < 1e-5
    assert unet_block_error(adaptive=True, heads=2, swap=True) > 1e-2
    assert unet_block_error(adaptive=True, heads=2, broken={"heads": 1}) > 1e-2
    assert unet_block_error(adaptive=True, heads=2, broken={"skip_scale": 0.4}) > 1e-2


def dit_block(p, x, emb, heads, norm=True, gate=True):
    """Peebles & Xie 2023, figure 3 (right), with the library's own operations."""
    scale_1, shift_1, gate_1, scale_2, shift_2, gate_2 = jnp.split(affine(emb, p["modulation"])[:, None], 6, -1)
    normalize = nn.LayerNorm(use_bias=False, use_scale=False) if norm else (lambda x: x)
    n = normalize.apply({}, x) if norm else x
    # The transformer's product gives queries, keys and values head by head, the definition one after the other.
    sort = lambda leaf: leaf.reshape(*leaf.shape[:-1], heads, 3, -1).swapaxes(-3, -2).reshape(leaf.shape)  # noqa: E731
    qkv = jax.tree.map(sort, dict(p["attention"]["qkv"]))
    h = affine(multi_head(n * (1 + scale_1) + shift_1, qkv, heads), p["attention"]["out"])
    x = x + (gate_1 if gate else 1) * h
    n = normalize.apply({}, x) if norm else x
    h = affine(nn.gelu(affine(n * (1 + scale_2) + shift_2, p["mlp"]["in"])), p["mlp"]["out"])
    return x + (gate_2 if gate else 1) * h


def test_the_block_of_the_transformer_is_its_definition_and_at_first_the_identity():
    x, emb = normal(0, 2, 5, 8), normal(1, 2, 8)
    module = transformer.Block(2, 16)
    start = jax.jit(lambda: module.init(KEY, x, emb, None, False))()
    np.testing.assert_array_equal(module.apply(start, x, emb, None, False), x)
    variables = parameters(module, x, emb, None)
    out = module.apply(variables, x, emb, None, False)
    np.testing.assert_allclose(out, dit_block(variables["params"], x, emb, 2), rtol=1e-4, atol=1e-4)
    for broken in ({"heads": 1}, {"heads": 2, "norm": False}, {"heads": 2, "gate": False}):
        assert not np.allclose(out, dit_block(variables["params"], x, emb, **broken), rtol=1e-2, atol=1e-2)


def test_the_residual_block_passes_its_input_on_at_first():
    x, emb = normal(0, 2, 4, 4, 8), normal(1, 2, 5)
    for heads, factor in ((0, 0.5), (2, 0.25)):
        module = convolutional.Block(8, heads=heads, skip_scale=0.5)
        out = jax.jit(lambda module=module: module.init_with_output(KEY, x, emb, False)[0])()
        np.testing.assert_allclose(out, factor * x, rtol=1e-6)


# Settings.
