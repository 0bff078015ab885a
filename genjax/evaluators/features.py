"""Feature networks: what images become before two sets of them are compared.

The shipped ones are classifiers trained by this project on the set that they are for. Distances in their features have
a scale of their own: they compare runs under one protocol, and are never called FID.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import jax.numpy as jnp
import numpy as np

from genjax.networks import CLASSIFIERS
from genjax.tree import named_leaves, nested
from genjax.types import Array, Params, UserError, lookup

# Data set -> SHA-256 of its file. `python -m experiments.feature_network` writes the file and prints the sum.
SHIPPED = {
    "digits": "929b545431f579f85df03929af107f8d9a68861033ed87d2605808699d0ff142",
    "fashion_mnist": "6bc8dcf4f931cc3b37641ed41e912b008dd3afca966c9f26acea28024bc2819e",
    "mnist": "36a3c6ce9d31255db0fba29474520b24343c95d3f4ae6cb746385918fc8c229d",
}


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureNetwork:
    """A trained classifier.

    Attributes:
      name: as in ``SHIPPED``.
      shape: (height, width, channels) of the images it takes.
      apply: ``(variables, images uint8 [B, H, W, C]) -> (features float32 [B, D], logits float32 [B, K])``, pure.
      variables: of the network.
      class_names: one for each class.
      facts: for protocols: name, SHA-256, network, training set, accuracy on its test split.
    """

    name: str
    shape: tuple[int, int, int]
    apply: Callable[[Params, Array], tuple[Array, Array]]
    variables: Params
    class_names: tuple[str, ...]
    facts: dict[str, Any]

    def of(
        self, images: np.ndarray, compiled: Callable[[Callable], Callable], batch_size: int = 250
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features float32 ``[N, D]`` and logits float32 ``[N, K]`` of images uint8 ``[N, H, W, C]``.

        Args:
          images: of the network's shape.
          compiled: what makes a compiled function of a pure one.
          batch_size: images at once; the last ones are filled up, so that there is one program.

        Raises:
          ValueError: the images are of another shape or dtype.
        """
        if images.dtype != np.uint8 or images.shape[1:] != self.shape:
            raise ValueError(
                f"feature network {self.name} got {images.dtype} images of {images.shape[1:]}; accepted: uint8 images "
                f"of {self.shape}"
            )
        function = compiled(self.apply)
        parts = []
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            padded = np.pad(part, [(0, batch_size - len(part)), (0, 0), (0, 0), (0, 0)])
            parts.append([np.asarray(result)[: len(part)] for result in function(self.variables, padded)])
        features, logits = (np.concatenate(column) for column in zip(*parts, strict=True))
        return features, logits


@functools.cache
def shipped(name: str) -> FeatureNetwork:
    """The network of a data set.

    Raises:
      UserError: there is none for this set, or its file is not the one this version of genjax came with.
    """
    expected = lookup(SHIPPED, name, "features")
    data = (resources.files("genjax.evaluators") / "shipped" / f"{name}.npz").read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise UserError(f"feature network {name}: SHA-256 of its file is {found}; accepted: {expected}")
    return read(name, data)


def read(name: str, data: bytes) -> FeatureNetwork:
    """The network in the bytes of a file that ``pack`` made; no code in it is executed."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        about = json.loads(str(arrays["about"]))
        flat = {key: arrays[key].astype(np.float32) for key in arrays.files if key != "about"}
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in about["network"].items()}
    network = CLASSIFIERS[str(options.pop("name"))](num_classes=len(about["class_names"]), **options)

    def apply(variables: Params, images: Array) -> tuple[Array, Array]:
        signed = jnp.asarray(images).astype(jnp.float32) / 127.5 - 1.0
        logits, sown = network.apply(variables, signed, train=False, mutable=["intermediates"])
        return sown["intermediates"]["features"][0], logits

    facts = {"name": name, "sha256": hashlib.sha256(data).hexdigest()}
    facts |= {key: about[key] for key in ("network", "data", "accuracy")}
    shape = tuple(about["shape"])
    return FeatureNetwork(name, shape, apply, nested(flat), tuple(about["class_names"]), facts)


def pack(variables: Params, about: Mapping[str, Any]) -> bytes:
    """A file for ``read``: weights rounded to half precision, and what is known about them.

    Args:
      variables: nested mappings of arrays.
      about: JSON-able: network (its config section), shape, class_names, data (provenance), accuracy; more is kept.
    """
    flat: dict[str, Any] = {name: np.asarray(x).astype(np.float16) for name, x in named_leaves(variables).items()}
    out = io.BytesIO()
    np.savez(out, about=np.array(json.dumps(about, sort_keys=True)), **flat)
    return out.getvalue()
