"""Image classification: logits from images, softmax cross-entropy."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from genjax import rng
from genjax.families.averaging import exponential_average
from genjax.families.base import Family, Optimizer, learning_rates, new_state, to_signed
from genjax.families.single import single_train_step
from genjax.objectives.classification import cross_entropy
from genjax.types import Array, Batch, ImageSpec, UserError, check_fraction

NETWORK = "classifier"


def network_arguments(spec: ImageSpec) -> dict[str, Any]:
    """What the data decides about the network."""
    if spec.classes < 2:
        raise UserError(f"the classifier needs labels of at least 2 classes; this data set has {spec.classes}")
    return {"num_classes": spec.classes}


def classifier(
    spec: ImageSpec,
    network: nn.Module,
    optimizer: Optimizer,
    slice_size: int,
    accumulation: int = 1,
    label_smoothing: float = 0.0,
    ema_decay: float = 0.0,
) -> Family:
    """A family that learns p(label | image).

    Args:
      spec: of the images.
      network: ``(images [B,H,W,C] in [-1,1], train) -> logits [B,K]``; sows "features" (``networks.cnn.sow_features``).
      optimizer: of the network.
      slice_size: examples in one slice.
      accumulation: slices whose gradients make one update.
      label_smoothing: weight of the uniform distribution in the training target, in [0, 1).
      ema_decay: of the averaged weights that evaluation uses, 0 for none.
    """

    check_fraction(label_smoothing=label_smoothing)
    averages = exponential_average(NETWORK, ema_decay)
    hparams = learning_rates({NETWORK: optimizer})

    def init(key, batch):
        variables = network.init(rng.stream(key, "params"), to_signed(jnp.asarray(batch["image"][:1])), train=False)
        return new_state({NETWORK: variables}, {NETWORK: optimizer}, hparams, averages)

    def objective(variables, batch, key, hparams, step):
        logits, updates = network.apply(
            variables,
            to_signed(batch["image"]),
            train=True,
            mutable=[name for name in variables if name != "params"],
            rngs={"dropout": rng.stream(key, "dropout")},
        )
        accuracy = (jnp.argmax(logits, axis=-1) == batch["label"]).astype(jnp.float32)
        return cross_entropy(logits, batch["label"], label_smoothing), {"accuracy": accuracy}, dict(updates)

    def logits_of(state, batch: Batch) -> Array:
        return network.apply(state.averaged(NETWORK), to_signed(batch["image"]), train=False)

    def features(state, batch: Batch) -> Array:
        """What the network tells classes apart by, float32 ``[B, D]``."""
        _, sown = network.apply(
            state.averaged(NETWORK), to_signed(batch["image"]), train=False, mutable=["intermediates"]
        )
        try:
            return sown["intermediates"]["features"][0]
        except KeyError as error:
            name = type(network).__name__
            raise UserError(f"network {name} gives no features; accepted: one that calls sow_features") from error

    def eval_step(state, batch, key):
        logits = logits_of(state, batch)
        correct = (jnp.argmax(logits, axis=-1) == batch["label"]).astype(jnp.float32)
        return {"accuracy": correct, "nll": cross_entropy(logits, batch["label"])}

    extras: dict[str, Any] = {"logits": logits_of, "features": features}
    return Family(
        name="classifier",
        spec=spec,
        microbatches=accumulation,
        slice_size=slice_size,
        conditional=False,
        init=init,
        train_step=single_train_step(NETWORK, objective, optimizer, accumulation, averages),
        eval_step=eval_step,
        sample=None,
        hparams=hparams,
        extras=extras,
        headline=("loss", "accuracy"),
    )
