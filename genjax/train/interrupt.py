"""SIGINT and SIGTERM as a request to save and leave."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import jax

from genjax.train.distributed import Agreement


class Interrupt:
    """While entered, the first SIGINT or SIGTERM sets ``signal``; the second ends the process at once.

    Of several processes that train one run, one may be told earlier than another, or alone; all leave at the same step:
    ``signal`` is set by ``agree`` only.

    Attributes:
      signal: the signal that arrived, or None.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self._arrived: int = 0
        self._agreement = Agreement() if jax.process_count() > 1 else None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agree(self) -> bool:
        """Exchanges what has arrived, to be called equally often by all processes; whether there is a signal."""
        if self._agreement is not None and (number := self._agreement(self._arrived)) and self.signal is None:
            self.signal = signal.Signals(number)
        return self.signal is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._arrived = number
        if self._agreement is None:
            self.signal = signal.Signals(number)
        signal.signal(number, signal.SIG_DFL)
