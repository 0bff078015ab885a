"""Samples as a set: how far they are from a split of the data under a named protocol."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from genjax.data.base import Source
from genjax.evaluators.base import Context, Report, Stopped, spread_indices, to_uint8
from genjax.evaluators.features import FeatureNetwork, feature_network
from genjax.evaluators.protocols import PROTOCOLS, Seen, card, measure
from genjax.evaluators.reference import cached
from genjax.types import UserError, lookup

_CHUNK = 1024  # images of the reference in memory at once


@dataclasses.dataclass(frozen=True)
class Distribution:
    """Distances and shares of a protocol, with its identity card.

    Attributes:
      protocol: name of one.

    Raises:
      UserError: there is no protocol of this name.
    """

    protocol: str

    def __post_init__(self):
        lookup(PROTOCOLS, self.protocol, "protocol")

    def check(self, context: Context) -> None:
        """Everything that a call would refuse, but for samples that are no images.

        Raises:
          UserError: the protocol is for other data or averaged weights, wants more images than there are, or the
            weights of its feature network aren't there; the family can't sample.
        """
        protocol, name = PROTOCOLS[self.protocol], f"protocol {self.protocol}"
        context.needs_samples()
        if protocol.ema and context.model.get("weights", "last") == "last":
            averages = "ema_decay above 0 or ema_lengths in its model section"
            raise UserError(f"{name} wants averaged weights, and this run keeps none; accepted: a run with {averages}")
        source = self._split(context)
        if protocol.data not in ("", source.name):
            raise UserError(f"{name} is for {protocol.data}; the data of this run are {source.name}")
        if (line := feature_network(protocol.features).misfit(context.spec)) is not None:
            raise UserError(f"{name} {line}")
        if len(source) < protocol.reference:
            given = f"the {protocol.split} split has {len(source)}"
            raise UserError(f"{name} wants {protocol.reference} reference images; {given}")

    def __call__(self, context: Context) -> Report:
        self.check(context)
        protocol = PROTOCOLS[self.protocol]
        network = feature_network(protocol.features)
        real, reference = reference_of(context, self._split(context), protocol.reference, network)
        labels = context.default_labels(protocol.samples)
        images = to_uint8(context.samples(protocol.seed, labels))
        features, logits = _outputs(context, network, images)
        try:
            measured = measure(protocol, real, Seen(features, logits, labels if context.conditional else None))
        except ValueError as error:
            raise UserError(f"protocol {self.protocol}: {error}") from error
        facts = {"features": network.facts, "reference": reference, "model": dict(context.model)}
        facts["intervals_95"] = measured.intervals
        return Report(measured.scalars, protocol=card(self.protocol, protocol, facts))

    def _split(self, context: Context) -> Source:
        """That of the reference."""
        if PROTOCOLS[self.protocol].split == "test":
            return context.source
        if context.training is None:
            raise UserError(f"protocol {self.protocol} needs the training split, which this evaluation was not given")
        return context.training


def reference_of(context: Context, source: Source, count: int, network: FeatureNetwork) -> tuple[Seen, dict[str, Any]]:
    """Images of a split as the network sees them, kept from one evaluation to the next, and what they are.

    Args:
      context: compiles, and stops.
      source: the split.
      count: of its images, spread evenly; 0 for all.
      network: looks at them.
    """
    indices = spread_indices(source, count or len(source))
    # Where the images lie on this machine changes no number.
    data = {key: value for key, value in source.provenance.items() if key != "where"}
    facts = {"data": data, "count": len(indices)}

    def compute() -> dict[str, np.ndarray]:
        parts: dict[str, list[np.ndarray]] = {}
        for start in range(0, len(indices), _CHUNK):
            batch = source.gather(indices[start : start + _CHUNK])
            parts.setdefault("labels", []).extend([batch["label"]] if "label" in batch else [])
            for name, rows in zip(("features", "logits"), _outputs(context, network, batch["image"]), strict=True):
                parts.setdefault(name, []).append(rows)
        return {name: np.concatenate(rows) for name, rows in parts.items() if rows}

    arrays = cached({"network": network.facts, "reference": facts}, compute)
    return Seen(arrays["features"], arrays["logits"], arrays.get("labels")), facts


def _outputs(context: Context, network: FeatureNetwork, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``network.of``, which large networks take minutes for, asked between batches whether to stop."""
    compiled = functools.cache(context.compiled)
    parts = []
    for start in range(0, len(images), network.batch_size):
        if context.stop():
            raise Stopped
        parts.append(network.of(images[start : start + network.batch_size], compiled))
    features, logits = (np.concatenate(column) for column in zip(*parts, strict=True))
    return features, logits
