"""Which runs can be members of one population, and what such runs share.

Members differ in the numbers of ``state.hparams`` only (``build.dynamic_settings``): one program trains them all
(``train.loop.train_population``), on data that is loaded once.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from genjax import build
from genjax.data.base import Source
from genjax.train.plan import Experiment
from genjax.types import UserError


class Builder:
    """Builds experiments that share what they can: data, and with those they could train with, evaluators too."""

    def __init__(self):
        self._splits: dict[str, tuple[Source, Source]] = {}
        self._first: dict[str, Experiment] = {}

    def __call__(self, config: Mapping[str, Any]) -> Experiment:
        """As ``build.experiment``, which raises the same."""
        config = build.to_plain(config)
        build.check_sections(config)
        if (first := self._first.get(key := _shared(config))) is not None:
            model = build.family(config, first.train.spec, first.total_steps)
            return dataclasses.replace(first, config=config, family=model)
        data = repr((config["data"], config["accelerator"]["memory_budget_mb"]))
        if data not in self._splits:
            self._splits[data] = build.data_splits(config)
        return self._first.setdefault(key, build.experiment(config, self._splits[data]))


def varied(config: Mapping[str, Any], values: Mapping[str, Sequence[Any]]) -> dict[str, Experiment]:
    """An experiment for each combination of ``values``, by a name such as ``"seed=1,learning_rate=0.001"``.

    Args:
      config: of all members.
      values: for each setting that varies, dotted (``"optim.learning_rate"``), the values it takes.

    Raises:
      UserError: as ``build.experiment``; a setting can't vary within one program, or takes a value twice.
    """
    config = build.to_plain(config)
    built = Builder()
    built(config)
    accepted = build.dynamic_settings(config)
    for name, chosen in values.items():
        if name not in accepted:
            raise UserError(f"--vary={name}: can't vary within a population; accepted: {', '.join(accepted)}")
        if len(set(chosen)) < len(chosen) or not chosen:
            raise UserError(f"--vary={name}={','.join(map(str, chosen))}: needs values, each of them once")
    last = [name.rpartition(".")[2] for name in values]
    short = values if len(set(last)) < len(last) else last
    members: dict[str, Experiment] = {}
    for combination in itertools.product(*values.values()):
        member = config
        for name, value in zip(values, combination, strict=True):
            member = _replaced(member, name.split("."), value)
        shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in combination]
        label = ",".join(f"{name}={text}" for name, text in zip(short, shown, strict=True))
        if label in members:
            raise UserError(f"--vary: two members would be called {label}; accepted: values that differ in 6 digits")
        members[label] = built(member)
    return members


def grouped(plans: Mapping[str, Experiment]) -> list[dict[str, Experiment]]:
    """The runs that can be members of one population together, for each such population, all in their order.

    Args:
      plans: by name.
    """
    groups: dict[str, dict[str, Experiment]] = {}
    for name, plan in plans.items():
        # What lives in the state is the family's to say; groups rely on it, so it is looked at.
        key = _shared(plan.config) + repr(sorted(plan.family.hparams))
        first = next(iter(groups.setdefault(key, {name: plan}).values()))
        groups[key][name] = dataclasses.replace(first, config=plan.config, family=plan.family)
    return list(groups.values())


def described(plans: Mapping[str, Experiment]) -> str:
    """A group in words: ``"12 runs, differ in seed, optim.learning_rate"``."""
    names = differing(plans.values())
    return f"{len(plans)} runs, differ in {', '.join(names)}" if names else f"{len(plans)} run"


def differing(plans: Iterable[Experiment]) -> tuple[str, ...]:
    """The settings, dotted, in which the members of a population differ."""
    configs = [plan.config for plan in plans]
    names = build.dynamic_settings(configs[0])
    return tuple(name for name in names if len({_at(config, name.split(".")) for config in configs}) > 1)


def _shared(config: Mapping[str, Any]) -> str:
    """All that a config has in common with those of other members of a population."""
    for name in build.dynamic_settings(config):
        config = _without(config, name.split("."))
    return repr(_ordered(config))


def _at(config: Any, path: Sequence[str]) -> Any:
    """What is at ``path`` of nested dicts, None where there is nothing."""
    return config if not path else _at(config[path[0]], path[1:]) if path[0] in config else None


def _ordered(value: Any) -> Any:
    return sorted((key, _ordered(item)) for key, item in value.items()) if isinstance(value, Mapping) else value


def _without(config: Any, path: Sequence[str]) -> Any:
    """A copy of nested dicts that lacks what is at ``path``."""
    if not isinstance(config, Mapping):
        return config
    kept = {key: value for key, value in config.items() if key != path[0]}
    return {**kept, path[0]: _without(config[path[0]], path[1:])} if path[1:] and path[0] in config else kept


def _replaced(config: Any, path: Sequence[str], value: Any) -> Any:
    """A copy of nested dicts with another value at ``path``."""
    return {**config, path[0]: _replaced(config[path[0]], path[1:], value) if path[1:] else value}
