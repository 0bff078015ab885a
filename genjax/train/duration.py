"""Durations with their unit: "20 epochs", "5000 steps", "3000000 examples", "10%"."""

from __future__ import annotations

import math
import re

from genjax.types import UserError

_FORM = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?(?:e[0-9]+)?)\s*(steps?|epochs?|examples?|%)\s*")


def to_steps(text: str, where: str, examples_per_step: int, train_size: int, total_steps: int | None = None) -> int:
    """Number of steps, at least 1.

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
    number, unit = float(match[1]), match[2].rstrip("s")
    scale = {"step": 1.0, "epoch": train_size / examples_per_step, "example": 1.0 / examples_per_step}
    steps = number * ((total_steps or 0) / 100 if unit == "%" else scale[unit])
    if steps <= 0:
        raise UserError(f"{where}={text!r} must be more than zero")
    return max(1, math.ceil(steps - 1e-9))
