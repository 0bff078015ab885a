"""What the runs of a sweep have reached: outcomes, gathered by setting, the best setting first."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.groups import own_interval
from experiments.sweep_folder import ENDED, Sweep, SweepRun
from experiments.sweep_same import base_of, completed
from genjax.evaluators.verdict import mean_interval, smaller_is_better
from genjax.io.files import read_record
from genjax.io.writer import read_metrics
from genjax.sweep import key_of
from genjax.sweep.names import short_names
from genjax.types import UserError

_SAME = 1e-6  # relative; an accelerator may give a last digit more or less for the same evaluation


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A run, and the metric at each of its evaluations as (step, value)."""

    run: SweepRun
    state: str
    curve: tuple[tuple[int, float], ...]

    @property
    def value(self) -> float | None:
        """The last value of a run that finished, None for others and where it is not finite."""
        if self.state != "finished" or not self.curve or not math.isfinite(self.curve[-1][1]):
            return None
        return self.curve[-1][1]

    @property
    def diverged(self) -> bool:
        """Whether it diverged, or finished with a value that is not finite."""
        return self.state == "diverged" or (self.state == "finished" and bool(self.curve) and self.value is None)


@dataclasses.dataclass(frozen=True)
class Setting:
    """The runs that differ in their seed alone.

    The mean is that of the seeds that survived, so it says little of a setting whose seeds diverged: ``diverged`` is to
    be said wherever it is shown.

    Attributes:
      overrides: what they share.
      outcomes: of the runs.
      low, high: 95 % interval of the mean: Student's over runs where several have finished, else that of the run's own
        evaluation, which speaks of other examples and not of other seeds. None where none is known.
    """

    overrides: Mapping[str, Any]
    outcomes: tuple[Outcome, ...]
    low: float | None
    high: float | None

    @property
    def values(self) -> list[float]:
        return [outcome.value for outcome in self.outcomes if outcome.value is not None]

    @property
    def mean(self) -> float | None:
        return sum(self.values) / len(self.values) if self.values else None

    @property
    def ended(self) -> int:
        """Runs that are not trained any more."""
        return sum(outcome.state in ENDED for outcome in self.outcomes)

    @property
    def diverged(self) -> int:
        """Runs among them that diverged."""
        return sum(outcome.diverged for outcome in self.outcomes)

    def rank(self, smaller: bool) -> tuple[bool, float, float]:
        """What settings are sorted by: the share of their runs that diverged goes before the mean of the others."""
        mean = 0.0 if self.mean is None else self.mean if smaller else -self.mean
        return self.mean is None, self.diverged / max(self.ended, 1), mean


@dataclasses.dataclass(frozen=True)
class Found:
    """All that the report is made of.

    ``settings`` are sorted, the best first; those of which a seed diverged are behind all others, and those without a
    result last. A seed is one outcome of a setting: ``repeated`` names the runs that are left out, for they are others
    again, with those others.
    """

    sweep: Sweep
    metric: str
    smaller: bool
    settings: tuple[Setting, ...]
    repeated: tuple[tuple[SweepRun, SweepRun], ...] = ()

    outcomes = property(lambda self: [outcome for setting in self.settings for outcome in setting.outcomes])

    @property
    def varied(self) -> tuple[str, ...]:
        return tuple(name for name in self.sweep.varied if name != "seed")


def found(sweep: Sweep, metric: str = "") -> Found:
    """Reads the runs of a sweep.

    Args:
      metric: ``NAME``, ``NAME:min`` or ``NAME:max``; the sweep's own unless given.

    Raises:
      UserError: nothing says which metric, no run has logged it, or nothing says which way is better.
    """
    logs = {run.name: log(run) for run in sweep.runs}
    there = sorted({name for log in logs.values() for record in log for name in record if name.startswith("eval/")})
    name, _, mode = metric.partition(":")
    name, mode = (name, mode) if name else (sweep.metric, sweep.mode)
    accepted = f"accepted: --metric with one of {', '.join(there) or 'none: no run has been evaluated yet'}"
    if name not in there:
        said = f"{name!r} is logged by no run" if name else "its config names no checkpoint.best"
        raise UserError(f"{sweep.path}: {said}; {accepted}")
    smaller = {"min": True, "max": False}.get(mode) if mode else smaller_is_better(name.rpartition("/")[2])
    if smaller is None:
        raise UserError(f"--metric={metric}: which way is better is not known; accepted: {name}:min, {name}:max")
    curves = {
        run.name: tuple((record["step"], record[name]) for record in logs[run.name] if name in record)
        for run in sweep.runs
    }
    groups, repeated = _grouped(sweep, [Outcome(run, run.state, curves[run.name]) for run in sweep.runs])
    settings = sorted((_setting(group, name) for group in groups), key=lambda setting: setting.rank(smaller))
    return Found(sweep, name, smaller, tuple(settings), repeated)


def _grouped(
    sweep: Sweep, outcomes: Sequence[Outcome]
) -> tuple[list[list[Outcome]], tuple[tuple[SweepRun, SweepRun], ...]]:
    """The outcomes of each setting, one for each seed, and the runs beside those with what they repeat."""
    base, names = base_of(sweep.runs, ["seed"]), {*sweep.varied, "seed"}
    groups: dict[str, dict[str, list[Outcome]]] = {}
    for outcome in outcomes:
        values = completed(outcome.run, names, base)
        seed = key_of({"seed": values.pop("seed", None)})
        groups.setdefault(key_of(values), {}).setdefault(seed, []).append(outcome)
    kept: list[list[Outcome]] = []
    repeated: list[tuple[SweepRun, SweepRun]] = []
    for seeds in groups.values():
        kept.append([])
        for same in seeds.values():
            first = min(same, key=lambda outcome: outcome.state not in ENDED)  # whatever it ended in
            kept[-1].append(first)
            repeated += [(outcome.run, first.run) for outcome in same if outcome is not first]
    return kept, tuple(repeated)


def log(run: SweepRun) -> list[dict[str, Any]]:
    """The records of a run's metrics.jsonl, none where it has not begun."""
    try:
        return read_metrics(run.workdir.metrics)
    except UserError:
        return []


def _setting(outcomes: Sequence[Outcome], metric: str) -> Setting:
    said = max((outcome.run.overrides for outcome in outcomes), key=lambda overrides: len(overrides.keys() - {"seed"}))
    overrides = {name: value for name, value in said.items() if name != "seed"}
    setting = Setting(overrides, tuple(outcomes), None, None)
    if len(setting.values) > 1:
        return dataclasses.replace(setting, **dict(zip(("low", "high"), mean_interval(setting.values), strict=True)))
    for outcome in outcomes:
        if outcome.value is not None:
            low, high = _own_interval(outcome.run, metric, outcome.value)
            return dataclasses.replace(setting, low=low, high=high)
    return setting


def _own_interval(run: SweepRun, metric: str, value: float) -> tuple[float | None, float | None]:
    """That of a value in its evaluation's record; none where the record is of another, such as one made by hand."""
    short = metric.removeprefix("eval/")
    for record in read_record(run.workdir.evaluation, "evaluators")["evaluators"].values():
        if short in record["scalars"] and math.isclose(record["scalars"][short], value, rel_tol=_SAME):
            return own_interval(record, short)
    return None, None


def described(found: Found, setting: Setting) -> str:
    """``learning_rate=0.001, width=64``; what overrides nothing is the config as it is."""
    short = short_names(found.sweep.varied)
    return (
        ", ".join(f"{short[name]}={shown(value)}" for name, value in setting.overrides.items()) or "the config as it is"
    )


def shown(value: Any) -> str:
    """A setting's value in few characters."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
