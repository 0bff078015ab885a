"""Keras 3 as its users write it: ``Model.fit`` on NumPy arrays, with a ``train_step`` of one's own for GAN and VAE.

It runs on TensorFlow, or on PyTorch where TensorFlow can't be had.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

if os.environ.get("KERAS_BACKEND") != "torch":
    os.environ["KERAS_BACKEND"] = "tensorflow" if importlib.util.find_spec("tensorflow") else "torch"

import keras
import numpy as np
from keras import layers, ops

from benchmarks.speed import workload
from benchmarks.speed.worker import Job
from benchmarks.speed.workload import CHANNELS, CNN_FEATURES, CNN_STRIDES, GRID, LATENT, SIZE, Settings

IMAGE = (SIZE, SIZE, CHANNELS)
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
if ON_TENSORFLOW:
    import tensorflow as tf
else:
    import torch


def up(features: int, **options: Any) -> layers.Layer:
    return layers.Conv2DTranspose(features, 4, 2, "same", **options)


def cnn() -> keras.Model:
    convs = [
        layers.Conv2D(features, 3, stride, "same", activation="relu")
        for features, stride in zip(CNN_FEATURES, CNN_STRIDES, strict=True)
    ]
    scale = layers.Rescaling(1.0 / 127.5, offset=-1.0)
    image = keras.Input(IMAGE, dtype="uint8")
    return keras.Sequential([image, scale, *convs, layers.Flatten(), layers.Dense(workload.CLASSES)])


def generator(width: int = workload.GAN_WIDTH) -> keras.Model:
    normal = keras.initializers.RandomNormal(stddev=0.02)

    def activation() -> list[layers.Layer]:
        return [layers.BatchNormalization(momentum=0.9, epsilon=1e-5), layers.LeakyReLU(workload.SLOPE)]

    return keras.Sequential(
        [
            keras.Input((LATENT,)),
            layers.Dense(GRID * GRID * 2 * width, use_bias=False, kernel_initializer=normal),
            layers.Reshape((GRID, GRID, 2 * width)),
            *activation(),
            up(width, use_bias=False, kernel_initializer=normal),
            *activation(),
            up(CHANNELS, kernel_initializer=normal, activation="tanh"),
        ]
    )


def discriminator(width: int = workload.GAN_WIDTH) -> keras.Model:
    normal = keras.initializers.RandomNormal(stddev=0.02)
    body: list[layers.Layer] = []
    for features in (width, 2 * width):
        body += [
            layers.Conv2D(features, 4, 2, "same", kernel_initializer=normal),
            layers.LeakyReLU(workload.SLOPE),
            layers.Dropout(workload.DROPOUT),
        ]
    return keras.Sequential(
        [keras.Input(IMAGE), *body, layers.Flatten(), layers.Dense(1, kernel_initializer=normal), layers.Reshape(())]
    )


def encoder(width: int = workload.VAE_WIDTH) -> keras.Model:
    image = keras.Input(IMAGE)
    x = image
    for features in (width, 2 * width):
        x = layers.LeakyReLU(workload.SLOPE)(layers.Conv2D(features, 3, 2, "same")(x))
    x = layers.Flatten()(x)
    return keras.Model(image, layers.Dense(2 * LATENT)(x))


def decoder(width: int = workload.VAE_WIDTH) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((LATENT,)),
            layers.Dense(GRID * GRID * 2 * width),
            layers.LeakyReLU(workload.SLOPE),
            layers.Reshape((GRID, GRID, 2 * width)),
            up(width),
            layers.LeakyReLU(workload.SLOPE),
            up(CHANNELS),
        ]
    )


def adam(network: str, b1: float = 0.9) -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(workload.RATE[network], beta_1=b1, epsilon=workload.EPSILON)


def update(optimizer: keras.optimizers.Optimizer, weights: list[Any], loss_of: Callable[[], Any]) -> Any:
    """One update of the weights, as each backend's guide to ``train_step`` does it. Returns the loss."""
    if ON_TENSORFLOW:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([weight.value for weight in weights])
            loss = loss_of()
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss
    loss = loss_of()
    gradients = torch.autograd.grad(loss, [weight.value for weight in weights])
    with torch.no_grad():
        optimizer.apply(list(gradients), weights)
    return loss


