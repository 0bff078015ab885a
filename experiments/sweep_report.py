"""The report on a sweep: a table of its settings, the best one with its interval, and figures."""

from __future__ import annotations

import csv
import functools
import io
from collections import Counter
from pathlib import Path

from experiments.sweep_figures import curves_figure, settings_figure
from experiments.sweep_folder import STATES, SweepRun
from experiments.sweep_outcomes import Found, Setting, described, log, shown
from genjax.evaluators.verdict import verdict
from genjax.io.files import write_atomic
from genjax.io.images import save_png
from genjax.sweep.names import short_names

FOLDER = "report"  # in the sweep's
_SHOWN = 10  # settings that the command prints


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
    reasons = [(outcome.run, outcome.run.reason) for outcome in found.outcomes if outcome.run.reason]
    reasons += [(run, f"left out, for it is {first.name} again") for run, first in found.repeated]
    if reasons:
        lines += ["| run | state | reason |", "|---|---|---|"]
        lines += [f"| {run.name} | {run.state} | {reason.replace('|', chr(92) + '|')} |" for run, reason in reasons]
    return "\n".join(lines).rstrip() + "\n"


def verdicts(found: Found) -> list[str]:
    """The best setting with its interval, and whether it is seen to be better than the next."""
    ranked = [setting for setting in found.settings if setting.mean is not None]
    if not ranked:
        unsound = any(outcome.state == "finished" for outcome in found.outcomes)
        return [f"no run has finished with a finite {found.metric}" if unsound else "no run has finished"]
    best = ranked[0]
    said = ", ".join(filter(None, [_over(best), _diverged(best)]))
    lines = [f"best: {described(found, best)}: {found.metric} {_interval(best)} ({said})"]
    if len(ranked) > 1:
        lines[0] += f"; the best of {len(ranked)} is flattered by the choice, new seeds would say by how much"
        second = ranked[1]
        if min(len(best.values), len(second.values)) > 1:
            line = verdict(best.values, second.values, found.smaller).line(("the best", "the next"))
            lost = f" ({_diverged(second)})" if second.diverged else ""
            lines.append(f"against the next, {described(found, second)}{lost}: {line}")
    return lines


def _diverged(setting: Setting) -> str:
    """``3 of 5 seeds diverged``, empty where none did."""
    if not setting.diverged:
        return ""
    return f"{setting.diverged} of {setting.ended} seeds diverged" if setting.ended > 1 else "its one seed diverged"


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
        stand = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
        rows.append(
            [
                *(shown(setting.overrides[name]) if name in setting.overrides else "" for name in found.varied),
                "" if setting.mean is None else f"{setting.mean:.5g}",
                interval,
                "; ".join(filter(None, [stand, _diverged(setting)])),
            ]
        )
    return rows


def _markdown(found: Found) -> list[str]:
    names, *rows = table(found)
    return [f"| {' | '.join(row)} |" for row in (names, ["---"] * len(names), *rows)]


def text(found: Found) -> str:
    """The first settings of the table and the verdicts, for a terminal."""
    names, *rows = table(found)
    first = [names, *rows[:_SHOWN]]
    widths = [max(len(row[i]) for row in first) for i in range(len(names))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in first]
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
    found = {name: value for record in log(run) for name, value in record.items() if name.startswith("eval/")}
    return dict(sorted(found.items()))
