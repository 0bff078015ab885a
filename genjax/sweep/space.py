"""Lists of overrides, and how lists make longer ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from genjax.types import UserError

Overrides = dict[str, Any]
"""Dotted setting to value, ``{"optim.learning_rate": 0.001}``: what ``--config.optim.learning_rate=0.001`` says."""


def values(name: str, *chosen: Any) -> list[Overrides]:
    """One setting, a run for each value (numbers, strings, booleans, None and tuples of these).

    Raises:
      UserError: no values, or one of another kind.
    """
    if not chosen:
        raise UserError(f"values({name!r}): accepted: one value or more")
    return [{name: plain(name, value)} for value in chosen]


def seeds(num: int, first: int = 0) -> list[Overrides]:
    """The seeds ``first`` to ``first + num - 1``."""
    return values("seed", *range(first, first + num))


def product(*parts: Sequence[Overrides]) -> list[Overrides]:
    """Every combination of one run from each list, the last list varying fastest."""
    return [_joined(combination) for combination in itertools.product(*parts)]


def zipped(*parts: Sequence[Overrides]) -> list[Overrides]:
    """The first of each list together, the second of each, and so on.

    Raises:
      UserError: the lists are not equally long.
    """
    lengths = [len(part) for part in parts]
    if len(set(lengths)) > 1:
        raise UserError(f"zipped: lists of {', '.join(map(str, lengths))} runs; accepted: equally long ones")
    return [_joined(row) for row in zip(*parts, strict=True)]


def chain(*parts: Sequence[Overrides]) -> list[Overrides]:
    """The runs of each list in turn; the same run twice is one."""
    return unique(itertools.chain(*parts))


def unique(runs: Iterable[Overrides]) -> list[Overrides]:
    """Without those that were there before, in their order.

    Raises:
      UserError: something else than a string stands for the name of a setting.
    """
    found: dict[str, Overrides] = {}
    for overrides in runs:
        for name in overrides:
            if not isinstance(name, str):
                raise UserError(f"{overrides!r}: {name!r} is no setting; accepted: such as 'optim.learning_rate'")
        found.setdefault(key_of(overrides), overrides)
    return list(found.values())


def key_of(overrides: Mapping[str, Any]) -> str:
    """One string for all overrides that are the same run, in any order: 1 and 1.0 are one number, and True is none."""
    return repr(sorted((name, _plain_number(value)) for name, value in overrides.items()))


def _plain_number(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain_number(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if float(value) == value else value
    return value


def plain(name: str, value: Any) -> Any:
    """``value`` as a config can hold it, lists as tuples. Raises UserError for what can't be one setting's value."""
    if isinstance(value, list | tuple):
        return tuple(plain(name, item) for item in value)
    if hasattr(value, "item") and not isinstance(value, str):  # a NumPy scalar
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(f"{name}={value!r} is a {type(value).__name__}; accepted: a number, string, boolean, None, tuple")


def _joined(parts: Iterable[Mapping[str, Any]]) -> Overrides:
    result: Overrides = {}
    for part in parts:
        for name, value in part.items():
            if name in result:
                raise UserError(f"{name} is given {result[name]!r} and {value!r} in one run; accepted: one of them")
            result[name] = value
    return result
