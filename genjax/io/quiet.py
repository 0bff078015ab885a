"""What Orbax says besides the exceptions it raises, which are all that a user needs."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Any

_failed = False


def quieten_orbax() -> None:
    """Keeps its forty progress lines per save, and pages about a save that failed, out of the log.

    Whoever waits for a save that failed gets the exception. Doing it again does nothing.
    """
    logging.getLogger("absl").addFilter(_wanted)
    if not isinstance(sys.unraisablehook, _Unraisable):
        sys.unraisablehook = _Unraisable(sys.unraisablehook)


def quieten_failed_save() -> None:
    """The same for coroutines and tasks that a save leaves behind when it fails; Python tells of them at its end."""
    global _failed
    _failed = True
    warnings.filterwarnings("ignore", "coroutine '.*' was never awaited", RuntimeWarning)
    logging.getLogger("asyncio").addFilter(_retrieved)


def save_failed() -> bool:
    """Whether a save has failed in this process.

    Its threads may then wait ten minutes for each other, and Python at its end for them: end with ``os._exit``.
    """
    return _failed


def _retrieved(record: logging.LogRecord) -> bool:
    return "exception was never retrieved" not in record.getMessage()


def _wanted(record: logging.LogRecord) -> bool:
    """Not its progress, and no traceback of an error in one of its threads."""
    from_orbax = f"{os.sep}orbax{os.sep}" in record.pathname
    return not (from_orbax and (record.levelno < logging.WARNING or record.exc_info))


class _Unraisable:
    """Leaves out what its storage library reports when a part of a save fails and the other parts have nobody to tell.

    Args:
      before: what everything else goes to.
    """

    def __init__(self, before: Any):
        self._before = before

    def __call__(self, unraisable: Any) -> None:
        nobody = unraisable.object is None and str(unraisable.exc_value) == "Event loop is closed"
        if not (nobody and isinstance(unraisable.exc_value, RuntimeError)):
            self._before(unraisable)
