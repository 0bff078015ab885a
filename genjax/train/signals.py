"""SIGINT and SIGTERM taken over for a while."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class Handled:
    """While entered, SIGINT and SIGTERM go to ``arrived``; afterwards to what they went to before."""

    def __init__(self):
        self._before: dict[int, Any] = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self.arrived)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def arrived(self, number: int, frame: FrameType | None) -> None:
        """Called with each signal, between two instructions of whatever runs."""
        raise NotImplementedError
