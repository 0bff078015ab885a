"""Durations with their unit: "20 epochs", "5000 steps", "3000000 examples", "10%"."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from genjax.types import UserError

_FORM = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?(?:e[0-9]{1,2})?)\s*(steps?|epochs?|examples?|%)\s*")


def to_steps(text: str, where: str, examples_per_step: int, train_size: int, total_steps: int | None = None) -> int:
    """Number of steps, rounded up.

    Args:
      text: a number and a unit.
      where: the config key, for the error.
      examples_per_step: consumed by one step.
      train_size: examples in one epoch.
      total_steps: what "%" refers to; without it that unit is refused.
    """
    match = _FORM.fullmatch(text)
    units = "steps, epochs, examples" + ("" if total_steps is None else " or %")
    if match is None or (match[2] == "%" and total_steps is None):
        raise UserError(f"{where}={text!r} is no duration; accepted: a number and one of {units}, such as '20 epochs'")
    unit = match[2].rstrip("s")
    scale = {
        "step": Fraction(1),
        "epoch": Fraction(train_size, examples_per_step),
        "example": Fraction(1, examples_per_step),
        "%": Fraction(total_steps or 0, 100),
    }
    # Exact: a third of an epoch, three times, must not be rounded up to a step more.
    steps = math.ceil(Fraction(match[1]) * scale[unit])
    if steps < 1:
        raise UserError(f"{where}={text!r} must be more than zero")
    if steps >= 2**31:
        raise UserError(f"{where}={text!r} is too long; accepted: less than 2^31 steps")
    return steps
