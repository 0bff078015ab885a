"""The table of data sources. A config section names one and holds its keyword arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from genjax.data.arrays import arrays
from genjax.data.base import ArraySource, Source, in_memory
from genjax.data.embedded import digits
from genjax.data.folder import folder
from genjax.data.procedural import shapes
from genjax.data.records import tfds
from genjax.data.stacked import stacked
from genjax.types import UserError

__all__ = [
    "SOURCES",
    "ArraySource",
    "Source",
    "arrays",
    "digits",
    "folder",
    "in_memory",
    "load",
    "shapes",
    "stacked",
    "tfds",
]

SOURCES: dict[str, Callable[..., Source]] = {
    "arrays": arrays,
    "digits": digits,
    "folder": folder,
    "shapes": shapes,
    "stacked": stacked,
    "tfds": tfds,
}


def load(source: str, /, split: str, **kwargs: Any) -> Source:
    """One split of the named source.

    Args:
      source: a key of ``SOURCES``.
      split: ``"train"`` or ``"test"``, or a part of one such as ``"train[:90%]"``.
      **kwargs: keyword arguments of the source's constructor.

    Raises:
      UserError: unknown source or argument (lists the valid ones), and what the constructor raises.
    """
    if source not in SOURCES:
        raise UserError(f"data: unknown source {source!r}; valid names: {', '.join(sorted(SOURCES))}")
    constructor = SOURCES[source]
    try:
        inspect.signature(constructor).bind(split=split, **kwargs)
    except TypeError as error:
        valid = ", ".join(name for name in inspect.signature(constructor).parameters if name != "split")
        raise UserError(f"data: {source}: {error}; its arguments: {valid or 'none'}") from error
    return constructor(split=split, **kwargs)
