"""Diffusion and flow matching: a network that removes noise, and samplers that start from noise alone.

The path says how data becomes noise, the prediction what the network gives at a noise level, levels and weighting which
of them training looks at; DDPM, score SDEs, EDM, rectified flow and flow matching are points of that space, which
docs/diffusion.md lists. MeanFlow and consistency training are two more objectives on it. Images are in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from genjax import rng
from genjax.data.geometric import LABELS, geometric
from genjax.families.averaging import power_averages, power_lengths
from genjax.families.base import Family, Optimizer, condition_classes, learning_rates, new_state, to_signed
from genjax.families.latents import slerp
from genjax.families.single import single_train_step
from genjax.networks.log_variance import LogVariance
from genjax.objectives.denoising import Network, Objective, Setting
from genjax.processes.grids import Grid
from genjax.processes.levels import Levels, Weighting, learned_weighting
from genjax.processes.paths import Path
from genjax.processes.predictions import Prediction
from genjax.samplers.base import Denoiser, Sampler
from genjax.samplers.guidance import check_interval, guided
from genjax.samplers.likelihood import bits_per_dim as to_bits
from genjax.samplers.likelihood import log_likelihood
from genjax.types import Array, Batch, ImageSpec, Params, check_fraction

NETWORK = "denoiser"


def network_arguments(spec: ImageSpec, conditional: bool = False) -> dict[str, Any]:
    """What the data decides about the network."""
    return {"image_shape": spec.shape, "num_classes": condition_classes(spec, conditional)}


def diffusion(
    spec: ImageSpec,
    network: nn.Module,
    optimizer: Optimizer,
    slice_size: int,
    path: Path,
    prediction: Prediction,
    objective: Objective,
    sampler: Sampler,
    grid: Grid,
    levels: Levels | None = None,
    weighting: Weighting | None = None,
    accumulation: int = 1,
    conditional: bool = False,
    label_dropout: float = 0.0,
    guidance_scale: float = 1.0,
    guidance_interval: tuple[float, ...] = (0.0, math.inf),
    self_conditioning: bool = False,
    learned_weight: bool = False,
    augmentation: float = 0.0,
    ema_lengths: tuple[float, ...] = (0.05,),
) -> Family:
    """A family that learns to denoise.

    Args:
      spec: of the images.
      network: ``(x [B,H,W,C'], noise [B,K], label [B] or None, augment [B,A] or None, train=) -> [B,H,W,C]``.
      optimizer: of the network.
      slice_size: examples in one slice.
      path: from data to noise.
      prediction: what the network's output means.
      objective: what is minimised.
      sampler, grid: how ``sample`` goes from noise to data, and at which levels.
      levels: which t training draws, where the objective wants to be told.
      weighting: how much the error at each t counts, likewise.
      accumulation: slices whose gradients make one update.
      conditional: whether the network is given the label.
      label_dropout: share of the labels withheld in training, so that there is an unconditional denoiser too.
      guidance_scale: of classifier-free guidance (Ho & Salimans 2022) in ``sample``; 1 for none, which halves the work.
      guidance_interval: noise levels (lower, upper) in which it acts (Kynkäänniemi et al. 2024).
      self_conditioning: whether the network sees an estimate of x_0 beside x_t (Chen et al. 2023), its own without one.
      learned_weight: whether the loss is also divided by a learnt variance of each level (Karras et al. 2024, eq. 14).
      augmentation: probability of each geometric change that the network is told of (Karras et al. 2022, appendix F.2).
      ema_lengths: relative widths of the averages of the weights (Karras et al. 2024, section 3); evaluation uses the
        first, ``--ema`` rebuilds others from them. Empty for no average.
    """
    check_fraction(label_dropout=label_dropout, augmentation=augmentation)
    check_interval(guidance_interval)
    _check_labels(conditional, label_dropout, guidance_scale)
    setting = Setting(path, prediction, levels, weighting)
    objective.check(setting)
    if sampler.takes not in objective.offers:
        raise ValueError(f"sampler takes a {sampler.takes}; this objective offers: {', '.join(objective.offers)}")
    averages = power_averages(NETWORK, ema_lengths)
    hparams = learning_rates({NETWORK: optimizer})
    if conditional:
        hparams["label_dropout"] = label_dropout
    log_variance = LogVariance()
    values = math.prod(spec.shape)

    def network_of(variables: Params, labels: Array | None, **options: Any) -> Network:
        """The network as objective and samplers see it: scaled input, level as the embedding wants it, own estimate."""

        def apply(x: Array, t: Array, *s: Array) -> Array:
            noise = prediction.noise_input(path, t)
            numbers = [noise, *(noise - prediction.noise_input(path, other) for other in s)]
            return network.apply(variables, x, jnp.stack(numbers, -1), labels, **{"train": False, **options})

        def call(x: Array, t: Array, *s: Array) -> Array:
            scaled = x * prediction.input_scale(path, t)[:, None, None, None]
            if not self_conditioning:
                return apply(scaled, t, *s)
            blind = apply(jnp.concatenate([scaled, jnp.zeros_like(x)], -1), t, *s)
            estimate = jnp.clip(prediction.denoised(path, jax.lax.stop_gradient(blind), x, t), -1.0, 1.0)
            if options.get("rngs"):  # in training, every other example goes without
                given = jax.random.bernoulli(options["rngs"]["estimate"], 0.5, (x.shape[0], 1, 1, 1))
                estimate = jnp.where(given, estimate, 0.0)
            return apply(jnp.concatenate([scaled, estimate], -1), t, *s)

        return call

    def labels_of(batch: Batch) -> Array | None:
        return batch["label"] if conditional else None

    def draw(keys: Array, step: Array):
        return jax.vmap(lambda key: objective.draw(setting, key, spec.shape, step))(keys)

    def init(key, batch):
        x = to_signed(jnp.asarray(batch["image"][:1]))
        label = jnp.zeros((1,), jnp.int32) if conditional else None
        augment = jnp.zeros((1, LABELS)) if augmentation else None
        x = jnp.concatenate([x, x], -1) if self_conditioning else x
        numbers = jnp.zeros((1, objective.times))
        variables = dict(network.init(rng.stream(key, "params"), x, numbers, label, augment, train=False))
        if learned_weight:
            extra = log_variance.init(rng.stream(key, "log_variance"), jnp.zeros((1,)))["params"]
            variables["params"] = {**variables["params"], "log_variance": extra}
        return new_state({NETWORK: variables}, {NETWORK: optimizer}, hparams, averages)

    def train_objective(variables, batch, key, hparams, step):
        x0, labels = to_signed(batch["image"]), labels_of(batch)
        count = x0.shape[0]
        options: dict[str, Any] = {"train": True}
        options["rngs"] = {name: rng.stream(key, name) for name in ("dropout", "estimate")}
        if augmentation:
            x0, options["augment_BA"] = geometric(rng.stream(key, "augment"), x0, augmentation)
        if labels is not None:
            dropped = jax.random.uniform(rng.stream(key, "label"), (count,)) < hparams["label_dropout"]
            labels = jnp.where(dropped, spec.classes, labels)
        drawn = draw(jax.random.split(rng.stream(key, "draw"), count), step)
        loss, metrics = objective.loss(setting, network_of(variables, labels, **options), x0, drawn)
        if learned_weight:
            own = {"params": variables["params"]["log_variance"]}
            loss = learned_weighting(loss, log_variance.apply(own, prediction.noise_input(path, drawn["t"])))
        return loss, metrics, {name: value for name, value in variables.items() if name != "params"}

    def eval_step(state, batch, key):
        """The training loss without dropout and augmentation, at levels and noise of each example's own key."""
        drawn = draw(rng.example_keys(key, batch["index"]), state.step)
        net = network_of(state.averaged(NETWORK), labels_of(batch))
        loss, metrics = objective.loss(setting, net, to_signed(batch["image"]), drawn)
        return {"loss": loss, **metrics}

    def denoiser(state, labels: Array | None) -> Denoiser:
        """(x_t, t) -> x_0, guided."""

        def plain(labels: Array | None) -> Denoiser:
            net = network_of(state.averaged(NETWORK), labels)
            return lambda x, t: objective.denoised(setting, net, x, t)

        if labels is None or guidance_scale == 1.0:
            return plain(labels)
        unlabelled = plain(jnp.full_like(labels, spec.classes))
        return guided(plain(labels), unlabelled, guidance_scale, path, (guidance_interval[0], guidance_interval[1]))

    def from_noise(state, noise: Array, keys: Array, labels: Array | None) -> Array:
        """Images in [0, 1] from standard normal ``noise`` ``[B, H, W, C]``; ``keys`` are for the sampler's noise."""
        t = grid.points(path, sampler.points)
        function: Callable[..., Array] = denoiser(state, labels)
        if sampler.takes == "flow_map":
            net = network_of(state.averaged(NETWORK), labels)
            function = lambda x, t, s: objective.flow_map(setting, net, x, t, s)  # noqa: E731
        x0 = sampler(function, path, t, path.sigma(t[0]) * noise, keys)
        return jnp.clip(0.5 * (x0 + 1.0), 0.0, 1.0)

    def noise_of(keys: Array, name: str) -> Array:
        return jax.vmap(lambda key: jax.random.normal(rng.stream(key, name), spec.shape))(keys)

    def sample(state, keys, labels):
        steps = jax.vmap(lambda key: rng.stream(key, "steps"))(keys)
        return from_noise(state, noise_of(keys, "noise"), steps, labels if conditional else None)

    def interpolate(state, batch, keys, num):
        """Images along the great circle between two noises per row, ``[B, num, H, W, C]`` (Song et al. 2021, DDIM)."""
        first, second = (noise_of(keys, name).reshape(-1, values) for name in ("first", "second"))
        noise = slerp(first, second, num).reshape(-1, *spec.shape)
        labels = jnp.repeat(batch["label"], num) if conditional else None
        images = from_noise(state, noise, jnp.repeat(keys, num), labels)  # one key a row: the sampler's noise is shared
        return images.reshape(-1, num, *spec.shape)

    def bits_per_dim(state, batch, key, num):
        """Bits per value by the probability-flow ODE in ``num`` steps of Heun's method, ``[B]``; an upper bound."""
        keys = rng.example_keys(key, batch["index"])
        uniform = jax.vmap(lambda k: jax.random.uniform(rng.stream(k, "dequantize"), spec.shape))(keys)
        x = (batch["image"] + uniform - 0.5) / 127.5 - 1.0
        net = network_of(state.averaged(NETWORK), labels_of(batch))
        t = jnp.flip(grid.points(path, num + 1))
        probes = jax.vmap(lambda k: rng.stream(k, "probe"))(keys)
        denoise = lambda x, t: objective.denoised(setting, net, x, t)  # noqa: E731
        log_prob = log_likelihood(denoise, path, t, x, probes, method="heun")
        return to_bits(log_prob, spec.pixels, bin_width=2 / 255)

    steps = sampler.evaluations
    repeats = (2 if conditional and guidance_scale != 1.0 else 1) * (2 if self_conditioning else 1)
    return Family(
        name="diffusion",
        spec=spec,
        microbatches=accumulation,
        slice_size=slice_size,
        conditional=conditional,
        init=init,
        train_step=single_train_step(NETWORK, train_objective, optimizer, accumulation, averages),
        eval_step=eval_step,
        sample=sample,
        hparams=hparams,
        extras={"interpolate": interpolate, "bits_per_dim": bits_per_dim},
        headline=("loss", "squared_error"),
        ema_lengths=power_lengths(NETWORK, ema_lengths),
        evaluations=None if steps is None else steps * repeats,
    )


def _check_labels(conditional: bool, label_dropout: float, guidance_scale: float) -> None:
    """Raises ValueError for label settings that contradict each other."""
    if not 0 <= guidance_scale < math.inf:
        raise ValueError(f"guidance_scale={guidance_scale} is out of range; accepted: at least 0, 1 for none")
    if not conditional and (label_dropout or guidance_scale != 1.0):
        raise ValueError("label_dropout and guidance_scale are about labels; accepted without conditional: 0 and 1")
    if guidance_scale != 1.0 and not label_dropout:
        raise ValueError("guidance_scale needs a network trained with label_dropout above 0")
