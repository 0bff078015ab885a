"""Work folders as finished runs leave them, with numbers of the test's choosing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genjax.io.files import write_json
from genjax.io.images import save_png


def work_folder(
    path: Path,
    scalars: Mapping[str, float],
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    record: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    argv: tuple[str, ...] = ("--config=configs/my_family/my_model.py:accelerator=cpu",),
) -> Path:
    """A finished classifier's folder; ``scalars`` are those of its evaluator ``eval``.

    ``config``, ``record`` and ``evaluation`` are added to the config, the evaluator's record and ``evaluation.json``.
    """
    data = {"source": "tfds", "options": {"name": "mnist", "data_dir": f"/data/{path.name}"}}
    base = {
        "seed": seed,
        "batch_size": 8,
        "data": data,
        "model": {"family": "classifier", "width": 32},
        "accelerator": {"compute_dtype": "float32", "accumulation": 1, "platform": "cpu"},
    }
    found = {"scalars": dict(scalars), "data": {"split": "test", "where": f"/data/{path.name}"}, "examples": 100}
    found |= {"seed": seed, "seconds": 0.5, **(record or {})}
    written = {"family": "classifier", "step": 10, "checkpoint": "latest", "weights": "averaged"}
    written |= {"evaluators": {"eval": found}, "training_seconds": 60.0 + seed, "finished": True, **(evaluation or {})}
    environment = {
        "python": "3.11",
        "packages": {"jax": "0.10", "flax": "0.12"},
        "backend": "cpu",
        "device_kind": "cpu",
        "device_count": 1,
        "argv": ["train.py", *argv, f"--config.seed={seed}"],
        "git": {"commit": "0123456789abcdef", "dirty": False},
        "earlier": [],
    }
    write_json(path / "config.json", {**base, **(config or {})})
    write_json(path / "evaluation.json", written)
    write_json(path / "environment.json", environment)
    lines = [{"step": step, "time": 0.0, "eval/loss": 1.0 / step + 0.1 * seed} for step in (1, 2, 4)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    save_png(path / "images" / "samples.png", np.zeros((4, 4, 3), np.uint8))
    return path
