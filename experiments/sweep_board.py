"""What TensorBoard reads of a sweep: ``tensorboard/`` in its folder, with a link to each run by its name.

So a curve is called ``learning_rate=0.001,seed=1``, and the HParams tab has a column for each setting that varies and
is of the sections that a training writes there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from experiments.sweep_folder import Sweep, SweepRun
from genjax.io.writer import describe_hparams, read_metrics
from genjax.train.member import HPARAMS
from genjax.types import UserError

FOLDER = "tensorboard"


def update(sweep: Sweep) -> Path:
    """Links what is not linked yet, and says anew what varies. Gives the folder."""
    folder = sweep.path / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for run in sweep.runs:
        link = folder / run.name
        if not link.is_symlink():
            os.symlink(os.path.join("..", run.name, "tensorboard"), link)
    metrics = list(dict.fromkeys([sweep.metric, *_logged(sweep.runs)] if sweep.metric else _logged(sweep.runs)))
    varied = [name for name in sweep.varied if name.partition(".")[0] in HPARAMS]  # other columns would stay empty
    values = {name: [run.overrides[name] for run in sweep.runs if name in run.overrides] for name in varied}
    describe_hparams(folder, values, metrics)
    return folder


def _logged(runs: Sequence[SweepRun]) -> list[str]:
    """Names of the evaluation metrics of the first run that has any."""
    for run in runs:
        try:
            names = {name for record in read_metrics(run.workdir.metrics) for name in record}
        except UserError:
            continue
        if found := sorted(name for name in names if name.startswith("eval/")):
            return found
    return []
