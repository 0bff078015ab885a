"""What a person sees of a run: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from tqdm import tqdm

LINE_SECONDS = 10.0


def clock(seconds: float) -> str:
    """``"1:02:03"`` or ``"2:03"``."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def numbers(values: Mapping[str, float]) -> str:
    """``"elbo -101.2  kl 24.53"``."""
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


class Progress:
    """Step, rate, time left and the family's headline numbers.

    Args:
      total, start: steps of the run, and how many of them are done.
      stream: where to; a bar is drawn when it is a terminal.
    """

    def __init__(self, total: int, start: int, stream: TextIO | None = None):
        self._stream = stream or sys.stdout
        self._total, self._last = total, 0.0
        self._bar = None
        if self._stream.isatty():
            form = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
            self._bar = tqdm(
                total=total, initial=start, unit="step", file=self._stream, bar_format=form, dynamic_ncols=True
            )

    def update(self, step: int, images_per_second: float, seconds_left: float, headline: Mapping[str, float]) -> None:
        """Shows where the run is; on a terminal at each call, otherwise at most every ``LINE_SECONDS``."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"{images_per_second:,.0f} images/s  {numbers(headline)}", refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        if now - self._last < LINE_SECONDS and step < self._total:
            return
        self._last = now
        self.say(
            f"step {step}/{self._total} ({step / self._total:.0%})  {images_per_second:,.0f} images/s  "
            f"{clock(seconds_left)} left  {numbers(headline)}"
        )

    def say(self, line: str) -> None:
        """Prints a line without disturbing the bar."""
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
