"""A trained model as a program that needs nothing but jax: StableHLO by ``jax.export``, its weights beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax import rng
from genjax.families.base import Family, TrainState
from genjax.tree import named_leaves, nested
from genjax.types import Array, UserError

FORMAT = 1  # of the manifest
PLATFORMS = ("cpu", "cuda", "tpu")


@dataclasses.dataclass(frozen=True)
class Program:
    """What is written of a model.

    Attributes:
      name: "sampler", or "predict" of a classifier.
      weights: float arrays by name, the first argument of the program.
      serialized: what ``jax.export.deserialize`` reads.
      manifest: JSON: how to call it, names, shapes and dtypes.
    """

    name: str
    weights: dict[str, np.ndarray]
    serialized: bytearray
    manifest: dict[str, Any]


def evaluated_weights(state: TrainState) -> dict[str, np.ndarray]:
    """The variables that evaluation uses, the averaged ones where there are some, by name."""
    networks = {name: dict(state.averaged(name)) for name in state.params}
    return {name: np.asarray(leaf) for name, leaf in named_leaves(networks).items()}


def export_program(family: Family, state: TrainState) -> Program:
    """The function that draws samples, or a classifier's logits, for any number of images at a time.

    Weights are an argument and no constants, so that they are stored once, in a format that other programs read.

    Args:
      family: of the model.
      state: trained, on one device.

    Raises:
      UserError: the family has neither function.
    """
    weights = evaluated_weights(state)
    abstract = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in weights.items()}
    (batch,) = jax.export.symbolic_shape("b")
    if family.sample is not None:
        name, function = "sampler", _sampler(family, state)
        scalar = jax.ShapeDtypeStruct((), jnp.uint32)
        row = jax.ShapeDtypeStruct((batch,), jnp.int32)
        arguments = {"seed": scalar, "index": row, "labels": row}
        returns = "images float32 [b, height, width, channels] in [0, 1]; image i depends on seed, index[i], labels[i]"
    elif "logits" in family.extras:
        name, function = "predict", _predictor(family, state)
        arguments = {"images": jax.ShapeDtypeStruct((batch, *family.spec.shape), jnp.uint8)}
        returns = "logits float32 [b, classes]"
    else:
        raise UserError(f"a {family.name} neither draws samples nor gives logits; accepted: a family that does")
    exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(abstract, *arguments.values())
    manifest = {
        "program": name,
        "arguments": ["weights", *(f"{key}: {_described(value)}" for key, value in arguments.items())],
        "returns": returns,
        "platforms": list(exported.platforms),
        "calling_convention_version": exported.calling_convention_version,
        "arrays": {key: _described(leaf) for key, leaf in weights.items()},
    }
    return Program(name, weights, exported.serialize(), manifest)


def _with_weights(state: TrainState, weights: Mapping[str, Array]) -> TrainState:
    networks = nested(weights)
    return state.replace(
        params={name: variables["params"] for name, variables in networks.items()},
        collections={name: {k: v for k, v in vs.items() if k != "params"} for name, vs in networks.items()},
        opt={},
        ema={},
    )


def _sampler(family: Family, state: TrainState) -> Callable[..., Array]:
    assert family.sample is not None
    sample = family.sample

    def sampler(weights: Mapping[str, Array], seed: Array, index: Array, labels: Array) -> Array:
        keys = rng.example_keys(rng.stream(rng.root(seed), "sample"), index)
        return sample(_with_weights(state, weights), keys, labels)

    return sampler


def _predictor(family: Family, state: TrainState) -> Callable[..., Array]:
    def predict(weights: Mapping[str, Array], images: Array) -> Array:
        return family.extras["logits"](_with_weights(state, weights), {"image": images})

    return predict


def _described(leaf: Any) -> str:
    return f"{jnp.dtype(leaf.dtype).name}[{','.join(map(str, leaf.shape))}]"
