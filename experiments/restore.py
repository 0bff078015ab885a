"""From a work folder alone to a model that can be evaluated or sampled."""

from __future__ import annotations

import dataclasses

import numpy as np
from jax.sharding import Mesh

from genjax import build
from genjax.families.base import TrainState
from genjax.io.checkpoint import Which
from genjax.io.workdir import Workdir
from genjax.train.compilation import use_cache
from genjax.train.member import checkpoints_of
from genjax.train.plan import Experiment
from genjax.train.sharding import data_mesh, select_platform
from genjax.train.steps import Functions, Trainer, compile_functions
from genjax.types import UserError


@dataclasses.dataclass(frozen=True)
class Restored:
    """A trained model and everything its config names."""

    plan: Experiment
    workdir: Workdir
    mesh: Mesh
    state: TrainState
    functions: Functions
    seconds: float  # of training until this checkpoint


def _which(checkpoint: str) -> Which:
    if checkpoint == "latest" or checkpoint == "best":
        return checkpoint
    if checkpoint.isdigit():
        return int(checkpoint)
    raise UserError(f"--checkpoint={checkpoint}: accepted: latest, best or a step")


def restore(path: str, checkpoint: str, accelerator: str) -> Restored:
    """Reads the stored config and one checkpoint; nothing in the folder is executed or changed.

    Args:
      path: work folder.
      checkpoint: "latest", "best" or a step.
      accelerator: where to compute; the run may have been trained elsewhere.

    Raises:
      UserError: no such folder, checkpoint or accelerator, or the data set it was trained on is gone.
    """
    workdir = Workdir.open(path)
    config = build.to_plain(workdir.read_config())
    select_platform(accelerator)
    use_cache()
    plan = build.experiment(config)
    mesh = data_mesh(1)
    trainer = Trainer(plan.family, mesh, len(plan.train), plan.augment)
    abstract = trainer.abstract_state(plan.train.gather(np.zeros(1, np.int64)))
    state, metadata = checkpoints_of(plan, workdir, read_only=True).restore(_which(checkpoint), abstract)
    return Restored(plan, workdir, mesh, state, compile_functions(plan.family), metadata["seconds"])
