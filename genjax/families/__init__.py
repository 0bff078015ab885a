"""Model families: each binds networks and objectives into the pure functions of ``base.Family``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from genjax.families import classifier, gan, vae
from genjax.families.base import Family
from genjax.networks import AUTOENCODERS, CLASSIFIERS, DISCRIMINATORS, GENERATORS


@dataclasses.dataclass(frozen=True)
class Entry:
    """How a config becomes a family.

    Attributes:
      constructor: its keyword arguments are the keys of the config's ``model`` section.
      networks: for each of them that is a network, the table of its names.
      network_arguments: ``(spec, model options it names) -> arguments`` that the data decides; each network takes
        those it knows.
      hparams: those of its keyword arguments that live in ``state.hparams``: members of a population may differ in
        them without another program.
      batches_per_step: ``(model options it names) -> batches`` of the config's size that one step consumes.
    """

    constructor: Callable[..., Family]
    networks: Mapping[str, Mapping[str, type]]
    network_arguments: Callable[..., dict[str, Any]]
    hparams: tuple[str, ...] = ()
    batches_per_step: Callable[..., int] = lambda: 1


FAMILIES = {
    "classifier": Entry(classifier.classifier, {"network": CLASSIFIERS}, classifier.network_arguments),
    "gan": Entry(
        gan.gan,
        {"generator": GENERATORS, "discriminator": DISCRIMINATORS},
        gan.network_arguments,
        batches_per_step=gan.batches_per_step,
    ),
    "vae": Entry(vae.vae, {"network": AUTOENCODERS}, vae.network_arguments, hparams=("beta",)),
}
