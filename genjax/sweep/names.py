"""What the folder of a run is called: what was overridden, ``learning_rate=0.001,seed=1``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from genjax.sweep.space import Overrides, key_of

UNCHANGED = "unchanged"  # the run that overrides nothing
_LENGTH = 120  # of a name, well below what file systems allow
_ODD = re.compile(r"[^\w.+=,-]+", re.ASCII)


def run_names(runs: Sequence[Overrides], taken: Mapping[str, Overrides] | None = None) -> list[str]:
    """A name for each run.

    A setting is called by the last part of its dotted name, or by as many as tell it from the others that vary. Numbers
    are shown with 6 digits, or with all where two runs would be called the same.

    Args:
      runs: different from each other, by ``key_of``.
      taken: names that are given already. A run that is among them keeps its name.
    """
    taken = dict(taken or {})
    given = {key_of(overrides): name for name, overrides in taken.items()}
    short = short_names({name for overrides in [*runs, *taken.values()] for name in overrides})
    used = set(taken)
    for form in (_digits, repr):
        new = {key_of(o): _name(o, short, form) for o in runs if key_of(o) not in given}
        for key, name in new.items():
            if name not in used and list(new.values()).count(name) == 1:
                given[key] = name
        used = set(given.values())
    for overrides in runs:  # alike but for characters that no folder's name can have
        if (key := key_of(overrides)) not in given:
            given[key] = _shortened(_name(overrides, short, repr), key, always=True)
    return [given[key_of(overrides)] for overrides in runs]


def short_names(settings: Iterable[str]) -> dict[str, str]:
    """Dotted name to the shortest end of it that no other of ``settings`` has."""
    split = {name: name.split(".") for name in sorted(settings)}
    result = {}
    for name, parts in split.items():
        others = [other for key, other in split.items() if key != name]
        count = next((n for n in range(1, len(parts)) if all(o[-n:] != parts[-n:] for o in others)), len(parts))
        result[name] = ".".join(parts[-count:])
    return result


def _digits(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _name(overrides: Mapping[str, Any], short: Mapping[str, str], form: Any) -> str:
    def shown(value: Any) -> str:
        if isinstance(value, list | tuple):
            return "x".join(shown(item) for item in value)
        return form(value) if isinstance(value, float) else str(value)

    text = ",".join(f"{short[name]}={shown(value)}" for name, value in overrides.items()) or UNCHANGED
    return _shortened(_ODD.sub("-", text), key_of(overrides))


def _shortened(name: str, key: str, always: bool = False) -> str:
    if len(name) <= _LENGTH and not always:
        return name
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    return f"{name[: _LENGTH - 9]}-{digest}"
