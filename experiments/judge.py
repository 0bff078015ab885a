"""A classifier that was trained here, as the judge of another run's samples."""

from __future__ import annotations

import numpy as np

from experiments.restore import restore
from genjax.evaluators.numbers import ClassShares
from genjax.train.plan import Experiment
from genjax.types import UserError


def judge(path: str, accelerator: str, plan: Experiment, num: int) -> ClassShares:
    """The evaluator that shows ``num`` samples of ``plan`` to the classifier in work folder ``path``.

    Raises:
      UserError: the run is no classifier, or of images of another shape.
    """
    run = restore(path, "latest", accelerator)
    if "logits" not in run.functions.extras:
        raise UserError(f"--judge {path} is a {run.plan.family.name}; accepted: the work folder of a classifier")
    spec, wanted = run.plan.train.spec, plan.train.spec
    if spec.shape != wanted.shape:
        raise UserError(f"--judge {path} looks at images of {spec.shape}; the samples are {wanted.shape}")

    def predict(images: np.ndarray) -> np.ndarray:
        batches = np.array_split(images, max(1, len(images) // 250))
        logits = [np.asarray(run.functions.extras["logits"](run.state, {"image": batch})) for batch in batches]
        return np.concatenate(logits).argmax(-1)

    names = spec.class_names or tuple(str(i) for i in range(spec.classes))
    identity = {"data": run.plan.train.provenance, "network": run.plan.config["model"]["network"]["name"]}
    return ClassShares(predict, {**identity, "step": int(run.state.step)}, names, num)