class GAN(keras.Model):
    """One update of the discriminator on real and generated images, one of the generator on fresh latents."""

    def __init__(self):
        super().__init__()
        self.generator, self.discriminator = generator(), discriminator()
        self.generator_optimizer, self.discriminator_optimizer = (adam("gan", workload.GAN_B1) for _ in range(2))
        self.seeds = keras.random.SeedGenerator(0)
        self.built = True  # both networks are

    def train_step(self, image: Any) -> dict[str, Any]:
        image = ops.cast(image, "float32") / 127.5 - 1.0
        shape = (ops.shape(image)[0], LATENT)
        fake = ops.stop_gradient(self.generator(keras.random.normal(shape, seed=self.seeds), training=True))

        def discriminator_loss() -> Any:
            real_logits = self.discriminator(image, training=True)
            fake_logits = self.discriminator(fake, training=True)
            return ops.mean(ops.softplus(-real_logits) + ops.softplus(fake_logits))

        d_loss = update(self.discriminator_optimizer, self.discriminator.trainable_weights, discriminator_loss)
        z = keras.random.normal(shape, seed=self.seeds)

        def generator_loss() -> Any:
            return ops.mean(ops.softplus(-self.discriminator(self.generator(z, training=True), training=True)))

        g_loss = update(self.generator_optimizer, self.generator.trainable_weights, generator_loss)
        return {"discriminator_loss": d_loss, "generator_loss": g_loss}


class VAE(keras.Model):
    """Bernoulli likelihood of bits that are drawn anew in every step."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = encoder(), decoder()
        self.seeds = keras.random.SeedGenerator(0)
        self.built = True  # both networks are

    def train_step(self, image: Any) -> dict[str, Any]:
        image = ops.cast(image, "float32")
        x = ops.cast(keras.random.uniform(ops.shape(image), seed=self.seeds) * 255.0 < image, "float32")

        def loss_of() -> Any:
            mean, logvar = ops.split(self.encoder(2.0 * x - 1.0, training=True), 2, axis=-1)
            z = mean + ops.exp(0.5 * logvar) * keras.random.normal(ops.shape(mean), seed=self.seeds)
            logits = self.decoder(z, training=True)
            error = ops.sum(ops.binary_crossentropy(x, logits, from_logits=True))
            kl = 0.5 * ops.sum(ops.square(mean) + ops.exp(logvar) - 1.0 - logvar)
            return (error + kl) / ops.cast(ops.shape(image)[0], "float32")

        weights = self.encoder.trainable_weights + self.decoder.trainable_weights
        return {"loss": update(self.optimizer, weights, loss_of)}


def compiled(network: str, jit_compile: Any) -> tuple[keras.Model, keras.Model | None]:
    """The model that ``fit`` trains, and the one that draws images from latents."""
    if network == "cnn":
        model, draw = cnn(), None
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(adam(network), loss, jit_compile=jit_compile)
    elif network == "gan":
        model = GAN()
        draw = model.generator
        model.compile(jit_compile=jit_compile)
    else:
        model = VAE()
        draw = keras.Sequential([model.decoder, layers.Activation("sigmoid")])
        model.compile(adam(network), jit_compile=jit_compile)
    return model, draw


def peak_bytes() -> int:
    """Of the GPU's memory."""
    return (
        tf.config.experimental.get_memory_info("GPU:0")["peak"] if ON_TENSORFLOW else torch.cuda.max_memory_allocated()
    )


def build(settings: Settings) -> Job:
    gpu = settings.device == "gpu"
    if gpu and not (tf.config.list_physical_devices("GPU") if ON_TENSORFLOW else torch.cuda.is_available()):
        raise RuntimeError(f"{keras.backend.backend()} finds no GPU")
    model, draw = compiled(settings.network, settings.options["jit_compile"])
    images, labels = workload.examples(settings.examples)
    targets = {"y": labels} if settings.network == "cnn" else {}

    def train(count: int) -> None:
        while count:
            steps = min(count, max(1, settings.examples // settings.batch))
            size = steps * settings.batch
            chosen = {name: array[:size] for name, array in targets.items()}
            model.fit(images[:size], **chosen, batch_size=settings.batch, shuffle=True, verbose=0)
            count -= steps

    def sample(count: int) -> None:
        assert draw is not None
        size = workload.SAMPLES[settings.network]
        z = np.random.default_rng(0).standard_normal((count * size, LATENT), np.float32)
        draw.predict(z, batch_size=size, verbose=0)

    name = "tensorflow" if ON_TENSORFLOW else "torch"
    versions = {"keras": keras.__version__, name: (tf if ON_TENSORFLOW else torch).__version__}
    tasks = {"train": train} | ({"sample": sample} if draw is not None else {})
    return Job(tasks, versions, peak_bytes=peak_bytes if gpu else None)
