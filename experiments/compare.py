"""Compares two groups of runs that differ in their seeds, and says which is better.

  python -m experiments.compare --a='runs/wide/*' --b=runs/base/seed=0,runs/base/seed=1 --metric=eval/accuracy

--a and --b take work folders, patterns of them, or the name of a group in the results (--results), as RESULTS.md calls
it. --metric is EVALUATOR/NUMBER of evaluation.json. Numbers of different protocols are not compared unless
--across_protocols says so. Ends in a line such as "A better by 1.3 +/- 0.4 (5 and 5 runs, 95% interval)" or "no
difference seen".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

from experiments import cli

if TYPE_CHECKING:
    from experiments.comparison import Side

A = flags.DEFINE_list("a", [], "Work folders, patterns or a group's name: the first group.")
B = flags.DEFINE_list("b", [], "The second group, likewise.")
METRIC = flags.DEFINE_string("metric", None, "EVALUATOR/NUMBER, such as eval/accuracy.")
BETTER = flags.DEFINE_enum("better", None, ["smaller", "larger"], "Which way is better, where that is not known.")
ACROSS = flags.DEFINE_bool("across_protocols", False, "Compare numbers of different protocols nevertheless.")
RESULTS = flags.DEFINE_string("results", "docs/results", "Folder of collected runs in which groups have names.")


def sides(given: list[str]) -> list[Side]:
    """The runs that folders, patterns and names of groups stand for; raises UserError where there are none."""
    import glob
    from pathlib import Path

    from experiments import comparison, groups
    from genjax.io.files import read_json
    from genjax.types import UserError

    found = []
    for item in given:
        paths = [Path(item)] if Path(item).is_dir() else [Path(path) for path in sorted(glob.glob(item))]
        if not paths:
            collected = groups.groups_of(groups.read_runs(Path(RESULTS.value)))
            if item not in [group.name for group in collected]:
                known = ", ".join(repr(group.name) for group in collected)
                raise UserError(
                    f"{item}: no such folder; accepted: work folders with evaluation.json, patterns of them, or a "
                    f"group of {RESULTS.value}{': ' * bool(known)}{known}"
                )
            found += comparison.sides_of(comparison.named(collected, item))
            continue
        for path in paths:
            record = path / "evaluation.json"
            if not record.is_file():
                raise UserError(f"{path}: no evaluation.json; accepted: work folders of finished or evaluated runs")
            found.append(comparison.Side(str(path), read_json(record)))
    return found


def main() -> int:
    from experiments.comparison import compared
    from genjax.types import UserError

    if not A.value or not B.value or not METRIC.value:
        raise UserError("--a, --b and --metric are required; see --help")
    answer, numbers = compared(sides(A.value), sides(B.value), METRIC.value, BETTER.value, ACROSS.value)
    for name, mean, values in zip("AB", answer.means, numbers, strict=True):
        print(f"{name}: {METRIC.value} {mean:.6g} ({', '.join(f'{value:.6g}' for value in values)})")
    print(answer.line())
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__)
