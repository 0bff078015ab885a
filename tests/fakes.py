"""What the tests share: synthetic images, and every family at a size that compiles in a second.

A family, or a network of one, that is not in ``FAKES`` fails the contract tests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from genjax import build
from genjax.data.base import ArraySource, parse_split, split_slice
from genjax.families import FAMILIES
from genjax.families.base import Family
from genjax.types import ImageSpec

SPEC = ImageSpec(8, 12, 3, classes=3)  # neither square nor grey, so that no axis passes for another
BATCH = 8

# The large eps keeps Adam's step in proportion to the gradient, so that one that is rounding alone does not become a
# whole step and results can be compared to a tolerance.
ADAM = {"name": "adam", "learning_rate": 1e-2, "eps": 1e-2}
SGD = {"name": "sgd", "learning_rate": 1e-2, "momentum": 0.0}


@dataclasses.dataclass(frozen=True)
class Fake:
    """A family at a tiny size.

    Attributes:
      model: the ``model`` section of its config.
      accumulation: slices of a batch.
      noisy: whether a training step draws random numbers.
      still: parameters that no gradient reaches, as ``network/path``; each with the reason beside it.
    """

    model: Mapping[str, Any]
    accumulation: int = 1
    noisy: bool = True
    still: tuple[str, ...] = ()
    learning_rate: float = 1e-2  # larger where layers that begin at zero leave little to those before them

    def optim(self, optimizer: Mapping[str, Any] = ADAM) -> dict[str, Any]:
        """The ``optim`` section that gives every network the same optimizer."""
        networks = list(FAMILIES[self.model["family"]].networks)
        optimizer = {**optimizer, "learning_rate": self.learning_rate}
        return optimizer if networks == ["network"] else {name: dict(optimizer) for name in networks}

    def family(
        self, spec: ImageSpec = SPEC, optim: Mapping[str, Any] | None = None, dtype: str = "float32", **model: Any
    ) -> Family:
        """The family, built as from a config; ``model`` replaces settings of that section."""
        config = {
            "model": {**self.model, **model},
            "optim": self.optim() if optim is None else dict(optim),
            "batch_size": BATCH,
            "accelerator": {"accumulation": self.accumulation, "compute_dtype": dtype},
        }
        return build.family(config, spec, total_steps=100)


def _classifier(network: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"family": "classifier", "network": network, "ema_decay": 0.9, **options}


def _gan(**options: Any) -> dict[str, Any]:
    networks = {"generator": {"name": "dcgan", "width": 4}, "discriminator": {"name": "dcgan", "width": 4}}
    return {"family": "gan", **networks, "latent_dim": 4, "ema_decay": 0.9, **options}


_CONV_VAE = {"name": "conv_vae", "latent_dim": 4, "width": 4, "hidden": 8}
_DENSE_VAE = {"name": "dense_vae", "latent_dim": 4, "hidden": (8,)}


def _vae(network: dict[str, Any] = _CONV_VAE, **options: Any) -> dict[str, Any]:
    return {"family": "vae", "network": network, "ema_decay": 0.9, **options}


_UNET = {"name": "unet", "width": 4, "multipliers": (1,), "blocks": 1}
_DIT = {"name": "dit", "patch": 4, "width": 8, "depth": 1, "heads": 2}
_JIT = {
    "name": "jit",
    "patch": 4,
    "width": 8,
    "depth": 1,
    "heads": 2,
    "bottleneck": 4,
    "context": 2,
    "context_start": 0,
}
_FLOW = {
    "objective": {"name": "denoising"},
    "path": {"name": "linear"},
    "prediction": {"name": "velocity"},
    "levels": {"name": "uniform"},
    "weighting": {"name": "velocity"},
    "sampler": {"name": "euler", "num_steps": 3},
    "grid": {"name": "uniform"},
}
_EDM = {
    "path": {"name": "edm"},
    "prediction": {"name": "edm"},
    "levels": {"name": "edm_log_normal"},
    "weighting": {"name": "edm"},
    "sampler": {"name": "edm_churn", "num_steps": 3, "s_churn": 1.0},
    "grid": {"name": "karras"},
}


def _diffusion(network: dict[str, Any], without: tuple[str, ...] = (), **options: Any) -> dict[str, Any]:
    parts = {name: part for name, part in _FLOW.items() if name not in without}
    return {"family": "diffusion", "network": network, **parts, "ema_lengths": (0.2, 0.1), **options}


FAKES = {
    "classifier-cnn": Fake(
        _classifier({"name": "cnn", "features": (4, 4), "strides": (1, 2), "dropout": 0.3}, label_smoothing=0.1)
    ),
    "classifier-alexnet": Fake(_classifier({"name": "alexnet", "width": 4, "hidden": 16})),
    "classifier-resnet": Fake(_classifier({"name": "resnet", "width": 4, "blocks": (1, 1)}), 2, noisy=False),
    "classifier-resnet-remat": Fake(
        _classifier({"name": "resnet", "width": 4, "blocks": (1, 1), "remat": True}), noisy=False
    ),
    "gan": Fake(_gan()),
    "gan-conditional-minimax": Fake(_gan(conditional=True, loss="minimax")),
    "gan-two-discriminator-updates": Fake(_gan(discriminator_updates=2)),
    "gan-accumulated": Fake(_gan(), 2),
    "vae-bernoulli": Fake(_vae(kl_warmup_steps=4)),
    "vae-discretized-logistic": Fake(_vae(likelihood="discretized_logistic"), 2),
    "vae-importance-weighted": Fake(_vae(_DENSE_VAE, num_draws=3)),
    "vae-conditional-gaussian": Fake(_vae(conditional=True, likelihood="gaussian")),
    "diffusion-unet": Fake(
        _diffusion(_UNET, conditional=True, label_dropout=0.5, guidance_scale=8.0), 2, learning_rate=0.3
    ),
    "diffusion-dit": Fake(
        _diffusion(_DIT, **_EDM, self_conditioning=True, learned_weight=True, augmentation=0.5, ema_lengths=(0.2,))
    ),
    "diffusion-jit": Fake(
        _diffusion(_JIT, prediction={"name": "x0"}, conditional=True, label_dropout=0.5, guidance_scale=8.0)
    ),
    "diffusion-mean-flow": Fake(
        _diffusion(_DIT, ("weighting",), objective={"name": "mean_flow"}, sampler={"name": "flow_map", "num_steps": 2})
    ),
    "diffusion-consistency": Fake(
        _diffusion(
            _DIT,
            ("levels", "weighting"),
            **{name: _EDM[name] for name in ("path", "prediction", "grid")},
            objective={"name": "consistency"},
            sampler={"name": "multistep_consistency", "num_steps": 2},
        )
    ),
}


def source(spec: ImageSpec = SPEC, count: int = 21, seed: int = 0) -> ArraySource:
    """``count`` images of noise; 21 is no multiple of any batch size here."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, *spec.shape), np.uint8)
    labels = generator.integers(0, spec.classes, count).astype(np.int32) if spec.classes else None
    return ArraySource(spec, "noise", {"source": "noise", "split": "test", "count": count}, images, labels)


# What the configs take from TensorFlow Datasets: image size, and examples for training and for testing.
TFDS = {
    "mnist": (ImageSpec(28, 28, 1, 10), 60_000, 10_000),
    "binarized_mnist": (ImageSpec(28, 28, 1), 50_000, 10_000),
    "fashion_mnist": (ImageSpec(28, 28, 1, 10), 60_000, 10_000),
    "cifar10": (ImageSpec(32, 32, 3, 10), 50_000, 10_000),
}


def tfds(name: str, split: str, data_dir: str | None = None, size: int | None = None) -> ArraySource:
    """In place of ``genjax.data.records.tfds``: as many images of the same size, all but the first hundred black."""
    spec, train, test = TFDS[name]
    part = split_slice(split, train if parse_split(split, "tfds") == "train" else test)
    images = np.zeros((part.stop - part.start, *spec.shape), np.uint8)  # memory that nobody writes to costs nothing
    noise = source(spec, min(100, len(images)))
    images[: len(noise)] = noise.images
    labels = (np.arange(len(images)) % spec.classes).astype(np.int32) if spec.classes else None
    return ArraySource(spec, name, {"source": "fake", "split": split, "count": len(images)}, images, labels)
