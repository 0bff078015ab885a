"""Reconstructions beside their originals, in numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from genjax.evaluators.base import Context, Report, check_at_least, to_uint8
from genjax.evaluators.weights import weights
from genjax.metrics.pairs import SCALES, WINDOW, ms_ssim, psnr, ssim
from genjax.metrics.perceptual import perceptual_distance
from genjax.networks.efficientnet import EfficientNetLite0, efficientnet_input
from genjax.types import Array, Params

NETWORK = "efficientnet_lite0"
STAGES = (0, 1, 2, 4, 6)
"""Whose maps are compared: the last stage of each resolution, a half to a thirty-second of the image."""
SIZE = 224
_BATCH = 16  # pairs at once: at this size the widest layer has 5 MB an image
_LEAST = {"ssim": WINDOW, "ms_ssim": WINDOW * 2 ** (len(SCALES) - 1)}  # pixels of the shorter side
_MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim}


def lite0_perceptual_distance(variables: Params, first: Array, second: Array, size: int = SIZE) -> Array:
    """``perceptual_distance`` of images uint8 ``[B, H, W, 1 or 3]`` in the maps of EfficientNet-Lite0, float32 ``[B]``.

    Images are resized to ``size`` pixels a side, by default what that network was trained on. It is not LPIPS, whose
    networks and weights are others.
    """
    both = jnp.concatenate([efficientnet_input(images, size) for images in (first, second)])
    seen: Any = EfficientNetLite0().apply(variables, both)
    maps = [seen.stages[i] for i in STAGES]
    return perceptual_distance([x[: len(first)] for x in maps], [x[len(first) :] for x in maps])


@dataclasses.dataclass(frozen=True)
class ImagePairs:
    """PSNR, SSIM and MS-SSIM of reconstructions of the test split, both as uint8.

    Means over pairs, with their standard errors in the protocol. A measure that wants larger images is left out, and
    the protocol says so. A pair of equal images has no finite PSNR: such pairs are counted in the protocol, and the
    mean is that of the others (infinite where there are none).

    Attributes:
      limit: examples to look at, 0 for all.
      perceptual: whether to measure ``lite0_perceptual_distance``, too; the weights of EfficientNet-Lite0 have to be
        there.

    Raises:
      ValueError: a limit below 0.
    """

    limit: int = 0
    perceptual: bool = False

    def __post_init__(self):
        check_at_least(0, limit=self.limit)

    def check(self, context: Context) -> None:
        """Raises UserError where the family can't reconstruct, or the weights of EfficientNet-Lite0 are not there."""
        context.extra("reconstruct", "image_pairs")
        if self.perceptual:
            weights(NETWORK)

    def __call__(self, context: Context) -> Report:
        reconstruct, key = context.extra("reconstruct", "image_pairs"), context.key("reconstruct")
        side = min(context.spec.height, context.spec.width)
        left_out = {
            name: f"needs {least} pixels a side, images have {side}" for name, least in _LEAST.items() if side < least
        }
        measures = {name: measure for name, measure in _MEASURES.items() if name not in left_out}
        facts: dict[str, Any] = {}
        if self.perceptual:
            measures["lite0_perceptual_distance"], facts = _perceptual(context)
        found: dict[str, list[np.ndarray]] = {name: [] for name in measures}
        for batch in context.batches(self.limit):
            real = batch.pop("mask") > 0
            made = to_uint8(reconstruct(context.state, context.place(batch), key))
            for name, measure in measures.items():
                found[name].append(measure(batch["image"][real], made[real]))
        values = {name: np.concatenate(parts) for name, parts in found.items()}
        examples, equal = len(values["psnr"]), int(np.isinf(values["psnr"]).sum())
        if equal < examples:
            values["psnr"] = values["psnr"][np.isfinite(values["psnr"])]
        record = {
            "data": context.source.provenance,
            "examples": examples,
            "equal_pairs": equal,
            "seed": context.seed,
            "rounding": "uint8",
            "standard_error": {name: _standard_error(each) for name, each in values.items()},
            **({"left_out": left_out} if left_out else {}),
        }
        return Report({name: float(each.mean()) for name, each in values.items()}, protocol=record | facts)


def _perceptual(context: Context) -> tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], dict[str, Any]]:
    """The distance of two batches, and what it was measured with."""
    network = weights(NETWORK)
    function, variables = context.compiled(lite0_perceptual_distance), context.shared(network.variables)

    def measure(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        found = []
        for start in range(0, len(first), _BATCH):
            parts = [images[start : start + _BATCH] for images in (first, second)]
            padded = [np.pad(part, [(0, _BATCH - len(part)), (0, 0), (0, 0), (0, 0)]) for part in parts]
            found.append(np.asarray(function(variables, *padded), np.float64)[: len(parts[0])])
        return np.concatenate(found)

    return measure, {"perceptual": {"network": network.facts, "stages": list(STAGES), "size": SIZE}}


def _standard_error(values: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):  # the scatter of infinite values is not a number
        return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
