"""What a process that was killed leaves in a folder of checkpoints, told by the end of a name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_TEMPORARY = ".orbax-checkpoint-tmp"  # part of the name of a folder Orbax has not finished
_DELETED = ".deleted"  # of a step that is being removed
REPLACED = ".replaced"  # of a step until the one that takes its place is whole


def remove(step: Path) -> None:
    """Removes the folder of a step. It is renamed first: a half-removed folder must never look like a checkpoint."""
    doomed = step.with_name(step.name + _DELETED)
    os.rename(step, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def put_aside(step: Path) -> None:
    """Makes room for another checkpoint of the same step; ``tidy`` brings this one back if that is never finished."""
    os.rename(step, step.with_name(step.name + REPLACED))


def remove_replaced(step: Path) -> None:
    """To be called when the folder of a step is whole: removes what it took the place of, if anything."""
    shutil.rmtree(step.with_name(step.name + REPLACED), ignore_errors=True)


def tidy(folder: Path) -> None:
    """Removes what is half written or half removed, and brings back what nothing has replaced; raises OSError."""
    for entry in list(folder.iterdir()):
        name = entry.name
        if name.endswith(REPLACED) and not (step := entry.with_name(name.removesuffix(REPLACED))).exists():
            os.rename(entry, step)
        elif _TEMPORARY in name or name.endswith((_DELETED, REPLACED)):
            shutil.rmtree(entry, ignore_errors=True)
