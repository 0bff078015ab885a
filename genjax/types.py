"""Types that the whole library shares. Nothing here computes on arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

Array = jax.Array
Key = jax.Array
"""A typed PRNG key (``jax.random.key``), or an array of them."""

Params = Mapping[str, Any]
Metrics = dict[str, Array]

Batch = Mapping[str, Array | np.ndarray]
"""What a family sees of the data.

``image``  uint8 ``[B, H, W, C]``, always as stored; scaling belongs to the family
``label``  int32 ``[B]``, present when the data has classes
``index``  int32 ``[B]``, position in the split, present in evaluation only
``mask``   float32 ``[B]``, 1 for a real example and 0 for padding, evaluation only
"""


class UserError(Exception):
    """Something the user can mend: one line saying what was wrong, what is accepted and where.

    The runner prints the message without a traceback and exits with status 2.
    """


def lookup(table: Mapping[str, Any], name: str, where: str) -> Any:
    """``table[name]``, or a ``UserError`` that lists the accepted names."""
    if name not in table:
        raise UserError(f"{where}={name!r} is unknown; accepted: {', '.join(sorted(table))}")
    return table[name]


def check_fraction(**values: float) -> None:
    """Raises ValueError unless every value is in [0, 1)."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name}={value} is out of range; accepted: at least 0 and below 1")


def check_positive(**values: int) -> None:
    """Raises ValueError unless every value is at least 1."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name}={value} is too small; accepted: at least 1")


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """What a data set says about its images; configs never repeat it.

    Attributes:
      height, width: pixels.
      channels: 1 (grey) or 3 (RGB).
      classes: number of classes, 0 when the data has no labels.
      class_names: one name per class; empty when the source has none.
    """

    height: int
    width: int
    channels: int
    classes: int = 0
    class_names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.height, self.width, self.channels)

    @property
    def pixels(self) -> int:
        """Number of values in one image, the dimension of its likelihood."""
        return self.height * self.width * self.channels
