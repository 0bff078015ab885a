"""genjax as its runner trains: resident data, order of examples computed on the device, metrics left there.

Needs jax, flax, optax and NumPy.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.speed import workload
from benchmarks.speed.worker import Job, lazy
from benchmarks.speed.workload import LATENT, Settings
from genjax import rng
from genjax.families.base import Family, Optimizer
from genjax.families.classifier import classifier
from genjax.families.diffusion import diffusion
from genjax.families.gan import gan
from genjax.families.vae import vae
from genjax.networks import CNN, ConvVAE, Discriminator, Generator, UNet
from genjax.objectives.denoising import Denoising
from genjax.processes import EvenGrid, Linear, LogitNormal, Velocity, VelocityWeighting
from genjax.samplers import Euler
from genjax.train.optim import adam
from genjax.train.sharding import data_mesh, replicated, select_platform
from genjax.train.steps import Trainer, compile_functions
from genjax.types import ImageSpec


def optimizer(network: str, b1: float = 0.9) -> Optimizer:
    return adam(workload.RATE[network], total_steps=1, b1=b1, eps=workload.EPSILON)  # constant: no total matters


def family(network: str, batch: int) -> Family:
    spec = ImageSpec(workload.SIZE, workload.SIZE, workload.CHANNELS, workload.CLASSES)
    if network == "cnn":
        module = CNN(spec.classes, workload.CNN_FEATURES, workload.CNN_STRIDES)
        return classifier(spec, module, optimizer(network), batch)
    if network == "vae":
        module = ConvVAE(spec.shape, latent_dim=LATENT, width=workload.VAE_WIDTH, hidden=0)
        return vae(spec, module, optimizer(network), batch)
    if network == "unet":
        return flow_matching(spec, batch)
    return gan(
        spec,
        Generator(spec.shape, width=workload.GAN_WIDTH),
        Discriminator(spec.shape, width=workload.GAN_WIDTH, dropout=workload.DROPOUT),
        *(optimizer(network, workload.GAN_B1) for _ in range(2)),
        slice_size=batch,
        latent_dim=LATENT,
    )


def flow_matching(spec: ImageSpec, batch: int) -> Family:
    """The velocity of straight paths from data to noise, given the class."""
    return diffusion(
        spec,
        UNet(
            spec.shape,
            spec.classes,
            width=workload.UNET_WIDTH,
            multipliers=workload.UNET_MULTIPLIERS,
            blocks=2,
            attention=(workload.UNET_ATTENTION,),
            adaptive_scale=True,
            patch=workload.UNET_PATCH,
        ),
        optimizer("unet"),
        batch,
        path=Linear(t_min=workload.T_MIN),
        prediction=Velocity(),
        objective=Denoising(),
        sampler=Euler(num_steps=workload.EVALUATIONS["unet"]),
        grid=EvenGrid(),
        levels=LogitNormal(),
        weighting=VelocityWeighting(),
        conditional=True,
        label_dropout=workload.LABEL_DROPOUT,
        ema_lengths=(workload.AVERAGE_LENGTH,),
    )


class Training:
    """A state that moves on with every call."""

    def __init__(self, settings: Settings):
        model = family(settings.network, settings.batch)
        mesh = data_mesh(1)
        self.trainer = Trainer(model, mesh, settings.examples, augment=lambda key, images: images)
        images, labels = workload.examples(settings.examples)
        self.data = jax.device_put({"image": images, "label": labels}, replicated(mesh))
        self.state = self.trainer.init(0, {"image": images[:1], "label": labels[:1]})
        self.draw = compile_functions(model).sample
        self.unit = settings.options["steps_per_call"]
        self.samples = workload.SAMPLES.get(settings.network, 0)

    def train(self, count: int) -> None:
        metrics: Any = None
        for _ in range(count // self.unit):
            self.state, metrics = self.trainer.run_resident(self.state, self.data, self.unit)
        jax.block_until_ready((self.state, metrics))

    def sample(self, count: int) -> None:
        assert self.draw is not None
        labels = jnp.zeros((self.samples,), jnp.int32)
        images = None
        for i in range(count):
            keys = rng.example_keys(rng.step_key(rng.root(0), i), jnp.arange(self.samples))
            images = self.draw(self.state, keys, labels)
        jax.block_until_ready(images)

    def facts(self) -> dict[str, Any]:
        """FLOPs of one step as the trainer counts them: XLA's number for the program that runs, where that is whole."""
        return {"flops": self.trainer.flops}


def matrix_product(size: int) -> Callable[[int], None]:
    """A task of ``count`` products of two float32 matrices ``[size, size]``."""
    a, b = (jax.random.normal(jax.random.key(i), (size, size)) for i in range(2))
    product = jax.jit(jnp.matmul)

    def run(count: int) -> None:
        c = None
        for _ in range(count):
            c = product(a, b)
        jax.block_until_ready(c)

    return run


def peak_bytes() -> int:
    return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]


def build(settings: Settings) -> Job:
    select_platform(settings.device)
    gpu = settings.device == "gpu"
    training = Training(settings)
    tasks = {"train": training.train, "matmul": lazy(lambda: matrix_product(workload.MATRIX[settings.device]))}
    if training.draw is not None:
        tasks["sample"] = training.sample
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flax", "optax")}
    versions |= {"GPU": jax.local_devices()[0].device_kind} if gpu else {}
    return Job(tasks, versions, training.facts, training.unit, peak_bytes if gpu else None)
