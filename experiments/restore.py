"""From a work folder alone to a model that can be evaluated or sampled."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from genjax import build
from genjax.families.base import GUIDE, Family, TrainState
from genjax.io.checkpoint import Which
from genjax.io.workdir import Workdir
from genjax.train.compilation import use_cache
from genjax.train.member import checkpoints_of
from genjax.train.plan import Experiment
from genjax.train.posthoc import rebuild
from genjax.train.sharding import data_mesh, select_platform
from genjax.train.steps import Functions, Trainer, compile_functions
from genjax.types import UserError


@dataclasses.dataclass(frozen=True)
class Guide:
    """A weaker model, whose state is in ``Restored.state.frozen``, and how far samples are moved away from its own."""

    family: Family
    scale: float
    run: str
    step: int

    def facts(self) -> dict[str, Any]:
        """For records."""
        return {"run": self.run, "step": self.step, "scale": self.scale}


@dataclasses.dataclass(frozen=True)
class Restored:
    """A trained model and everything its config names."""

    plan: Experiment
    workdir: Workdir
    mesh: Mesh
    state: TrainState
    functions: Functions
    seconds: float  # of training until this checkpoint
    ema: Mapping[str, Any] | None = None  # what rebuilt averages are made of, None where they are the stored ones
    guide: Guide | None = None

    def with_settings(self, settings: Mapping[str, Any]) -> Restored:
        """The same state with other settings for sampling, by dotted name (``build.with_sampling``).

        Raises:
          UserError: training depends on a setting, or its value is not accepted.
        """
        config = build.with_sampling(self.plan.config, settings)
        family = build.family(config, self.plan.train.spec, self.plan.total_steps)
        plain = dataclasses.replace(self, plan=dataclasses.replace(self.plan, config=config))
        return plain._of(family)

    def guided_by(self, weak: Restored, scale: float) -> Restored:
        """The same state with samples moved away from those of ``weak`` (autoguidance).

        Raises:
          UserError: the two don't fit together.
        """
        path, family, other = weak.workdir.path, self.plan.family, weak.plan.family
        if family.guided is None:
            raise UserError(f"--guide: a {family.name} can't be guided; accepted: a run of family diffusion")
        if other.denoise is None:
            raise UserError(f"--guide={path} is a {other.name}; accepted: a run of family diffusion")
        if family.spec.shape != other.spec.shape:
            raise UserError(f"--guide={path} makes images of {other.spec.shape}; accepted: {family.spec.shape}")
        if other.conditional and family.spec.classes != other.spec.classes:
            known = f"{other.spec.classes} classes; accepted: {family.spec.classes}, or a model without labels"
            raise UserError(f"--guide={path} knows {known}")
        state = self.state.replace(frozen={**self.state.frozen, GUIDE: weak.state.replace(opt={})})
        guide = Guide(other, scale, path.resolve().name, int(weak.state.step))
        return dataclasses.replace(self, state=state, guide=guide)._of(family)

    def _of(self, family: Family) -> Restored:
        """With the functions of another family, guided as this one is."""
        if self.guide is not None and family.guided is not None:
            sampling = {**family.sampling, "guide": self.guide.facts()}
            try:
                family = family.guided(self.guide.family, self.guide.scale)
            except ValueError as error:
                raise UserError(f"--guide: {error}") from error
            family = dataclasses.replace(family, sampling=sampling)
        plan = dataclasses.replace(self.plan, family=family)
        return dataclasses.replace(self, plan=plan, functions=compile_functions(family))


def _which(checkpoint: str) -> Which:
    if checkpoint == "latest" or checkpoint == "best":
        return checkpoint
    if checkpoint.isascii() and checkpoint.isdigit():
        return int(checkpoint)
    raise UserError(f"--checkpoint={checkpoint}: accepted: latest, best or a step")


def restore(
    path: str,
    checkpoint: str,
    accelerator: str,
    settings: Mapping[str, Any] | None = None,
    ema: float | None = None,
) -> Restored:
    """Reads the stored config and one checkpoint; nothing in the folder is executed or changed.

    Args:
      path: work folder.
      checkpoint: "latest", "best" or a step.
      accelerator: where to compute; the run may have been trained elsewhere.
      settings: other values for settings of sampling, as ``Restored.with_settings``.
      ema: relative length of the average to use, rebuilt from the kept checkpoints; None for the stored one.

    Raises:
      UserError: no such folder, checkpoint, accelerator, setting or average, or the data set it was trained on is gone.
    """
    workdir = Workdir.open(path)
    config = build.to_plain(workdir.read_config())
    select_platform(accelerator)
    use_cache()
    plan = build.experiment(config)
    mesh = data_mesh(1)
    trainer = Trainer(plan.family, mesh, len(plan.train), plan.augment)
    abstract = trainer.abstract_state(plan.train.gather(np.zeros(1, np.int64)))
    checkpoints = checkpoints_of(plan, workdir, read_only=True)
    state, metadata = checkpoints.restore(_which(checkpoint), abstract)
    rebuilt = None
    if ema is not None:
        state, rebuilt = rebuild(plan.family, state, checkpoints, ema)
    run = Restored(plan, workdir, mesh, state, compile_functions(plan.family), metadata["seconds"], rebuilt)
    return run.with_settings(settings) if settings else run


def guide_of(path: str | None, checkpoint: str, scale: float | None, accelerator: str) -> tuple[Restored, float] | None:
    """What ``Restored.guided_by`` takes, from the flags ``--guide``, ``--guide_checkpoint`` and ``--guide_scale``.

    Raises:
      UserError: as ``restore``; there are flags about a guide that was not given.
    """
    if path is not None:
        return restore(path, checkpoint, accelerator), 2.0 if scale is None else scale
    for name, given in (("checkpoint", checkpoint != "latest"), ("scale", scale is not None)):
        if given:
            raise UserError(f"--guide_{name} is about --guide, which was not given")
    return None
