"""What a sweep found: a table of its settings, the best one with its interval, and figures."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.groups import own_interval
from experiments.sweep_figures import curves_figure, settings_figure
from experiments.sweep_folder import STATES, Sweep, SweepRun
from genjax.evaluators.verdict import mean_interval, smaller_is_better, verdict
from genjax.io.files import read_json, write_atomic
from genjax.io.images import save_png
from genjax.io.writer import read_metrics
from genjax.sweep.names import short_names
from genjax.types import UserError

FOLDER = "report"  # in the sweep's
_SHOWN = 10  # settings that the command prints


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


@dataclasses.dataclass(frozen=True)
class Setting:
    """The runs that differ in their seed alone.

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


@dataclasses.dataclass(frozen=True)
class Found:
    """All that the report is made of; ``settings`` are sorted, the best first, those without a result last."""

    sweep: Sweep
    metric: str
    smaller: bool
    settings: tuple[Setting, ...]

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
    logs = {run.name: _log(run) for run in sweep.runs}
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
    groups: dict[str, list[Outcome]] = {}
    for run in sweep.runs:
        curve = tuple((record["step"], record[name]) for record in logs[run.name] if name in record)
        key = repr(sorted((k, v) for k, v in run.overrides.items() if k != "seed"))
        groups.setdefault(key, []).append(Outcome(run, run.state, curve))
    settings = [_setting(outcomes, name) for outcomes in groups.values()]
    rank = lambda s: (s.mean is None, 0.0 if s.mean is None else s.mean if smaller else -s.mean)  # noqa: E731
    return Found(sweep, name, smaller, tuple(sorted(settings, key=rank)))


def _log(run: SweepRun) -> list[dict[str, Any]]:
    try:
        return read_metrics(run.workdir.metrics)
    except UserError:
        return []


def _setting(outcomes: Sequence[Outcome], metric: str) -> Setting:
    overrides = {name: value for name, value in outcomes[0].run.overrides.items() if name != "seed"}
    setting = Setting(overrides, tuple(outcomes), None, None)
    if len(setting.values) > 1:
        return dataclasses.replace(setting, **dict(zip(("low", "high"), mean_interval(setting.values), strict=True)))
    for outcome in outcomes:
        if outcome.value is not None:
            low, high = _own_interval(outcome.run, metric)
            return dataclasses.replace(setting, low=low, high=high)
    return setting


def _own_interval(run: SweepRun, metric: str) -> tuple[float | None, float | None]:
    short = metric.removeprefix("eval/")
    for record in read_json(run.workdir.evaluation)["evaluators"].values():
        if short in record["scalars"]:
            return own_interval(record, short)
    return None, None


def write(found: Found) -> Path:
    """Writes ``report/`` in the sweep's folder: the page, a table of all runs, and figures. Gives the page's path."""
    folder = found.sweep.path / FOLDER
    figures = {"curves.png": curves_figure(found)}
    if found.varied:
        figures["settings.png"] = settings_figure(found)
    for name, image in figures.items():
        save_png(folder / name, image)
    write_atomic(folder / "runs.csv", runs_table(found).encode())
    write_atomic(folder / "report.md", page(found).encode())
    return folder / "report.md"


def page(found: Found) -> str:
    """The report in Markdown."""
    sweep = found.sweep
    states = Counter(outcome.state for outcome in found.outcomes)
    counts = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
    better = "smaller" if found.smaller else "larger"
    lines = [
        f"# {sweep.path.name}",
        "",
        f"`--config={sweep.config}`{''.join(f' `{flag}`' for flag in sweep.flags)}, executor {sweep.executor}: "
        f"{len(found.outcomes)} runs of {len(found.settings)} settings ({counts}). {found.metric}, {better} is better.",
        "",
        *(f"- {line}" for line in verdicts(found)),
        "",
        *_markdown(found),
        "",
        *(["![each setting against the metric](settings.png)", ""] if found.varied else []),
        "![curves](curves.png)",
        "",
    ]
    reasons = [(outcome.run, outcome.state) for outcome in found.outcomes if outcome.run.reason]
    if reasons:
        lines += ["| run | state | reason |", "|---|---|---|"]
        lines += [f"| {run.name} | {state} | {run.reason.replace('|', chr(92) + '|')} |" for run, state in reasons]
    return "\n".join(lines).rstrip() + "\n"


