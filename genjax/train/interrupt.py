"""SIGINT and SIGTERM as a request to save and leave."""

from __future__ import annotations

import signal
from types import FrameType

import jax

from genjax.train.distributed import Agreement
from genjax.train.signals import Handled


class Interrupt(Handled):
    """While entered, the first SIGINT or SIGTERM sets ``signal``; the same one again ends the process at once.

    The other one does not: schedulers warn with one and say with the other that the time is over, while a run saves.

    Of several processes that train one run, one may be told earlier than another, or alone; all leave at the same step:
    ``signal`` is set by ``agree`` only.

    Attributes:
      signal: the signal that arrived, or None.
    """

    def __init__(self):
        super().__init__()
        self.signal: signal.Signals | None = None
        self._arrived: int = 0
        self._agreement = Agreement() if jax.process_count() > 1 else None

    def agree(self) -> bool:
        """Exchanges what has arrived, to be called equally often by all processes; whether there is a signal."""
        if self._agreement is not None and (number := self._agreement(self._arrived)) and self.signal is None:
            self.signal = signal.Signals(number)
        return self.signal is not None

    def arrived(self, number: int, frame: FrameType | None) -> None:
        self._arrived = self._arrived or number
        if self._agreement is None:
            self.signal = self.signal or signal.Signals(number)
        signal.signal(number, signal.SIG_DFL)
