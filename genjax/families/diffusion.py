"""Diffusion and flow matching: a network that removes noise, and samplers that start from noise alone.

The path says how data becomes noise, the prediction what the network gives at a noise level, levels and weighting which
of them training looks at; DDPM, score SDEs, EDM, rectified flow and flow matching are points of that space, which
docs/diffusion.md lists. MeanFlow and consistency training are two more objectives on it. Images are in [-1, 1].
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from genjax import rng
from genjax.data.geometric import LABELS, geometric
from genjax.families.averaging import power_averages, power_lengths
from genjax.families.base import (
    GUIDE,
    Family,
    Optimizer,
    TrainState,
    condition_classes,
    learning_rates,
    new_state,
    to_signed,
)
from genjax.families.latents import slerp
from genjax.families.single import single_train_step
from genjax.networks.log_variance import LogVariance
from genjax.objectives.denoising import Draw, Network, Objective, Setting
from genjax.processes.grids import Grid, KarrasGrid, UniformGrid
from genjax.processes.levels import Levels, Weighting, learned_weighting
from genjax.processes.paths import Path, expand
from genjax.processes.predictions import Prediction
from genjax.samplers.base import Denoiser, Sampler
from genjax.samplers.guidance import check_interval, guided
from genjax.samplers.likelihood import bits_per_dim as to_bits
from genjax.samplers.likelihood import log_likelihood
from genjax.types import Array, Batch, ImageSpec, Key, Params, check_fraction

NETWORK = "denoiser"


def network_arguments(spec: ImageSpec, conditional: bool = False) -> dict[str, Any]:
    """What the data decides about the network."""
    return {"image_shape": spec.shape, "num_classes": condition_classes(spec, conditional)}


def dynamic_settings(conditional: bool = False) -> tuple[str, ...]:
    """The settings that live in ``state.hparams``."""
    return ("label_dropout",) if conditional else ()


@dataclasses.dataclass(frozen=True)
class Model:
    """A network and all that is done with it: one setting of every question that ``diffusion`` answers.

    Attributes:
      spec: of the images.
      network: ``(x [B,H,W,C'], noise [B,K], label [B] or None, augment [B,A] or None, train=) -> [B,H,W,C]``.
      path: from data to noise.
      prediction: what the network's output means.
      objective: what is minimised.
      sampler, grid: how ``sample`` goes from noise to data, and at which levels.
      levels: which t training draws, where the objective wants to be told.
      weighting: how much the error at each t counts, likewise.
      conditional: whether the network is given the label.
      label_dropout: share of the labels withheld in training, so that there is an unconditional denoiser too.
      guidance_scale: of guidance in ``sample``; 1 for none, which halves the work.
      guidance_interval: noise levels (lower, upper) in which it acts (Kynkäänniemi et al. 2024).
      guide: ``Family.denoise`` of the model away from which guidance moves (autoguidance, Karras et al. 2024b); None
        for this network without its label (classifier-free guidance, Ho & Salimans 2022).
      self_conditioning: whether the network sees an estimate of x_0 beside x_t (Chen et al. 2023), its own without one.
      learned_weight: whether the loss is also divided by a learnt variance of each level (Karras et al. 2024, eq. 14).
      augmentation: probability of each geometric change that the network is told of (Karras et al. 2022, appendix F.2).
      ema_lengths: relative widths of the averages of the weights (Karras et al. 2024, section 3); evaluation uses the
        first, ``--ema`` rebuilds others from them. Empty for no average.

    Raises:
      ValueError: settings that are out of range or contradict each other.
    """

    spec: ImageSpec
    network: nn.Module
    path: Path
    prediction: Prediction
    objective: Objective
    sampler: Sampler
    grid: Grid
    levels: Levels | None
    weighting: Weighting | None
    conditional: bool
    label_dropout: float
    guidance_scale: float
    guidance_interval: tuple[float, ...]
    self_conditioning: bool
    learned_weight: bool
    augmentation: float
    ema_lengths: tuple[float, ...]
    guide: Callable[[TrainState, Array, Array, Array], Array] | None = None

    def __post_init__(self):
        check_fraction(label_dropout=self.label_dropout, augmentation=self.augmentation)
        check_interval(self.guidance_interval)
        if not 0 <= self.guidance_scale < math.inf:
            raise ValueError(f"guidance_scale={self.guidance_scale} is out of range; accepted: at least 0, 1 for none")
        if self.guide is None:
            _check_labels(self.conditional, self.label_dropout, self.guidance_scale)
        elif self.sampler.takes != "denoiser":
            raise ValueError(f"a sampler that takes a {self.sampler.takes} can't be guided; accepted: other samplers")
        self.objective.check(self.setting)
        if self.sampler.takes not in self.objective.offers:
            offers = ", ".join(self.objective.offers)
            raise ValueError(f"sampler takes a {self.sampler.takes}; this objective offers: {offers}")

    @property
    def setting(self) -> Setting:
        return Setting(self.path, self.prediction, self.levels, self.weighting)

    def family(self, optimizer: Optimizer, slice_size: int, accumulation: int) -> Family:
        averages = power_averages(NETWORK, self.ema_lengths)
        hparams = learning_rates({NETWORK: optimizer})
        if self.conditional:
            hparams["label_dropout"] = self.label_dropout

        def init(key: Key, batch: Batch) -> TrainState:
            return new_state({NETWORK: self.variables(key, batch)}, {NETWORK: optimizer}, hparams, averages)

        steps = self.sampler.evaluations
        twice = [self.guidance_scale != 1.0, self.self_conditioning]

        def guided(weak: Family, scale: float) -> Family:
            model = dataclasses.replace(self, guide=weak.denoise, guidance_scale=scale)
            return model.family(optimizer, slice_size, accumulation)

        return Family(
            name="diffusion",
            spec=self.spec,
            microbatches=accumulation,
            slice_size=slice_size,
            conditional=self.conditional,
            init=init,
            train_step=single_train_step(NETWORK, self.loss, optimizer, accumulation, averages),
            eval_step=self.eval_step,
            sample=self.sample,
            hparams=hparams,
            extras={"interpolate": self.interpolate, "bits_per_dim": self.bits_per_dim},
            headline=("loss", "squared_error"),
            ema_lengths=power_lengths(NETWORK, self.ema_lengths),
            evaluations=None if steps is None else steps * 2 ** sum(twice),
            denoise=self.denoise,
            guided=guided,
        )

    def variables(self, key: Key, batch: Batch) -> Params:
        """The network's variables before the first step."""
        x = to_signed(jnp.asarray(batch["image"][:1]))
        label = jnp.zeros((1,), jnp.int32) if self.conditional else None
        augment = jnp.zeros((1, LABELS)) if self.augmentation else None
        x = jnp.concatenate([x, x], -1) if self.self_conditioning else x
        numbers = jnp.zeros((1, self.objective.times))
        variables = dict(self.network.init(rng.stream(key, "params"), x, numbers, label, augment, train=False))
        if self.learned_weight:
            extra = LogVariance().init(rng.stream(key, "log_variance"), jnp.zeros((1,)))["params"]
            variables["params"] = {**variables["params"], "log_variance": extra}
        return variables

    def network_of(self, variables: Params, labels: Array | None, **options: Any) -> Network:
        """The network as objective and samplers see it: scaled input, level as the embedding wants it, own estimate."""

        def apply(x: Array, t: Array, *s: Array) -> Array:
            noise = self.prediction.noise_input(self.path, t)
            numbers = [noise, *(noise - self.prediction.noise_input(self.path, other) for other in s)]
            return self.network.apply(variables, x, jnp.stack(numbers, -1), labels, **{"train": False, **options})

        def call(x: Array, t: Array, *s: Array) -> Array:
            scaled = x * self.prediction.input_scale(self.path, t)[:, None, None, None]
            if not self.self_conditioning:
                return apply(scaled, t, *s)
            blind = jax.lax.stop_gradient(apply(jnp.concatenate([scaled, jnp.zeros_like(x)], -1), t, *s))
            estimate = jnp.clip(self.prediction.denoised(self.path, blind, x, t), -1.0, 1.0)
            if options.get("rngs"):  # in training, every other example goes without
                given = jax.random.bernoulli(options["rngs"]["estimate"], 0.5, (x.shape[0], 1, 1, 1))
                estimate = jnp.where(given, estimate, 0.0)
            return apply(jnp.concatenate([scaled, estimate], -1), t, *s)

        return call

    def labels_of(self, batch: Batch) -> Array | None:
        return batch["label"] if self.conditional else None

    def draw(self, keys: Array, step: Array) -> Draw:
        return jax.vmap(lambda key: self.objective.draw(self.setting, key, self.spec.shape, step))(keys)

    def loss(self, variables: Params, batch: Batch, key: Key, hparams: Mapping[str, Array], step: Array):
        """What ``single_train_step`` wants: loss ``[B]``, metrics, and the network's other collections."""
        x0, labels = to_signed(batch["image"]), self.labels_of(batch)
        count = x0.shape[0]
        options: dict[str, Any] = {"train": True}
        options["rngs"] = {name: rng.stream(key, name) for name in ("dropout", "estimate")}
        if self.augmentation:
            x0, options["augment_BA"] = geometric(rng.stream(key, "augment"), x0, self.augmentation)
        if labels is not None:
            dropped = jax.random.uniform(rng.stream(key, "label"), (count,)) < hparams["label_dropout"]
            labels = jnp.where(dropped, self.spec.classes, labels)
        drawn = self.draw(jax.random.split(rng.stream(key, "draw"), count), step)
        loss, metrics = self.objective.loss(self.setting, self.network_of(variables, labels, **options), x0, drawn)
        if self.learned_weight:
            own = {"params": variables["params"]["log_variance"]}
            log_variance = LogVariance().apply(own, self.prediction.noise_input(self.path, drawn["t"]))
            loss = learned_weighting(loss, log_variance)
        return loss, metrics, {name: value for name, value in variables.items() if name != "params"}

    def eval_step(self, state: TrainState, batch: Batch, key: Key) -> dict[str, Array]:
        """The training loss without dropout and augmentation, at levels and noise of each example's own key."""
        drawn = self.draw(rng.example_keys(key, batch["index"]), state.step)
        net = self.network_of(state.averaged(NETWORK), self.labels_of(batch))
        loss, metrics = self.objective.loss(self.setting, net, to_signed(batch["image"]), drawn)
        return {"loss": loss, **metrics}

    def denoiser(self, state: TrainState, labels: Array | None) -> Denoiser:
        """(x_t, t) -> x_0 of the averaged network, without guidance."""
        net = self.network_of(state.averaged(NETWORK), labels)
        return lambda x, t: self.objective.denoised(self.setting, net, x, t)

    def scale(self, t: Array) -> Array:
        """sqrt(alpha^2 + sigma^2): ``Family.denoise`` wants x_t divided by it, which suits every path and level."""
        return jnp.hypot(self.path.alpha(t), self.path.sigma(t))

    def denoise(self, state: TrainState, u: Array, level: Array, labels: Array) -> Array:
        """``Family.denoise`` by this path and network."""
        t = jnp.clip(self.path.t_of_noise_level(level), self.path.t_min, self.path.t_max)
        denoise = self.denoiser(state, labels if self.conditional else None)
        return denoise(expand(self.scale(t), u) * u, t)

    def sampled_function(self, state: TrainState, labels: Array) -> Callable[..., Array]:
        """What the sampler takes: the flow map, or the denoiser with guidance."""
        if self.sampler.takes == "flow_map":
            net = self.network_of(state.averaged(NETWORK), labels if self.conditional else None)
            return lambda x, t, s: self.objective.flow_map(self.setting, net, x, t, s)
        plain = self.denoiser(state, labels if self.conditional else None)
        if self.guidance_scale == 1.0:
            return plain
        lower, upper = self.guidance_interval
        return guided(plain, self.weak_denoiser(state, labels), self.guidance_scale, self.path, (lower, upper))

    def weak_denoiser(self, state: TrainState, labels: Array) -> Denoiser:
        """(x_t, t) -> x_0 of what guidance moves away from."""
        if self.guide is None:
            return self.denoiser(state, jnp.full_like(labels, self.spec.classes))
        guide, frozen = self.guide, state.frozen[GUIDE]
        return lambda x, t: guide(frozen, x / expand(self.scale(t), x), self.path.noise_level(t), labels)

    def from_noise(self, state: TrainState, noise: Array, keys: Array, labels: Array) -> Array:
        """Images in [0, 1] from standard normal ``noise`` ``[B, H, W, C]``; ``keys`` are for the sampler's noise."""
        t = self.grid.points(self.path, self.sampler.points)
        function = self.sampled_function(state, labels)
        x0 = self.sampler(function, self.path, t, self.path.sigma(t[0]) * noise, keys)
        return jnp.clip(0.5 * (x0 + 1.0), 0.0, 1.0)

    def noise_of(self, keys: Array, name: str) -> Array:
        return jax.vmap(lambda key: jax.random.normal(rng.stream(key, name), self.spec.shape))(keys)

    def sample(self, state: TrainState, keys: Array, labels: Array) -> Array:
        steps = jax.vmap(lambda key: rng.stream(key, "steps"))(keys)
        return self.from_noise(state, self.noise_of(keys, "noise"), steps, labels)

    def interpolate(self, state: TrainState, batch: Batch, keys: Array, num: int) -> Array:
        """Images along the great circle between two noises per row, ``[B, num, H, W, C]`` (Song et al. 2021, DDIM)."""
        first, second = (self.noise_of(keys, name).reshape(len(keys), -1) for name in ("first", "second"))
        noise = slerp(first, second, num).reshape(-1, *self.spec.shape)
        labels = jnp.repeat(batch["label"], num)
        # One key for a row: its images share the noise of a stochastic sampler.
        images = self.from_noise(state, noise, jnp.repeat(keys, num), labels)
        return images.reshape(-1, num, *self.spec.shape)

    def bits_per_dim(self, state: TrainState, batch: Batch, key: Key, num: int) -> Array:
        """Bits per value by the probability-flow ODE in ``num`` steps of Heun's method, ``[B]``; an upper bound."""
        keys = rng.example_keys(key, batch["index"])
        uniform = jax.vmap(lambda k: jax.random.uniform(rng.stream(k, "dequantize"), self.spec.shape))(keys)
        x = (batch["image"] + uniform - 0.5) / 127.5 - 1.0
        # In levels that a solver wants, whatever grid the sampler has: from the path's smallest to its largest.
        spacing = KarrasGrid() if self.path.exploding else UniformGrid()
        t = jnp.flip(spacing.points(self.path, num + 1))
        probes = jax.vmap(lambda k: rng.stream(k, "probe"))(keys)
        denoise = self.denoiser(state, self.labels_of(batch))
        log_prob = log_likelihood(denoise, self.path, t, x, probes, method="heun")
        return to_bits(log_prob, self.spec.pixels, bin_width=2 / 255)


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
      optimizer: of the network.
      slice_size: examples in one slice.
      accumulation: slices whose gradients make one update.
      spec and the rest: the attributes of ``Model``.
    """
    model = Model(
        spec=spec,
        network=network,
        path=path,
        prediction=prediction,
        objective=objective,
        sampler=sampler,
        grid=grid,
        levels=levels,
        weighting=weighting,
        conditional=conditional,
        label_dropout=label_dropout,
        guidance_scale=guidance_scale,
        guidance_interval=guidance_interval,
        self_conditioning=self_conditioning,
        learned_weight=learned_weight,
        augmentation=augmentation,
        ema_lengths=ema_lengths,
    )
    return model.family(optimizer, slice_size, accumulation)


def _check_labels(conditional: bool, label_dropout: float, guidance_scale: float) -> None:
    """Raises ValueError for label settings that contradict each other."""
    if not conditional and (label_dropout or guidance_scale != 1.0):
        raise ValueError("label_dropout and guidance_scale are about labels; accepted without conditional: 0 and 1")
    if guidance_scale != 1.0 and not label_dropout:
        raise ValueError("guidance_scale needs a network trained with label_dropout above 0")
