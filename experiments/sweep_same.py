"""Which runs of a sweep are the same run: those of one config, whether a setting was overridden or is the config's own.

What a config says itself is read from the folders of runs that were begun without overriding it, for the file may have
changed since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from genjax.io.workdir import Workdir
from genjax.sweep import Overrides, key_of, unique
from genjax.types import UserError

_UNKNOWN = object()


class Run(Protocol):
    """What is looked at of a run of a sweep."""

    @property
    def overrides(self) -> Overrides: ...

    @property
    def workdir(self) -> Workdir: ...


def as_begun(runs: Sequence[Run], wanted: Sequence[Overrides]) -> list[Overrides]:
    """``wanted``, each as the run of a sweep that it is, if it is one, and each once.

    So ``{"rate": 0.1, "seed": 0}`` is the run ``{"rate": 0.1}`` where that was begun with the seed 0.
    """
    base = base_of(runs, {name for overrides in wanted for name in overrides})
    known = {key_of(run.overrides): run.overrides for run in runs}
    alike: dict[str, Overrides] = {}
    for run in runs:
        alike.setdefault(_identity(run.overrides, base), run.overrides)
    found = []
    for overrides in wanted:
        first = alike.setdefault(_identity(overrides, base), overrides)
        found.append(known.get(key_of(overrides), first))
    return unique(found)


def base_of(runs: Sequence[Run], names: Iterable[str] = ()) -> dict[str, Any]:
    """What the config itself says, as far as begun runs show and agree on it.

    Args:
      names: settings asked about beside those that ``runs`` override.
    """
    names = set(names).union(*(run.overrides for run in runs))
    base: dict[str, Any] = {}
    unsure = set()
    for run in runs:
        for name, value in _own(run, names).items():
            if key_of({name: base.setdefault(name, value)}) != key_of({name: value}):
                unsure.add(name)  # the file was changed between the two
    return {name: value for name, value in base.items() if name not in unsure}


def completed(run: Run, names: Iterable[str], base: Mapping[str, Any]) -> Overrides:
    """The values of the settings that a run trains with, less those that it neither overrides nor is known to have."""
    names = set(names)
    return {name: base[name] for name in names if name in base} | _own(run, names) | run.overrides


def _own(run: Run, names: set[str]) -> dict[str, Any]:
    """What the config of a begun run says of settings that the run does not override."""
    # Where a run is trained may change from one command to the next, so what it began with tells nothing of others.
    names = {name for name in names - run.overrides.keys() if not name.startswith("accelerator.")}
    if not names or not run.workdir.config.exists():
        return {}
    try:
        config = run.workdir.read_config()
    except UserError:  # which the training of this run would say
        return {}
    values = {name: _looked_up(config, name) for name in names}
    return {name: value for name, value in values.items() if value is not _UNKNOWN}


def _looked_up(config: Any, name: str) -> Any:
    for part in name.split("."):
        if not isinstance(config, Mapping) or part not in config:
            return _UNKNOWN
        config = config[part]
    return _UNKNOWN if isinstance(config, Mapping) else config


def _identity(overrides: Overrides, base: Mapping[str, Any]) -> str:
    changes = lambda name, value: name not in base or key_of({name: value}) != key_of({name: base[name]})  # noqa: E731
    return key_of({name: value for name, value in overrides.items() if changes(name, value)})
