"""Generative adversarial networks (Goodfellow et al. 2014): min_G max_D E[log D(x)] + E[log(1 - D(G(z)))].

Images are scaled to [-1, 1], the range of the generator's tanh, before the discriminator sees them.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from genjax import rng
from genjax.families.adversarial import DISCRIMINATOR, GENERATOR, adversarial_train_step
from genjax.families.averaging import exponential_average
from genjax.families.base import Family, Optimizer, condition_classes, learning_rates, new_state, to_signed
from genjax.families.latents import slerp
from genjax.objectives.adversarial import GENERATOR_LOSSES, discriminator_loss
from genjax.types import Array, Batch, ImageSpec, Key, UserError, check_positive, lookup


def network_arguments(spec: ImageSpec, conditional: bool = False) -> dict[str, Any]:
    """What the data decides about both networks."""
    return {"image_shape": spec.shape, "num_classes": condition_classes(spec, conditional)}


def batches_per_step(discriminator_updates: int = 1) -> int:
    """Real batches that one step consumes."""
    if discriminator_updates < 1:
        raise UserError(f"model.discriminator_updates={discriminator_updates}; accepted: at least 1")
    return discriminator_updates


def gan(
    spec: ImageSpec,
    generator: nn.Module,
    discriminator: nn.Module,
    generator_optimizer: Optimizer,
    discriminator_optimizer: Optimizer,
    slice_size: int,
    accumulation: int = 1,
    conditional: bool = False,
    latent_dim: int = 100,
    loss: str = "non_saturating",
    discriminator_updates: int = 1,
    ema_decay: float = 0.0,
) -> Family:
    """A family of two players.

    Args:
      spec: of the images.
      generator: ``(z [B,D], label [B] or None, train) -> images in [-1,1]``.
      discriminator: ``(images, label [B] or None, train) -> logits [B]``, positive for real.
      generator_optimizer, discriminator_optimizer: one for each.
      slice_size: real images in one slice, and generated ones.
      accumulation: slices whose gradients make one update of either player; batch statistics are those of a slice.
      conditional: whether both networks are given the label (Mirza & Osindero 2014).
      latent_dim: of z ~ N(0, I).
      loss: the generator's, "non_saturating" or "minimax".
      discriminator_updates: for each generator update.
      ema_decay: of the averaged generator that samples, 0 for none.
    """
    check_positive(latent_dim=latent_dim)
    generator_loss = lookup(GENERATOR_LOSSES, loss, "model.loss")
    optimizers = {GENERATOR: generator_optimizer, DISCRIMINATOR: discriminator_optimizer}
    averages = exponential_average(GENERATOR, ema_decay)

    def labels_of(batch: Batch) -> Array | None:
        return batch["label"] if conditional else None

    def generate(variables, key: Key, labels: Array | None, count: int):
        """Images of ``count`` fresh latents in training mode, and the new batch statistics."""
        z = jax.random.normal(rng.stream(key, "latent"), (count, latent_dim))
        fake, updates = generator.apply(
            variables, z, labels, train=True, mutable=[name for name in variables if name != "params"]
        )
        return fake, dict(updates)

    def judge(variables, images: Array, labels: Array | None, key: Key):
        """Logits in training mode, and the discriminator's new collections."""
        logits, updates = discriminator.apply(
            variables,
            images,
            labels,
            train=True,
            mutable=[name for name in variables if name != "params"],
            rngs={"dropout": key},
        )
        return logits, dict(updates)

    def discriminator_player(g_variables, d_variables, batch, key):
        labels = labels_of(batch)
        count = batch["image"].shape[0]
        fake, _ = generate(g_variables, key, labels, count)
        fake = jax.lax.stop_gradient(fake)
        real_logits, updates = judge(d_variables, to_signed(batch["image"]), labels, rng.stream(key, "real"))
        fake_logits, updates = judge({**d_variables, **updates}, fake, labels, rng.stream(key, "fake"))
        metrics = {"d_real": jax.nn.sigmoid(real_logits), "d_fake": jax.nn.sigmoid(fake_logits)}
        return discriminator_loss(real_logits, fake_logits), metrics, updates

    def generator_player(g_variables, d_variables, batch, key):
        labels = labels_of(batch)
        fake, updates = generate(g_variables, key, labels, batch["image"].shape[0])
        logits, _ = judge(d_variables, fake, labels, rng.stream(key, "fake"))
        return generator_loss(logits), {}, updates

    def init(key, batch):
        image = to_signed(jnp.asarray(batch["image"][:1]))
        label = jnp.zeros((1,), jnp.int32) if conditional else None
        z = jnp.zeros((1, latent_dim))
        networks = {
            GENERATOR: generator.init(rng.stream(key, GENERATOR), z, label, train=False),
            DISCRIMINATOR: discriminator.init(rng.stream(key, DISCRIMINATOR), image, label, train=False),
        }
        return new_state(networks, optimizers, learning_rates(optimizers), averages)

    def from_latents(state, z: Array, labels: Array | None) -> Array:
        images = generator.apply(state.averaged(GENERATOR), z, labels, train=False)
        return 0.5 * (images + 1.0)

    def sample(state, keys, labels):
        return from_latents(state, latents(keys, latent_dim), labels if conditional else None)

    def eval_step(state, batch, key):
        """The discriminator on real images and on as many generated ones, and the value function."""
        variables = state.variables(DISCRIMINATOR)
        labels = labels_of(batch)
        fake = 2.0 * sample(state, rng.example_keys(key, batch["index"]), labels) - 1.0
        real_logits = discriminator.apply(variables, to_signed(batch["image"]), labels, train=False)
        fake_logits = discriminator.apply(variables, fake, labels, train=False)
        return {
            "d_real": jax.nn.sigmoid(real_logits),
            "d_fake": jax.nn.sigmoid(fake_logits),
            "value": -discriminator_loss(real_logits, fake_logits),
        }

    def interpolate(state, batch, keys, num):
        """Images along the great circle between two latents per row, ``[B, num, H, W, C]`` (White 2016)."""
        first = latents(jax.vmap(lambda key: rng.stream(key, "first"))(keys), latent_dim)
        second = latents(jax.vmap(lambda key: rng.stream(key, "second"))(keys), latent_dim)
        z = slerp(first, second, num)
        labels = jnp.repeat(batch["label"], num) if conditional else None
        return from_latents(state, z.reshape(-1, latent_dim), labels).reshape(-1, num, *spec.shape)

    return Family(
        name="gan",
        spec=spec,
        microbatches=discriminator_updates * accumulation,
        slice_size=slice_size,
        conditional=conditional,
        init=init,
        train_step=adversarial_train_step(
            generator_player, discriminator_player, optimizers, discriminator_updates, accumulation, averages
        ),
        eval_step=eval_step,
        sample=sample,
        hparams=learning_rates(optimizers),
        extras={"interpolate": interpolate},
        headline=("discriminator_loss", "generator_loss"),
    )


def latents(keys: Array, latent_dim: int) -> Array:
    """z ~ N(0, I) for each key, ``[B, latent_dim]``."""
    return jax.vmap(lambda key: jax.random.normal(key, (latent_dim,)))(keys)
