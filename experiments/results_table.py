"""Every number of finished runs as tables for programs to read: a line for each run's, and one for each group's."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from experiments import results_text as text
from experiments.groups import Group, Run, own_interval

COLUMNS = (
    *("run", "family", "data", "seed", "evaluator", "metric", "value", "low", "high", "standard_error", "protocol"),
    *("step", "examples_seen", "batch_size", "weights", "training_seconds", "device", "jax", "commit"),
)
GROUP_COLUMNS = (
    *("config", "data", "evaluator", "metric", "mean", "low", "high", "runs", "seeds", "protocol", "measured"),
    *("examples_seen", "training_seconds", "device", "commit", "versions"),
    *("reference", "tolerance", "source", "difference", "mark"),
)


def rows(run: Run) -> Iterator[dict[str, Any]]:
    """A row for each number of a collected run; ``low`` and ``high`` bound its 95 % interval where one is known."""
    common = {
        "run": run.name,
        "family": run.evaluation["family"],
        "data": run.data,
        "seed": run.seed,
        "step": run.evaluation["step"],
        "examples_seen": run.examples_seen,
        "batch_size": run.config["batch_size"],
        "weights": run.evaluation["weights"],
        "training_seconds": run.seconds,
        "device": run.device,
        "jax": run.environment["packages"]["jax"],
        "commit": (run.environment["git"] or {}).get("commit", ""),
    }
    for evaluator, record in run.evaluation["evaluators"].items():
        for metric, value in record["scalars"].items():
            low, high = own_interval(record, metric)
            yield {
                **common,
                "evaluator": evaluator,
                "metric": metric,
                "value": value,
                "low": low,
                "high": high,
                "standard_error": record.get("standard_error", {}).get(metric),
                "protocol": record.get("protocol"),
            }


def group_rows(group: Group) -> Iterator[dict[str, Any]]:
    """A row for each figure of a group; ``runs`` is how many the mean is of."""
    for figure in group.figures:
        given = figure.reference
        yield {
            "config": group.name,
            "data": group.runs[0].data,
            "evaluator": figure.evaluator,
            "metric": figure.metric,
            "mean": figure.mean,
            "low": figure.low,
            "high": figure.high,
            "runs": len(figure.runs),
            "seeds": " ".join(str(seed) for seed in figure.seeds),
            "protocol": figure.protocol,
            "measured": text.joined(run.measured for run in figure.runs),
            "examples_seen": sum(run.examples_seen for run in figure.runs) / len(figure.runs),
            "training_seconds": round(sum(run.seconds for run in figure.runs) / len(figure.runs), 1),
            "device": text.joined(run.device for run in figure.runs),
            "commit": text.joined(run.commit for run in figure.runs),
            "versions": text.joined(run.versions for run in figure.runs),
            **({} if given is None else {"reference": given.value, "tolerance": given.tolerance}),
            **({} if given is None else {"source": given.source, "difference": given.difference(figure.mean)}),
            "mark": text.mark(figure),
        }


def table(runs: Iterable[Run]) -> str:
    """CSV of every run's numbers, with a line of column names."""
    return _csv(COLUMNS, (row for run in runs for row in rows(run)))


def group_table(groups: Iterable[Group]) -> str:
    """CSV of every group's figures, with a line of column names."""
    return _csv(GROUP_COLUMNS, (row for group in groups for row in group_rows(group)))


def _csv(columns: Sequence[str], lines: Iterable[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()
