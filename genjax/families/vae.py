"""Variational autoencoders (Kingma & Welling 2014): maximise E_q[log p(x|z)] - beta KL(q(z|x) || p(z)).

With several draws of z it is an importance-weighted autoencoder, which maximises the mean of log (1/K) sum_k w_k,
with weights w_k = p(x|z_k) p(z_k) / q(z_k|x) (Burda et al. 2016).

The likelihood decides what an image is: Bernoulli models bits drawn anew at every look (p(bit) = pixel / 255), the
discretised logistic the 256 values themselves, the Gaussian a density over pixels with uniform noise added.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from genjax import rng
from genjax.families.averaging import exponential_average
from genjax.families.base import Family, Optimizer, TrainState, condition_classes, learning_rates, new_state
from genjax.families.likelihoods import LIKELIHOODS, Likelihood
from genjax.families.single import single_train_step
from genjax.objectives.elbo import gaussian_kl, gaussian_log_prob, importance_bound
from genjax.types import Array, Batch, ImageSpec, Key, check_positive, lookup

NETWORK = "vae"


def network_arguments(spec: ImageSpec, conditional: bool = False, likelihood: str = "bernoulli") -> dict[str, Any]:
    """What the data and the likelihood decide about the network."""
    return {
        "image_shape": spec.shape,
        "num_classes": condition_classes(spec, conditional),
        "outputs_per_value": lookup(LIKELIHOODS, likelihood, "model.likelihood").outputs_per_value,
    }


@dataclasses.dataclass(frozen=True)
class _Model:
    """A network with a likelihood: q(z|x) and p(x|z), of which everything else is made."""

    network: Any
    likelihood: Likelihood
    spec: ImageSpec
    conditional: bool

    def labels(self, batch: Batch) -> Array | None:
        return batch["label"] if self.conditional else None

    def data(self, batch: Batch, key: Key) -> tuple[Array, Array]:
        """The images as the likelihood sees them, and a key for each example."""
        keys = rng.example_keys(key, batch["index"])
        return self.likelihood.data(jax.vmap(lambda k: rng.stream(k, "data"))(keys), batch["image"]), keys

    def noise(self, keys: Array, name: str) -> Array:
        """Of the latents, ``[B, D]``, from a key for each example."""
        return jax.vmap(lambda key: jax.random.normal(rng.stream(key, name), (self.network.latent_dim,)))(keys)

    def encode(self, variables, x: Array, labels: Array | None) -> tuple[Array, Array]:
        """Mean and log-variance of q(z|x), each ``[B, D]``."""
        return self.network.apply(variables, self.likelihood.network_input(x), labels, method="encode")

    def judged(self, state: TrainState, batch: Batch, key: Key):
        """Variables, images, labels, q(z|x) and a key for each example, for evaluation."""
        x, keys = self.data(batch, key)
        variables, labels = state.averaged(NETWORK), self.labels(batch)
        return variables, x, labels, self.encode(variables, x, labels), keys

    def images(self, variables, z: Array, labels: Array | None) -> Array:
        """The mean of p(x|z), ``[B, H, W, C]`` in [0, 1]."""
        return self.likelihood.mean(self.network.apply(variables, z, labels, method="decode"))

    def draw(self, variables, x: Array, labels: Array | None, posterior: tuple[Array, Array], noise: Array):
        """log p(x|z) and log q(z|x) - log p(z), each ``[K, B]``, of z ~ q(z|x) made of noise ``[K, B, D]``."""
        mean, logvar = posterior
        z = mean + jnp.exp(0.5 * logvar) * noise
        many, count = noise.shape[:2]
        labels = None if labels is None else jnp.tile(labels, many)
        outputs = self.network.apply(variables, z.reshape(many * count, -1), labels, method="decode")
        # One long axis of image values: over three short ones the sum takes three times as long on a CPU.
        outputs = outputs.reshape(many, count, self.spec.pixels, -1)
        log_likelihood = jnp.sum(self.likelihood.log_prob(x.reshape(count, self.spec.pixels), outputs), -1)
        ratio = gaussian_log_prob(z, mean, logvar) - gaussian_log_prob(z, 0.0, jnp.zeros_like(z))
        return log_likelihood, jnp.sum(ratio, -1)


def vae(
    spec: ImageSpec,
    network: nn.Module,
    optimizer: Optimizer,
    slice_size: int,
    accumulation: int = 1,
    conditional: bool = False,
    likelihood: str = "bernoulli",
    beta: float = 1.0,
    kl_warmup_steps: int = 0,
    num_draws: int = 1,
    ema_decay: float = 0.0,
) -> Family:
    """A family with an encoder, a decoder and a Gaussian prior.

    Args:
      spec: of the images.
      network: has ``encode(x, label) -> mean, logvar`` and ``decode(z, label) -> [B,H,W,C,outputs_per_value]``.
      optimizer: of the network.
      slice_size: examples in one slice.
      accumulation: slices whose gradients make one update.
      conditional: whether encoder and decoder are given the label.
      likelihood: "bernoulli", "discretized_logistic" or "gaussian".
      beta: weight of the KL term in training (Higgins et al. 2017); evaluation always reports the ELBO, beta 1.
      kl_warmup_steps: steps over which the weight rises linearly from 0 to beta (Bowman et al. 2016).
      num_draws: K, draws of z for each example in training. One: the ELBO, with the KL in closed form. More: the bound
        of importance weights, where the weight of the KL acts on log q(z|x) - log p(z).
      ema_decay: of the averaged weights that evaluation and sampling use, 0 for none.
    """
    check_positive(num_draws=num_draws)
    chosen = lookup(LIKELIHOODS, likelihood, "model.likelihood")
    model = _Model(network, chosen, spec, conditional)
    averages = exponential_average(NETWORK, ema_decay)
    hparams = {**learning_rates({NETWORK: optimizer}), "beta": beta}

    def init(key, batch):
        x = chosen.data(rng.example_keys(key, jnp.zeros((1,), jnp.int32)), jnp.asarray(batch["image"][:1]))
        label = jnp.zeros((1,), jnp.int32) if conditional else None
        variables = network.init(rng.stream(key, "params"), chosen.network_input(x), label)
        return new_state({NETWORK: variables}, {NETWORK: optimizer}, hparams, averages)

    def objective(variables, batch, key, hparams, step):
        labels = model.labels(batch)
        x = chosen.data(rng.stream(key, "data"), batch["image"])
        posterior = model.encode(variables, x, labels)
        noise = jax.random.normal(rng.stream(key, "posterior"), (num_draws, *posterior[0].shape))
        draws, ratios = model.draw(variables, x, labels, posterior, noise)
        log_likelihood, kl = jnp.mean(draws, 0), gaussian_kl(*posterior)
        warmup = jnp.minimum(1.0, (step + 1.0) / kl_warmup_steps) if kl_warmup_steps else 1.0
        weight = hparams["beta"] * warmup
        loss = -(log_likelihood - weight * kl) if num_draws == 1 else -importance_bound(draws - weight * ratios)
        metrics = {"elbo": log_likelihood - kl, "log_likelihood": log_likelihood, "kl": kl, "kl_weight": weight}
        return loss, metrics, {name: value for name, value in variables.items() if name != "params"}

    def eval_step(state, batch, key):
        variables, x, labels, posterior, keys = model.judged(state, batch, key)
        draws, _ = model.draw(variables, x, labels, posterior, model.noise(keys, "posterior")[None])
        log_likelihood, kl = draws[0], gaussian_kl(*posterior)
        elbo = log_likelihood - kl
        out = {"elbo": elbo, "log_likelihood": log_likelihood, "kl": kl}
        return out | ({"bits_per_dim": chosen.bits_per_dim(elbo, spec.pixels)} if chosen.bits_per_dim else {})

    def bound(state, batch, key, num):
        """log (1/num) sum of ``num`` importance weights (Burda et al. 2016, eq. 8), ``[B]``, one draw at a time."""
        variables, x, labels, posterior, keys = model.judged(state, batch, key)
        keys = jax.vmap(lambda k: rng.stream(k, "importance"))(keys)

        def body(total, number):
            noise = model.noise(jax.vmap(lambda k: jax.random.fold_in(k, number))(keys), "posterior")
            log_likelihood, ratio = model.draw(variables, x, labels, posterior, noise[None])
            return jnp.logaddexp(total, log_likelihood[0] - ratio[0]), None

        total, _ = jax.lax.scan(body, jnp.full(keys.shape, -jnp.inf), jnp.arange(num))
        return total - jnp.log(num)

    def sample(state, keys, labels):
        """The mean of p(x|z) for z ~ p(z)."""
        return model.images(state.averaged(NETWORK), model.noise(keys, "prior"), labels if conditional else None)

    return Family(
        name="vae",
        spec=spec,
        microbatches=accumulation,
        slice_size=slice_size,
        conditional=conditional,
        init=init,
        train_step=single_train_step(NETWORK, objective, optimizer, accumulation, averages),
        eval_step=eval_step,
        sample=sample,
        hparams=hparams,
        extras={**_between_images_and_latents(model), "importance_bound": bound},
        headline=("elbo", "kl"),
    )


def _between_images_and_latents(model: _Model) -> dict[str, Callable[..., Array]]:
    """What evaluators may ask an autoencoder for."""

    def decode(state, z, labels):
        """The mean of p(x|z) at latents ``[B, D]``, ``[B, H, W, C]`` in [0, 1]; labels int32 ``[B]`` or None."""
        return model.images(state.averaged(NETWORK), z, labels)

    def encode(state, batch, key):
        """The mean of q(z|x), float32 ``[B, D]``."""
        return model.judged(state, batch, key)[3][0]

    def reconstruct(state, batch, key):
        """The mean of p(x|z) at the mean of q(z|x), ``[B, H, W, C]`` in [0, 1]."""
        return decode(state, encode(state, batch, key), model.labels(batch))

    def interpolate(state, batch, keys, num):
        """Images on the line from each example's posterior mean to the next one's, ``[B, num, H, W, C]``."""
        x = model.likelihood.data(jax.vmap(lambda k: rng.stream(k, "data"))(keys), batch["image"])
        mean, _ = model.encode(state.averaged(NETWORK), x, model.labels(batch))
        t = jnp.linspace(0.0, 1.0, num)[None, :, None]
        z = (1 - t) * mean[:, None] + t * jnp.roll(mean, -1, axis=0)[:, None]
        labels = jnp.repeat(batch["label"], num) if model.conditional else None
        return decode(state, z.reshape(-1, z.shape[-1]), labels).reshape(-1, num, *model.spec.shape)

    return {"encode": encode, "decode": decode, "reconstruct": reconstruct, "interpolate": interpolate}
