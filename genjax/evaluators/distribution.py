"""Samples as a set: how far they are from a test split under a named protocol."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from genjax.evaluators.base import Context, Report, to_uint8
from genjax.evaluators.features import FeatureNetwork, shipped
from genjax.evaluators.protocols import PROTOCOLS, Protocol, Seen, card, measure
from genjax.evaluators.reference import cached
from genjax.types import UserError, lookup


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

    def __call__(self, context: Context) -> Report:
        protocol = PROTOCOLS[self.protocol]
        network = shipped(protocol.features)
        if network.shape != context.spec.shape:
            own = context.spec.shape
            raise UserError(f"protocol {self.protocol} looks at images of {network.shape}; those of this run are {own}")
        names = context.spec.class_names or tuple(map(str, range(context.spec.classes)))
        if names != network.class_names:
            known, own = ", ".join(network.class_names), ", ".join(names) or "none"
            raise UserError(f"protocol {self.protocol} knows the classes {known}; those of this run are {own}")
        real, reference = reference_of(context, protocol, network)
        labels = context.default_labels(protocol.samples)
        images = to_uint8(context.samples(protocol.seed, labels))
        features, logits = network.of(images, context.compiled)
        try:
            measured = measure(protocol, real, Seen(features, logits, labels if context.conditional else None))
        except ValueError as error:
            raise UserError(f"protocol {self.protocol}: {error}") from error
        facts = {"features": network.facts, "reference": reference, "intervals_95": measured.intervals}
        return Report(measured.scalars, protocol=card(self.protocol, protocol, facts))


def reference_of(context: Context, protocol: Protocol, network: FeatureNetwork) -> tuple[Seen, dict[str, Any]]:
    """The reference images as the network sees them, kept from one evaluation to the next, and what they are."""
    count = protocol.reference or len(context.source)
    if count > len(context.source):
        raise UserError(f"this protocol wants {count} reference images; the test split has {len(context.source)}")
    # Where the images lie on this machine changes no number.
    data = {key: value for key, value in context.source.provenance.items() if key != "where"}
    facts = {"data": data, "count": count}

    def compute() -> dict[str, np.ndarray]:
        batch = context.source.gather(np.arange(count))
        features, logits = network.of(batch["image"], context.compiled)
        labels = {"labels": batch["label"]} if "label" in batch else {}
        return {"features": features, "logits": logits, **labels}

    arrays = cached({"network": network.facts, "reference": facts}, compute)
    return Seen(arrays["features"], arrays["logits"], arrays.get("labels")), facts