def verdicts(found: Found) -> list[str]:
    """The best setting with its interval, and whether it is seen to be better than the next."""
    ranked = [setting for setting in found.settings if setting.mean is not None]
    if not ranked:
        return ["no run has finished"]
    best = ranked[0]
    lines = [f"best: {described(found, best)}: {found.metric} {_interval(best)} ({_over(best)})"]
    if len(ranked) > 1:
        lines[0] += f"; the best of {len(ranked)} is flattered by the choice, new seeds would say by how much"
        second = ranked[1]
        if min(len(best.values), len(second.values)) > 1:
            line = verdict(best.values, second.values, found.smaller).line(("the best", "the next"))
            lines.append(f"against the next, {described(found, second)}: {line}")
    return lines


def described(found: Found, setting: Setting) -> str:
    """``learning_rate=0.001, width=64``; what overrides nothing is the config as it is."""
    short = short_names(found.sweep.varied)
    shown = [f"{short[name]}={_shown(value)}" for name, value in setting.overrides.items()]
    return ", ".join(shown) or "the config as it is"


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _interval(setting: Setting) -> str:
    assert setting.mean is not None
    if setting.low is None or setting.high is None:
        return f"{setting.mean:.5g}"
    return f"{setting.mean:.5g} [{setting.low:.5g}, {setting.high:.5g}]"


def _over(setting: Setting) -> str:
    if len(setting.values) > 1:
        return f"mean of {len(setting.values)} seeds, 95 % interval of the mean"
    return "one seed" + (", 95 % interval of its own evaluation" if setting.low is not None else "")


def table(found: Found) -> list[list[str]]:
    """A row for each setting under a row of names: what varies, the mean with its interval, and how its runs stand."""
    short = short_names(found.sweep.varied)
    rows = [[*(short[name] for name in found.varied), found.metric, "95 % interval", "runs"]]
    for setting in found.settings:
        states = Counter(outcome.state for outcome in setting.outcomes)
        interval = "" if setting.low is None else f"[{setting.low:.5g}, {setting.high:.5g}]"
        rows.append(
            [
                *(_shown(setting.overrides[name]) if name in setting.overrides else "" for name in found.varied),
                "" if setting.mean is None else f"{setting.mean:.5g}",
                interval,
                ", ".join(f"{states[state]} {state}" for state in STATES if states[state]),
            ]
        )
    return rows


def _markdown(found: Found) -> list[str]:
    names, *rows = table(found)
    return [f"| {' | '.join(row)} |" for row in (names, ["---"] * len(names), *rows)]


def text(found: Found) -> str:
    """The first settings of the table and the verdicts, for a terminal."""
    names, *rows = table(found)
    shown = [names, *rows[:_SHOWN]]
    widths = [max(len(row[i]) for row in shown) for i in range(len(names))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]
    if len(rows) > _SHOWN:
        lines.append(f"and {len(rows) - _SHOWN} more settings")
    return "\n".join([*lines, *verdicts(found)])


def runs_table(found: Found) -> str:
    """CSV with a line for each run."""
    names = found.sweep.varied
    numbers = functools.reduce(lambda seen, outcome: seen | _last(outcome.run), found.outcomes, {})
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["run", *names, "state", "reason", "step", *numbers])
    for outcome in found.outcomes:
        run, last = outcome.run, _last(outcome.run)
        chosen = [run.overrides[name] if name in run.overrides else "" for name in names]
        step = outcome.curve[-1][0] if outcome.curve else ""
        writer.writerow([run.name, *chosen, outcome.state, run.reason, step, *(last.get(name, "") for name in numbers)])
    return file.getvalue()


def _last(run: SweepRun) -> dict[str, float]:
    """The last value of each evaluation metric."""
    found = {name: value for record in _log(run) for name, value in record.items() if name.startswith("eval/")}
    return dict(sorted(found.items()))
