"""Autoguidance (Karras et al. 2024b) at the command line: samples moved away from what a weaker model would make.

The weaker model is any run of family diffusion on images of the same shape: a smaller network, or an earlier checkpoint
of the same run (checkpoint.keep). Its path, prediction and labels are its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

from genjax.types import UserError

if TYPE_CHECKING:
    from experiments.restore import Restored

GUIDE = flags.DEFINE_string("guide", None, "Work folder of a weaker model: samples are moved away from its own.")
CHECKPOINT = flags.DEFINE_string("guide_checkpoint", "latest", "Which checkpoint of --guide: latest, best or a step.")
SCALE = flags.DEFINE_float("guide_scale", 2.0, "How far: 1 not at all, 2 as far again as both are apart.")


def guided(run: Restored, accelerator: str) -> Restored:
    """The run guided as the flags say, itself without ``--guide``.

    Raises:
      UserError: the two models don't fit together, or the flags contradict each other.
    """
    from experiments.restore import restore

    if GUIDE.value is not None:
        return run.guided_by(restore(GUIDE.value, CHECKPOINT.value, accelerator), SCALE.value)
    for flag in (CHECKPOINT, SCALE):
        if flag.present:
            raise UserError(f"--{flag.name} is about --guide, which was not given")
    return run
