"""The figures of a sweep's report: every varied setting against the metric, and the curves of all runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.sweep_outcomes import Found, Outcome, described
from genjax.sweep.names import short_names

_COLUMNS = 3  # of panels
_LEGEND = 8  # settings that are named
_DECADES = 20  # a setting whose largest value is so many times its smallest is drawn to a logarithmic scale


def settings_figure(found: Found) -> np.ndarray:
    """A panel for each varied setting but the seed, a point for each run, uint8 ``[H, W, 3]``.

    Runs without a result are crosses at the lower edge; results far worse than most are arrows at the edge.
    """
    short = short_names(found.sweep.varied)
    columns = min(len(found.varied), _COLUMNS)
    rows = math.ceil(len(found.varied) / columns)
    figure, draw = _figure(4.0 * columns, 3.2 * rows)
    low, high = _range([outcome.value for outcome in found.outcomes if outcome.value is not None], found.smaller)
    for position, name in enumerate(found.varied, 1):
        axes = figure.add_subplot(rows, columns, position)
        outcomes = [outcome for outcome in found.outcomes if name in outcome.run.overrides]
        place = _scale(axes, [outcome.run.overrides[name] for outcome in outcomes])
        _points(axes, outcomes, lambda outcome, name=name, place=place: place(outcome.run.overrides[name]), low, high)
        axes.set_ylim(low, high)
        axes.set_xlabel(short[name])
        axes.set_ylabel(found.metric)
        axes.grid(alpha=0.3)
    return draw()


def curves_figure(found: Found) -> np.ndarray:
    """The metric of every run against the step, a colour for each setting, uint8 ``[H, W, 3]``.

    Crosses are where a run was stopped or diverged.
    """
    from matplotlib import colormaps

    figure, draw = _figure(7.5, 4.2)
    axes = figure.add_subplot()
    few = len(found.settings) <= 10
    colours = colormaps["tab10" if few else "viridis"]
    for rank, setting in enumerate(found.settings):
        colour = colours(rank if few else rank / (len(found.settings) - 1))
        label = described(found, setting) if rank < _LEGEND else None
        for outcome in setting.outcomes:
            points = [(step, value) for step, value in outcome.curve if math.isfinite(value)]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, label=label, linewidth=1.2)
                if outcome.state in ("stopped", "diverged"):
                    axes.plot(*points[-1], "x", color=colour)
                label = None
    ends = [outcome.curve[-1][1] for outcome in found.outcomes if outcome.curve]
    axes.set_ylim(*_range([value for value in ends if math.isfinite(value)], found.smaller))
    axes.set_xlabel("step")
    axes.set_ylabel(found.metric)
    axes.grid(alpha=0.3)
    if any(setting.mean is not None for setting in found.settings):
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return draw()


def _figure(width: float, height: float) -> tuple[Any, Callable[[], np.ndarray]]:
    """An empty figure in inches, and what draws it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)

    def draw() -> np.ndarray:
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    return figure, draw


def _range(values: Sequence[float], smaller: bool) -> tuple[float, float]:
    """Limits of the metric's axis: all values, but for some that are far worse than the rest."""
    if not values:
        return 0.0, 1.0
    signed = np.sort(np.asarray(values) * (1.0 if smaller else -1.0))
    best, most = signed[0], np.quantile(signed, 0.75)
    worst = min(signed[-1], most + 3 * (most - best))
    room = 0.06 * (worst - best) or 0.05 * abs(best) or 1.0
    limits = best - room, worst + room
    return limits if smaller else (-limits[1], -limits[0])


def _scale(axes: Any, values: Sequence[Any]) -> Callable[[Any], float]:
    """Sets the horizontal axis up for the values of a setting, and gives where each of them lies."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        if min(values) > 0 and max(values) >= _DECADES * min(values):
            axes.set_xscale("log")
        return float
    names = sorted({str(value) for value in values})
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)
    return lambda value: float(names.index(str(value)))


def _points(axes: Any, outcomes: Sequence[Outcome], place: Callable[[Outcome], float], low: float, high: float) -> None:
    shown = [(place(o), o.value) for o in outcomes if o.value is not None]
    inside = [(x, y) for x, y in shown if low <= y <= high]
    if inside:
        axes.scatter(*zip(*inside, strict=True), s=18, alpha=0.7, zorder=3)
    for x, y in shown:
        if not low <= y <= high:
            axes.plot(x, low if y < low else high, "v" if y < low else "^", color="tab:red", clip_on=False)
    missing = [place(o) for o in outcomes if o.value is None and o.state != "new"]
    axes.plot(missing, [low] * len(missing), "x", color="tab:red", clip_on=False, zorder=4)
    means: dict[float, list[float]] = {}
    for x, y in shown:
        means.setdefault(x, []).append(y)
    if len(shown) > len(means) > 1:  # several runs at a value
        line = sorted((x, float(np.mean(values))) for x, values in means.items())
        line = [(x, y) for x, y in line if low <= y <= high]
        axes.plot([x for x, _ in line], [y for _, y in line], linewidth=1, alpha=0.6)
