"""Feature networks: what images become before two sets of them are compared.

The shipped ones are classifiers trained by this project on the set that they are for; the pretrained ones look at
colour images of any size, with weights that the user has (``genjax.evaluators.weights``). Distances in the features of
each have a scale of their own: they compare runs under one protocol, and only Inception-v3's may be called FID.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import jax.numpy as jnp
import numpy as np

from genjax.evaluators.weights import Weights, weights
from genjax.networks import CLASSIFIERS
from genjax.networks.efficientnet import EfficientNetLite0, efficientnet_input
from genjax.networks.inception import RESIZES, InceptionV3, inception_input
from genjax.tree import named_leaves, nested
from genjax.types import Array, ImageSpec, Params, UserError, lookup

# Data set -> SHA-256 of its file. `python -m experiments.feature_network` writes the file and prints the sum.
SHIPPED = {
    "digits": "929b545431f579f85df03929af107f8d9a68861033ed87d2605808699d0ff142",
    "fashion_mnist": "6bc8dcf4f931cc3b37641ed41e912b008dd3afca966c9f26acea28024bc2819e",
    "mnist": "36a3c6ce9d31255db0fba29474520b24343c95d3f4ae6cb746385918fc8c229d",
}


Apply = Callable[[Params, Array], tuple[Array, Array]]
"""``(variables, images uint8 [B, H, W, C]) -> (features float32 [B, D], logits float32 [B, K])``, pure."""


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureNetwork:
    """A trained network that judges images; this kind takes colour images of any height and width.

    Grey images are refused: a network of colour photographs says little about them, and the grey sets here have
    classifiers of their own.

    Attributes:
      name: as in ``SHIPPED`` or ``PRETRAINED``.
      apply: what it does.
      variables: of the network.
      facts: for protocols: name, SHA-256 of the weights, and what else fixes the features.
      batch_size: images at once, unless told otherwise.
    """

    name: str
    apply: Apply
    variables: Params
    facts: dict[str, Any]
    batch_size: int = 250

    @property
    def takes(self) -> str:
        """The shapes of images, in words."""
        return "(height, width, 3)"

    def misfit(self, spec: ImageSpec) -> str | None:
        """Why it can't judge a set of images, in one line; None when it can."""
        if self._fits(spec.shape):
            return None
        return f"looks at images of {self.takes}; those of this run are {spec.shape}"

    def of(
        self, images: np.ndarray, compiled: Callable[[Callable], Callable], batch_size: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features float32 ``[N, D]`` and logits float32 ``[N, K]`` of images uint8 ``[N, H, W, C]``.

        Args:
          images: of a shape that the network takes, at least one.
          compiled: what makes a compiled function of a pure one.
          batch_size: images at once; the last ones are filled up, so that there is one program.

        Raises:
          ValueError: the images are of another shape or dtype.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or not self._fits(images.shape[1:]):
            raise ValueError(
                f"feature network {self.name} got {images.dtype} images of {images.shape[1:]}; accepted: uint8 images "
                f"of {self.takes}"
            )
        function, size = compiled(self.apply), batch_size or self.batch_size
        parts = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            padded = np.pad(part, [(0, size - len(part)), (0, 0), (0, 0), (0, 0)])
            parts.append([np.asarray(result)[: len(part)] for result in function(self.variables, padded)])
        features, logits = (np.concatenate(column) for column in zip(*parts, strict=True))
        return features, logits

    def _fits(self, shape: tuple[int, ...]) -> bool:
        return shape[-1] == 3


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier(FeatureNetwork):
    """A network that was trained on the very set of images that it judges, and knows that set's classes.

    Attributes:
      shape: (height, width, channels) of the images it takes.
      class_names: one for each class.
    """

    shape: tuple[int, int, int] = (0, 0, 0)
    class_names: tuple[str, ...] = ()

    @property
    def takes(self) -> str:
        return str(self.shape)

    def misfit(self, spec: ImageSpec) -> str | None:
        names = spec.class_names or tuple(map(str, range(spec.classes)))
        if (line := super().misfit(spec)) is not None or names == self.class_names:
            return line
        return f"knows the classes {', '.join(self.class_names)}; those of this run are {', '.join(names) or 'none'}"

    def _fits(self, shape: tuple[int, ...]) -> bool:
        return shape == self.shape


def _efficientnet_lite0(network: EfficientNetLite0, variables: Params, images: Array) -> tuple[Array, Array]:
    out: Any = network.apply(variables, efficientnet_input(images))
    return out.pooled, out.logits


def _inception_v3(mode: str, network: InceptionV3, variables: Params, images: Array) -> tuple[Array, Array]:
    out: Any = network.apply(variables, inception_input(images, mode))
    return out.pooled, out.logits_unbiased  # as the code of Salimans et al. 2016 computes the Inception score


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A feature network whose weights the user has.

    Attributes:
      weights: their name.
      apply: what the network does, size and range of its input included.
      facts: what of that changes features, JSON-able.
    """

    weights: str
    apply: Apply
    facts: Mapping[str, Any]


PRETRAINED = {
    "efficientnet_lite0": Pretrained(
        "efficientnet_lite0",
        functools.partial(_efficientnet_lite0, EfficientNetLite0()),
        {"resize": "pillow_bicubic to 224x224", "logits": "ImageNet"},
    ),
    **{
        f"inception_v3_{mode}": Pretrained(
            "inception_v3",
            functools.partial(_inception_v3, mode, InceptionV3()),
            {"resize": f"{RESIZES[mode]} to 299x299", "mode": mode, "logits": "without bias"},
        )
        for mode in sorted(RESIZES)
    },
}
_PRETRAINED_BATCH = 32  # of 299x299: larger ones are no faster on a CPU and take gigabytes


def feature_network(name: str) -> FeatureNetwork:
    """The network of this name, shipped or pretrained; each is read once.

    Raises:
      UserError: there is none; its weights are not there, or not those that are known.
    """
    lookup({**SHIPPED, **PRETRAINED}, name, "features")
    return shipped(name) if name in SHIPPED else _pretrained(name, weights(PRETRAINED[name].weights))


@functools.cache
def _pretrained(name: str, loaded: Weights) -> FeatureNetwork:
    about = PRETRAINED[name]
    return FeatureNetwork(
        name, about.apply, loaded.variables, {**loaded.facts, **about.facts, "name": name}, _PRETRAINED_BATCH
    )


@functools.cache
def shipped(name: str) -> Classifier:
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


def read(name: str, data: bytes) -> Classifier:
    """The network in the bytes of a file that ``pack`` made; no code in it is executed.

    Raises:
      UserError: the bytes are something else.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            flat = {key: arrays[key].astype(np.float32) for key in arrays.files if key != "about"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"feature network {name}: its bytes are none, or damaged; accepted: what pack makes") from error
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in about["network"].items()}
    network = CLASSIFIERS[str(options.pop("name"))](num_classes=len(about["class_names"]), **options)

    def apply(variables: Params, images: Array) -> tuple[Array, Array]:
        signed = jnp.asarray(images).astype(jnp.float32) / 127.5 - 1.0
        logits, sown = network.apply(variables, signed, train=False, mutable=["intermediates"])
        return sown["intermediates"]["features"][0], logits

    facts = {"name": name, "sha256": hashlib.sha256(data).hexdigest()}
    facts |= {key: about[key] for key in ("network", "data", "accuracy")}
    shape = tuple(about["shape"])
    names = tuple(about["class_names"])
    return Classifier(name, apply, nested(flat), facts, shape=shape, class_names=names)


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
