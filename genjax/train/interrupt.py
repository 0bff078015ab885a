"""SIGINT and SIGTERM as a request to save and leave."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class Interrupt:
    """While entered, the first SIGINT or SIGTERM sets ``signal``; the second ends the process at once.

    Attributes:
      signal: the signal that arrived, or None.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        signal.signal(number, signal.SIG_DFL)
