"""Where two things differ, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from genjax.io.files import encode_floats

_SHOWN = 5  # things named in one message
_MISSING = object()


def different(old: Mapping[str, Any], new: Mapping[str, Any], words: str = "{key} was {old}, is {new}") -> str:
    """The settings that differ, the first of them with both values; empty where all are equal.

    Args:
      old, new: nested dictionaries of what JSON can hold.
      words: for one setting.
    """
    found = _differences(old, new, "")
    return listed([words.format(key=key, old=_show(before), new=_show(after)) for key, before, after in found])


def listed(found: Sequence[str]) -> str:
    """The first of many things that were found, for a message of one line, and how many more there are."""
    more = len(found) - _SHOWN
    return "; ".join(found[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _differences(old: Any, new: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*old, *(n for n in new if n not in old)]:
            dotted = f"{key}.{name}" if key else name
            yield from _differences(old.get(name, _MISSING), new.get(name, _MISSING), dotted)
        return
    # repr tells True from 1 and nan from nothing; 1 and 1.0 are the same number.
    number = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (old, new))
    if not (number and old == new) and repr(old) != repr(new):
        yield key, old, new


def _show(value: Any) -> str:
    if value is _MISSING:
        return "absent"
    text = json.dumps(encode_floats(value))
    return text if len(text) <= 60 else text[:57] + "..."
