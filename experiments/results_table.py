"""Every number of finished runs as one table, for programs to read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genjax.io.files import read_json

COLUMNS = (
    *("run", "family", "data", "seed", "evaluator", "metric", "value", "low", "high", "standard_error", "protocol"),
    *("step", "batch_size", "weights", "training_seconds", "device", "jax", "commit"),
)


def rows(run: Path) -> Iterator[dict[str, Any]]:
    """A row for each number of a collected run; ``low`` and ``high`` bound its 95 % interval where one is known."""
    config, evaluation, environment = (
        read_json(run / f"{name}.json") for name in ("config", "evaluation", "environment")
    )
    common = {
        "run": run.name,
        "family": evaluation["family"],
        "data": config["data"]["options"].get("name", config["data"]["source"]),
        "seed": config["seed"],
        "step": evaluation["step"],
        "batch_size": config["batch_size"],
        "weights": evaluation["weights"],
        "training_seconds": evaluation["training_seconds"],
        "device": f"{environment['backend']} ({environment['device_kind']} x {environment['device_count']})",
        "jax": environment["packages"]["jax"],
        "commit": (environment["git"] or {}).get("commit", ""),
    }
    for evaluator, record in evaluation["evaluators"].items():
        for metric, value in record["scalars"].items():
            interval = record.get(f"{metric}_interval_95") or record.get("intervals_95", {}).get(metric) or ("", "")
            yield {
                **common,
                "evaluator": evaluator,
                "metric": metric,
                "value": value,
                "low": interval[0],
                "high": interval[1],
                "standard_error": record.get("standard_error", {}).get(metric, ""),
                "protocol": record.get("protocol", ""),
            }


def table(runs: list[Path]) -> str:
    """CSV with a line of column names."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for run in runs:
        writer.writerows(rows(run))
    return out.getvalue()
