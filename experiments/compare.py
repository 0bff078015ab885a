"""Compares two groups of runs that differ in their seeds, and says which is better.

  python -m experiments.compare --a=runs/wide/seed=0,runs/wide/seed=1 --b=runs/base/seed=0,runs/base/seed=1 \\
      --metric=eval/accuracy

--metric is EVALUATOR/NUMBER of evaluation.json. Numbers of different protocols are not compared unless
--across_protocols says so. Ends in a line such as "A better by 1.3 +/- 0.4 (5 and 5 runs, 95% interval)" or "no
difference seen".
"""

from __future__ import annotations

from typing import Any

from absl import flags

from experiments import cli

A = flags.DEFINE_list("a", [], "Work folders of the first group.")
B = flags.DEFINE_list("b", [], "Work folders of the second group.")
METRIC = flags.DEFINE_string("metric", None, "EVALUATOR/NUMBER, such as eval/accuracy.")
BETTER = flags.DEFINE_enum("better", None, ["smaller", "larger"], "Which way is better, where that is not known.")
ACROSS = flags.DEFINE_bool("across_protocols", False, "Compare numbers of different protocols nevertheless.")


def record_of(folder: str, evaluator: str, number: str) -> dict[str, Any]:
    """What ``evaluator`` found of a run; raises UserError for a folder or number that is not there."""
    from pathlib import Path

    from genjax.io.files import read_json
    from genjax.types import UserError

    path = Path(folder) / "evaluation.json"
    if not path.is_file():
        raise UserError(f"{folder}: no evaluation.json; accepted: work folders of finished or evaluated runs")
    evaluators = read_json(path)["evaluators"]
    known = [f"{name}/{key}" for name, record in evaluators.items() for key in record["scalars"]]
    if number not in evaluators.get(evaluator, {}).get("scalars", {}):
        raise UserError(f"--metric={evaluator}/{number}: not in {path}; accepted: {', '.join(known)}")
    return evaluators[evaluator]


def main() -> int:
    from genjax.evaluators.verdict import mismatch, smaller_is_better, verdict
    from genjax.types import UserError

    if not A.value or not B.value or not METRIC.value:
        raise UserError("--a, --b and --metric are required; see --help")
    evaluator, _, number = METRIC.value.partition("/")
    smaller = smaller_is_better(number) if BETTER.value is None else BETTER.value == "smaller"
    if smaller is None:
        raise UserError(f"--metric={METRIC.value}: which way is better is not known; accepted: with --better")
    groups = [[record_of(folder, evaluator, number) for folder in group] for group in (A.value, B.value)]
    if set(A.value) & set(B.value) or any(len(set(group)) < len(group) for group in (A.value, B.value)):
        raise UserError("--a, --b: a run is named twice; accepted: each once")
    first = groups[0][0]
    for folder, other in zip([*A.value, *B.value], [*groups[0], *groups[1]], strict=True):
        if (difference := mismatch(first, other)) and not ACROSS.value:
            raise UserError(
                f"{A.value[0]} and {folder} are of different protocols: {difference}; see --across_protocols"
            )
    numbers = [[record["scalars"][number] for record in group] for group in groups]
    try:
        answer = verdict(*numbers, smaller=smaller)
    except ValueError as error:
        raise UserError(str(error)) from error
    for name, mean, values in zip("AB", answer.means, numbers, strict=True):
        print(f"{name}: {METRIC.value} {mean:.6g} ({', '.join(f'{value:.6g}' for value in values)})")
    print(answer.line())
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__)
