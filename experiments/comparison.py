"""Two groups of runs against each other in one number."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.groups import Group, measured
from genjax.evaluators.verdict import Verdict, mismatch, smaller_is_better, verdict
from genjax.io.files import read_json
from genjax.types import UserError

COMPARISONS = "comparisons.json"


@dataclasses.dataclass(frozen=True)
class Side:
    """A run on one side of a comparison: how to call it, and what its ``evaluation.json`` says."""

    name: str
    evaluation: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two groups by their names, and the number they are compared in."""

    a: str
    b: str
    metric: str


def compared(
    first: Sequence[Side], second: Sequence[Side], metric: str, better: str | None = None, across: bool = False
) -> tuple[Verdict, tuple[list[float], list[float]]]:
    """The verdict, and the numbers of both sides.

    Args:
      first, second: runs that differ in their seed alone, at least two a side.
      metric: EVALUATOR/NUMBER.
      better: "smaller" or "larger", None for what the metric's name says.
      across: compare numbers of different protocols nevertheless.

    Raises:
      UserError: a run lacks the number, stands there twice, or is of another protocol; or a side is too small.
    """
    smaller = smaller_is_better(metric) if better is None else better == "smaller"
    if smaller is None:
        raise UserError(f"--metric={metric}: which way is better is not known; accepted: with --better")
    sides = [*first, *second]
    if len({side.name for side in sides}) < len(sides):
        raise UserError("a run is named twice; accepted: each once")
    records = {side.name: _record(side, metric) for side in sides}
    for side in sides[1:]:
        if (difference := mismatch(records[sides[0].name], records[side.name])) and not across:
            raise UserError(
                f"{sides[0].name} and {side.name} are of different protocols: {difference}; see --across_protocols"
            )
    for group in (first, second):  # two samplers may be compared, but one group can't be of two
        words = {measured(side.evaluation) for side in group}
        if len(words) > 1 and not across:
            found = "; ".join(sorted(words))
            raise UserError(
                f"{group[0].name} and others of its group are measured differently: {found}; see --across_protocols"
            )
    number = metric.partition("/")[2]
    numbers = tuple([float(records[side.name]["scalars"][number]) for side in group] for group in (first, second))
    assert len(numbers) == 2
    try:
        return verdict(*numbers, smaller=smaller), numbers
    except ValueError as error:
        raise UserError(str(error)) from error


def _record(side: Side, metric: str) -> Mapping[str, Any]:
    evaluator, _, number = metric.partition("/")
    evaluators = side.evaluation["evaluators"]
    if evaluator not in evaluators or number not in evaluators[evaluator]["scalars"]:
        known = [f"{name}/{key}" for name, record in evaluators.items() for key in record["scalars"]]
        raise UserError(f"--metric={metric}: not in {side.name}; accepted: {', '.join(known)}")
    return evaluators[evaluator]


def sides_of(group: Group) -> list[Side]:
    return [Side(str(run.path), run.evaluation) for run in group.runs]


def named(groups: Sequence[Group], name: str) -> Group:
    """The group of that name; raises UserError with the names there are."""
    for group in groups:
        if group.name == name:
            return group
    raise UserError(f"{name!r} is no group; accepted: {', '.join(repr(group.name) for group in groups)}")


def parsed(given: Sequence[str]) -> list[Comparison]:
    """Comparisons from ``A:B:EVALUATOR/NUMBER``; raises UserError for another form."""
    found = []
    for text in given:
        parts = text.split(":")
        if len(parts) != 3 or not all(parts):
            raise UserError(f"--compare={text}: accepted: GROUP:GROUP:EVALUATOR/NUMBER, such as a:b:eval/accuracy")
        found.append(Comparison(*parts))
    return found


def stored(folder: Path) -> list[Comparison]:
    """What an earlier report wrote down to compare."""
    path = folder / COMPARISONS
    if not path.exists():
        return []
    try:
        return [Comparison(**record) for record in read_json(path)]
    except TypeError as error:
        raise UserError(f"{path}: accepted: a list of objects with a, b and metric") from error


def lines(comparisons: Sequence[Comparison], groups: Sequence[Group]) -> list[tuple[Comparison, str]]:
    """Each comparison with its verdict in words."""
    found = []
    for comparison in comparisons:
        first, second = (named(groups, name) for name in (comparison.a, comparison.b))
        answer, _ = compared(sides_of(first), sides_of(second), comparison.metric)
        found.append((comparison, answer.line((comparison.a, comparison.b))))
    return found
