"""What p(x|z) can be: how bytes become data, what the decoder's outputs mean, and how to look at them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from genjax.objectives.elbo import bernoulli_log_prob, discretized_logistic_log_prob, gaussian_log_prob
from genjax.types import Array, Key


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """One model of an image given the decoder's outputs.

    Attributes:
      outputs_per_value: what the decoder gives for each image value.
      data: ``(key or keys [B], image uint8 [B,H,W,C]) -> x float32``, the data as this likelihood sees it; with one key
        per example the result does not depend on the batch.
      network_input: ``x -> float32`` in about [-1, 1] for the encoder.
      log_prob: ``(x, outputs [B,H,W,C,outputs_per_value]) -> [B,H,W,C]`` in nats.
      mean: ``outputs -> images [B,H,W,C]`` in [0, 1].
      bits_per_dim: ``(log p(x) [B], values in an image) -> [B]`` where that means something, else None.
    """

    outputs_per_value: int
    data: Callable[[Key, Array], Array]
    network_input: Callable[[Array], Array]
    log_prob: Callable[[Array, Array], Array]
    mean: Callable[[Array], Array]
    bits_per_dim: Callable[[Array, int], Array] | None


def _uniform(key: Key, shape: tuple[int, ...]) -> Array:
    """Uniform noise from one key, or from one key per example."""
    if key.ndim == 0:
        return jax.random.uniform(key, shape)
    return jax.vmap(lambda k: jax.random.uniform(k, shape[1:]))(key)


def _binarize(key: Key, image: Array) -> Array:
    """Bits with p(1) = pixel / 255, drawn anew at each call (Salakhutdinov & Murray 2008)."""
    return (_uniform(key, image.shape) * 255.0 < image.astype(jnp.float32)).astype(jnp.float32)


def _dequantize(key: Key, image: Array) -> Array:
    """(k + u) / 256 with u ~ U[0, 1), in [0, 1) (Theis et al. 2016, section 3.1)."""
    # 16 bits of u fit beside the 8 of k; with more, the sum could be rounded up to the next value.
    u = jnp.floor(_uniform(key, image.shape) * 2.0**16) / 2.0**16
    return (image.astype(jnp.float32) + u) / 256.0


def _split(outputs: Array, lowest: float) -> tuple[Array, Array]:
    """Location and log-scale; the latter is kept above ``lowest`` so that a flat region can't drive it to -inf."""
    return outputs[..., 0], jnp.maximum(outputs[..., 1], lowest)


def _gaussian_log_prob(x: Array, outputs: Array) -> Array:
    mean, log_scale = _split(outputs, -5.0)
    return gaussian_log_prob(x, jax.nn.sigmoid(mean), 2.0 * log_scale)


LIKELIHOODS = {
    "bernoulli": Likelihood(
        outputs_per_value=1,
        data=_binarize,
        network_input=lambda x: 2.0 * x - 1.0,
        log_prob=lambda x, outputs: bernoulli_log_prob(x, outputs[..., 0]),
        mean=lambda outputs: jax.nn.sigmoid(outputs[..., 0]),
        bits_per_dim=None,
    ),
    "discretized_logistic": Likelihood(
        outputs_per_value=2,
        data=lambda key, image: image.astype(jnp.float32) / 127.5 - 1.0,
        network_input=lambda x: x,
        log_prob=lambda x, outputs: discretized_logistic_log_prob(x, *_split(outputs, -7.0)),
        mean=lambda outputs: jnp.clip(0.5 * (outputs[..., 0] + 1.0), 0.0, 1.0),
        bits_per_dim=lambda log_prob, values: -log_prob / (values * math.log(2.0)),
    ),
    "gaussian": Likelihood(
        outputs_per_value=2,
        data=_dequantize,
        network_input=lambda x: 2.0 * x - 1.0,
        log_prob=_gaussian_log_prob,
        mean=lambda outputs: jax.nn.sigmoid(outputs[..., 0]),
        # A density on [0, 1]; 256 values share it, hence the 8 bits (Theis et al. 2016).
        bits_per_dim=lambda log_prob, values: 8.0 - log_prob / (values * math.log(2.0)),
    ),
}
