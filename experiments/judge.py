"""A classifier that was trained here, as the judge of another run's samples."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.restore import restore
from genjax.evaluators.judged import Judge, Judged
from genjax.train.plan import Experiment
from genjax.types import UserError

_BATCH = 250  # images the classifier sees at once: one size, so that each of its functions is one program


def judge(path: str, accelerator: str, plan: Experiment, num: int) -> Judged:
    """The evaluator that shows ``num`` samples of ``plan`` to the classifier in work folder ``path``.

    Raises:
      UserError: the run is no classifier, or of images of another shape; ``num`` is below 2.
    """
    if num < 2:
        raise UserError(f"--num={num}: a judge needs more samples; accepted: at least 2")
    run = restore(path, "latest", accelerator)
    functions = run.functions.extras
    if not {"logits", "features"} <= set(functions):
        raise UserError(f"--judge {path} is a {run.plan.family.name}; accepted: the work folder of a classifier")
    spec, wanted = run.plan.train.spec, plan.train.spec
    if spec.shape != wanted.shape:
        raise UserError(f"--judge {path} looks at images of {spec.shape}; the samples are {wanted.shape}")

    def call(name: str, images: np.ndarray) -> np.ndarray:
        return in_batches(lambda batch: functions[name](run.state, {"image": batch}), images, _BATCH)

    identity = {
        "run": Path(os.path.abspath(path)).name,
        "data": run.plan.train.provenance,
        "network": run.plan.config["model"]["network"]["name"],
        "step": int(run.state.step),
    }
    names = spec.class_names or tuple(str(i) for i in range(spec.classes))
    classifier = Judge(
        classes_of=lambda images: call("logits", images).argmax(-1),
        features_of=lambda images: call("features", images),
        identity=identity,
        class_names=names,
    )
    same_classes = (spec.classes, spec.class_names) == (wanted.classes, wanted.class_names)
    return Judged(classifier, num, labelled=plan.family.conditional and same_classes)


def in_batches(function: Callable[[np.ndarray], Any], images: np.ndarray, size: int) -> np.ndarray:
    """``function`` of all images ``[N, ...]``, always ``size`` at a time; what pads the last batch is cut off again."""
    parts = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        padding = [(0, size - len(part)), *[(0, 0)] * (images.ndim - 1)]
        parts.append(np.asarray(function(np.pad(part, padding, mode="edge")))[: len(part)])
    return np.concatenate(parts)
