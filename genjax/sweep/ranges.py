"""Ranges, and runs drawn from them.

A longer list begins with the shorter one of the same seed, so a sweep grows by asking for more of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from genjax.sweep.space import Overrides, plain, unique
from genjax.types import UserError

SCALES = ("linear", "log", "log_to_one")
_DIGITS = 6  # significant ones that a drawn number keeps, so that the name of a run says its value


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included.

    Args:
      low, high: its ends.
      scale: in what the draws are even: the number ("linear"), its logarithm ("log"), or the logarithm of its distance
        to 1 ("log_to_one", for a momentum or decay from 0.9 to 0.9999).
      integer: whole numbers only.

    Raises:
      UserError: the ends are in the wrong order, or do not fit the scale.
    """

    low: float
    high: float
    scale: str = "linear"
    integer: bool = False

    def __post_init__(self):
        what = f"Range({self.low!r}, {self.high!r}, {self.scale!r})"
        if self.scale not in SCALES:
            raise UserError(f"{what}: accepted scales: {', '.join(SCALES)}")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise UserError(f"{what}: accepted: finite ends, the lower first")
        if self.scale == "log" and self.low <= 0:
            raise UserError(f"{what}: accepted: ends above 0 on a scale of logarithms")
        if self.scale == "log_to_one" and (self.high >= 1 or self.integer):
            raise UserError(f"{what}: accepted: ends below 1 on a scale of distances to 1")
        if self.integer and (self.low != int(self.low) or self.high != int(self.high)):
            raise UserError(f"{what}: accepted: whole ends of a range of whole numbers")

    def at(self, share: float) -> float | int:
        """The number that ``share`` (from 0 to below 1) of an even draw lies below.

        Whole numbers are equally likely on the linear scale; on the others each has the share of the interval of
        half a unit around it.
        """
        low, high = (self.low - 0.5, self.high + 0.5) if self.integer else (self.low, self.high)
        if self.scale == "linear":
            number = low + share * (high - low)
        elif self.scale == "log":
            number = math.exp(math.log(low) + share * math.log(high / low))
        else:
            number = 1.0 - (1.0 - low) * ((1.0 - high) / (1.0 - low)) ** share
        return self.kept(number)

    def kept(self, number: float) -> float | int:
        """``number`` as draws are: whole where the range is, else with 6 significant digits, and between the ends."""
        number = round(number) if self.integer else float(f"{number:.{_DIGITS}g}")
        return type(number)(min(max(number, self.low), self.high))


@dataclasses.dataclass(frozen=True, init=False)
class Choice:
    """One of some values, each as likely as the others."""

    options: tuple[Any, ...]

    def __init__(self, *options: Any):
        if not options:
            raise UserError("Choice(): accepted: one value or more")
        object.__setattr__(self, "options", tuple(plain("Choice", option) for option in options))

    def at(self, share: float) -> Any:
        """The option that ``share`` (from 0 to below 1) of an even draw falls on."""
        return self.options[min(int(share * len(self.options)), len(self.options) - 1)]


@dataclasses.dataclass(frozen=True)
class When:
    """A setting that is varied only in runs where another one has a certain value; see ``when``."""

    name: str
    options: tuple[Any, ...]
    domain: Range | Choice

    def holds(self, chosen: Mapping[str, Any]) -> bool:
        return self.name in chosen and chosen[self.name] in self.options

    def at(self, share: float) -> Any:
        return self.domain.at(share)


Domain = Range | Choice | When
Space = Mapping[str, Domain]
"""Dotted setting to what it is drawn from. A ``When`` stands behind the setting that it asks for."""


def when(name: str, equals: Any, domain: Range | Choice) -> When:
    """``domain``, in runs where the setting ``name`` is also varied and has the value ``equals`` (or one of a list)."""
    options = tuple(equals) if isinstance(equals, list) else (equals,)
    return When(name, tuple(plain(name, option) for option in options), domain)


def checked(space: Space) -> Space:
    """``space`` itself.

    Raises:
      UserError: it is empty, a domain is no domain, or a ``When`` asks for a setting that does not stand before it.
    """
    before: list[str] = []
    if not space:
        raise UserError("a space to draw from: accepted: one setting with its Range or Choice, or more")
    for name, domain in space.items():
        if not isinstance(domain, Range | Choice | When):
            raise UserError(f"{name}: {domain!r} is nothing to draw from; accepted: Range, Choice, when")
        if isinstance(domain, When) and domain.name not in before:
            raise UserError(f"{name}: when({domain.name!r}): accepted: {', '.join(before) or 'none'}, which precede it")
        before.append(name)
    return space


def random(space: Space, num: int, seed: int = 0) -> list[Overrides]:
    """``num`` independent draws; the same draw twice (of whole numbers, of choices) is one run."""
    return _drawn(space, np.random.default_rng(seed).random((_positive(num), len(checked(space)))))


def quasi_random(space: Space, num: int, seed: int = 0) -> list[Overrides]:
    """``num`` points that fill the space evenly: a scrambled Halton sequence (Owen 2017), by scipy."""
    from scipy.stats import qmc  # half a second and more, which every run of a sweep would pay

    shares = qmc.Halton(len(checked(space)), scramble=True, rng=np.random.default_rng(seed)).random(_positive(num))
    return _drawn(space, shares)


def _positive(num: int) -> int:
    if num < 1:
        raise UserError(f"num={num}: accepted: 1 draw or more")
    return num


def _drawn(space: Space, shares: np.ndarray) -> list[Overrides]:
    """A run for each row of ``shares``, ``[num, settings]`` in [0, 1)."""
    runs = []
    for row in shares.tolist():
        chosen: Overrides = {}
        for (name, domain), share in zip(space.items(), row, strict=True):
            if not isinstance(domain, When) or domain.holds(chosen):
                chosen[name] = domain.at(share)
        runs.append(chosen)
    return unique(runs)
