"""Checkpoints whose files are no longer what was written: found by their checksums, passed over, set aside."""

from __future__ import annotations

import errno
import itertools
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from genjax.io.files import reason, verify
from genjax.types import UserError

# Behind the step of a checkpoint that is kept to be looked at only:
_CORRUPT = ".corrupt"  # it was damaged
_DIVERGED = ".diverged"  # a run diverged from it, more than once
_log = logging.getLogger(__name__)


class Damage:
    """Tells the damaged steps of a checkpoint folder from the whole ones, looking at each of the latter once.

    Args:
      folder: with a folder for each step.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._whole: set[int] = set()

    def problem(self, step: int) -> str | None:
        """What is wrong with the files of a step, None for nothing.

        Raises:
          UserError: they can't be read for now, which is no damage: a drive that does not answer, a missing permission.
        """
        if step in self._whole:
            return None
        try:
            verify(self.folder / str(step))
        except FileNotFoundError:
            return None  # a live training has removed it, which whoever reads it will notice
        except ValueError as error:
            return reason(error)
        except OSError as error:
            if error.errno == errno.EIO:  # what a disk says of a sector that is gone
                return reason(error)
            raise UserError(f"checkpoint step {step} in {self.folder} cannot be read: {reason(error)}") from error
        self._whole.add(step)
        return None

    def forget(self, step: int) -> None:
        """To be called when a step is no longer what it was."""
        self._whole.discard(step)

    def first_whole(self, steps: Sequence[int]) -> int:
        """The first of the steps that is whole, with a warning about those before it; the first where none is."""
        damaged: dict[int, str] = {}
        for step in steps:
            problem = self.problem(step)
            if problem is None:
                for other, why in damaged.items():
                    _log.warning("checkpoint step %s in %s is damaged (%s); using %s", other, self.folder, why, step)
                return step
            damaged[step] = problem
        return steps[0]

    def newest_whole(self, steps: Sequence[int], say: Callable[[str], None]) -> int | None:
        """The newest of the steps that is whole, for a training to go on from; None where there is no step.

        Damaged ones behind it are renamed, so that the training can save their steps anew, and named in a line.

        Args:
          steps: ascending.
          say: takes the line.

        Raises:
          UserError: all are damaged, or one can't be read for now; they stay as they are.
        """
        damaged: dict[int, str] = {}
        for step in reversed(steps):
            problem = self.problem(step)
            if problem is None:
                for other, why in damaged.items():
                    aside = self._set_aside(other, _CORRUPT)
                    say(f"warning: checkpoint step {other} is damaged ({why}), renamed to {aside}; using step {step}")
                return step
            damaged[step] = problem
        if not damaged:
            return None
        step, why = next(iter(damaged.items()))
        raise UserError(
            f"no checkpoint in {self.folder} can be read: step {step} is damaged ({why}), and so is every step before "
            "it; remove the folder to begin anew"
        )

    def give_up(self, step: int) -> None:
        """Renames the folder of a step that is whole, but that a run diverges from again and again."""
        self.forget(step)
        self._set_aside(step, _DIVERGED)

    def _set_aside(self, step: int, why: str) -> str:
        names = (f"{step}{why}{i or ''}" for i in itertools.count())
        name = next(name for name in names if not (self.folder / name).exists())
        os.rename(self.folder / str(step), self.folder / name)
        return name
