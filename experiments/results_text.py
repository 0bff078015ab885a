"""How numbers of the results pages are written, in Markdown and HTML alike."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path

from experiments.groups import Figure, Group
from genjax.io.files import read_json

_PERCENT = ("accuracy", "label_accuracy", "smallest_class_share")
_MOST_DECIMALS = 8
NO_REFERENCE = "no reference"

INTRODUCTION = (
    "Numbers are of the last checkpoint and on the test split unless said otherwise. Runs of one config that differ in "
    "their seeds are one group; its values are means, brackets are 95 % intervals. Of several seeds an interval is "
    "Student's and speaks of other seeds; of a single seed it speaks of other test examples or samples alone. Numbers "
    "of different protocols are never averaged. Times include evaluations during the run and depend on what else the "
    "machine does."
)


def _is_share(metric: str) -> bool:
    return metric in _PERCENT or metric.startswith("share/")


def number(metric: str, value: float, half_width: float | None = None) -> str:
    """A value with as many decimals as two digits of its interval's half width have; of four digits without one."""
    scale, unit = (100.0, "%") if _is_share(metric) else (1.0, "")
    value *= scale
    if not math.isfinite(value):
        return str(value)
    if not half_width or not math.isfinite(half_width):
        return f"{value:.1f}%" if unit else f"{value:.4g}"
    decimals = min(max(1 - math.floor(math.log10(half_width * scale)), 0), _MOST_DECIMALS)
    return f"{value:.{decimals}f}{unit}"


def value(figure: Figure) -> str:
    """The mean, with its interval where one is known."""
    if figure.low is None or figure.high is None:
        return number(figure.metric, figure.mean)
    half = (figure.high - figure.low) / 2.0
    mean, low, high = (number(figure.metric, part, half) for part in (figure.mean, figure.low, figure.high))
    return f"{mean} [{low}, {high}]"


def seeds(figure_seeds: Iterable[int]) -> str:
    """``3 seeds: 0, 1, 2``."""
    listed = list(figure_seeds)
    return f"{len(listed)} seed{'s' * (len(listed) > 1)}: {', '.join(map(str, listed))}"


def reference(figure: Figure) -> str:
    """The published figure with its tolerance; empty where there is none."""
    if figure.reference is None:
        return ""
    given, tolerance = figure.reference.value, figure.reference.tolerance
    scale, unit = (100.0, "%") if _is_share(figure.metric) else (1.0, "")
    allowed = f" (tolerance {tolerance * scale:.4g}{unit})" if tolerance else ""
    return f"{given * scale:.6g}{unit}{allowed}"


def difference(figure: Figure) -> str:
    """By how much the mean is above the published figure, with its sign; empty where there is none."""
    if figure.reference is None:
        return ""
    distance = figure.reference.difference(figure.mean)
    return ("+" if distance >= 0 else "-") + _distance(figure)


def mark(figure: Figure) -> str:
    """reached, MISSED by so much, or no reference."""
    return NO_REFERENCE if figure.reference is None else figure.reference.mark(figure.mean, _distance(figure))


def _distance(figure: Figure) -> str:
    assert figure.reference is not None
    distance = abs(figure.reference.difference(figure.mean))
    return f"{distance * 100.0:.3g}%" if _is_share(figure.metric) else f"{distance:.3g}"


def duration(seconds: float) -> str:
    """Seconds as ``0.3 s``, ``45 s`` or ``12 min``."""
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def mean_duration(group: Group) -> str:
    return duration(sum(run.seconds for run in group.runs) / len(group.runs))


def verdict_on(group: Group) -> str:
    """How the group's published figures stand, in a few words."""
    count = sum(figure.reference is not None for figure in group.figures)
    if not count:
        return NO_REFERENCE
    missed = len(group.missed)
    words = [f"{count - missed} reached"] if count > missed else []
    return ", ".join([*words, *([f"{missed} MISSED"] if missed else [])])


def anchor(heading: str) -> str:
    """The name that renderers of Markdown give to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def joined(values: Iterable[object]) -> str:
    """Different values, each once, in their order."""
    return ", ".join(dict.fromkeys(str(item) for item in values if str(item)))


def rows(group: Group) -> list[Figure]:
    """The figures that have a row of their own; the others are parts of a whole, such as shares of classes."""
    return [figure for figure in group.figures if "/" not in figure.metric or figure.reference is not None]


def parts(group: Group) -> dict[str, list[Figure]]:
    """The figures that are parts of a whole, by what they are parts of."""
    found: dict[str, list[Figure]] = {}
    for figure in group.figures:
        if "/" in figure.metric and figure.reference is None:
            whole = f"{figure.evaluator}, {figure.metric.partition('/')[0]}"
            found.setdefault(f"{whole} ({seeds(figure.seeds)})", []).append(figure)
    return found


def facts(group: Group) -> list[str]:
    """What the numbers of each evaluator rest on: the plain values that its records share."""
    found = []
    for evaluator, record in group.runs[0].evaluation["evaluators"].items():
        others = [run.evaluation["evaluators"].get(evaluator, record) for run in group.runs]
        plain = {
            key: value
            for key, value in record.items()
            if isinstance(value, int | float | str) and key not in ("seconds", "seed")
        }
        same = [
            f"{key.replace('_', ' ')} {value:.5g}" if isinstance(value, float) else f"{key.replace('_', ' ')} {value}"
            for key, value in plain.items()
            if all(key in other and other[key] == value for other in others)
        ]
        seconds = [other["seconds"] for other in others if "seconds" in other]
        same += [f"measured in {duration(sum(seconds) / len(seconds))}"] if seconds else []
        if same:
            found.append(f"{evaluator}: {', '.join(same)}")
    return found


def pictures(group: Group) -> dict[str, list[tuple[str, Path]]]:
    """The PNG files of each name, with the run that each is of."""
    found: dict[str, list[tuple[str, Path]]] = {}
    for run in group.runs:
        for path in sorted(run.path.glob("*.png")):
            found.setdefault(path.stem, []).append((run.name, path))
    return dict(sorted(found.items()))


def curves(group: Group) -> dict[str, list[tuple[int, list[list[float]]]]]:
    """The evaluation metrics that were measured more than once: for each the seeds and their (step, value) points."""
    found: dict[str, list[tuple[int, list[list[float]]]]] = {}
    for run in group.runs:
        path = run.path / "curves.json"
        for name, points in (read_json(path) if path.exists() else {}).items():
            if len(points) > 1:
                found.setdefault(name.removeprefix("eval/"), []).append((run.seed, points))
    return found
