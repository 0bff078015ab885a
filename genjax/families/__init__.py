"""Model families: each binds networks and objectives into the pure functions of ``base.Family``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from genjax.families import classifier, diffusion, gan, vae
from genjax.families.base import Family
from genjax.networks import AUTOENCODERS, CLASSIFIERS, DENOISERS, DISCRIMINATORS, GENERATORS
from genjax.objectives import OBJECTIVES
from genjax.processes import GRIDS, LEVELS, PATHS, PREDICTIONS, WEIGHTINGS
from genjax.samplers import SAMPLERS


@dataclasses.dataclass(frozen=True)
class Entry:
    """How a config becomes a family.

    Attributes:
      constructor: its keyword arguments are the keys of the config's ``model`` section.
      networks: for each of them that is a network, the table of its names.
      parts: for each of them that is named from another table, that table; one with a default may be left out.
      network_arguments: ``(spec, model options it names) -> arguments`` that the data decides; each network takes
        those it knows.
      hparams: ``(model options it names) -> names`` of those of its keyword arguments that live in ``state.hparams``:
        members of a population may differ in them without another program.
      batches_per_step: ``(model options it names) -> batches`` of the config's size that one step consumes.
      sampling: those of its keyword arguments that act on sampling alone, so that a trained run may have others.
    """

    constructor: Callable[..., Family]
    networks: Mapping[str, Mapping[str, type]]
    network_arguments: Callable[..., dict[str, Any]]
    parts: Mapping[str, Mapping[str, Callable[..., Any]]] = dataclasses.field(default_factory=dict)
    hparams: Callable[..., tuple[str, ...]] = lambda: ()
    batches_per_step: Callable[..., int] = lambda: 1
    sampling: tuple[str, ...] = ()


FAMILIES = {
    "classifier": Entry(classifier.classifier, {"network": CLASSIFIERS}, classifier.network_arguments),
    "gan": Entry(
        gan.gan,
        {"generator": GENERATORS, "discriminator": DISCRIMINATORS},
        gan.network_arguments,
        batches_per_step=gan.batches_per_step,
    ),
    "vae": Entry(vae.vae, {"network": AUTOENCODERS}, vae.network_arguments, hparams=lambda: ("beta",)),
    "diffusion": Entry(
        diffusion.diffusion,
        {"network": DENOISERS},
        diffusion.network_arguments,
        parts={
            "path": PATHS,
            "prediction": PREDICTIONS,
            "objective": OBJECTIVES,
            "levels": LEVELS,
            "weighting": WEIGHTINGS,
            "sampler": SAMPLERS,
            "grid": GRIDS,
        },
        hparams=diffusion.dynamic_settings,
        sampling=("sampler", "grid", "guidance_scale", "guidance_interval"),
    ),
}
