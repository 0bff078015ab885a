"""The time that evaluations take is counted through interruptions, shown, and kept with the results."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import time

from configs.vae import digits_conv
from genjax import build
from genjax.evaluators.base import Report
from genjax.io.files import read_json
from genjax.io.workdir import Workdir
from genjax.io.writer import read_metrics
from genjax.train.loop import train
from genjax.train.plan import Scheduled
from genjax.train.sharding import data_mesh

SECONDS = 0.3
CONFIG = build.to_plain(digits_conv.get_config("accelerator=cpu,smoke"))
CONFIG["checkpoint"]["best"] = ""


class Slow:
    """An evaluator of known duration; the call of that number asks the process to stop."""

    def __init__(self, stops: int):
        self.left = stops

    def __call__(self, context):
        time.sleep(SECONDS)
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return Report({"number": 1.0})


def run(path, stops):
    plan = dataclasses.replace(build.experiment(CONFIG), evaluators=(Scheduled("slow", Slow(stops), 1),))
    with Workdir.open_for_training(path, CONFIG) as workdir:
        interrupted = train(plan, workdir, data_mesh(1)).signal is not None
    return workdir, interrupted


def test_seconds_of_evaluations_add_up_over_processes(tmp_path, capsys):
    workdir, interrupted = run(tmp_path / "run", stops=2)
    assert interrupted and not workdir.evaluation.exists()
    workdir, interrupted = run(tmp_path / "run", stops=-1)
    assert not interrupted
    record = read_json(workdir.evaluation)
    assert record["evaluation_seconds"] >= 4 * SECONDS
    logged = [entry for entry in read_metrics(workdir.metrics) if "speed/evaluation_share" in entry]
    assert [entry["step"] for entry in logged] == [1, 2, 3, 4]
    assert all(entry["speed/evaluation_seconds"] >= SECONDS for entry in logged)
    assert all(0 < entry["speed/evaluation_share"] < 1 for entry in logged)
    # After the interruption the earlier evaluations still count.
    share, seconds = logged[-1]["speed/evaluation_share"], record["training_seconds"]
    assert share * (seconds + SECONDS) >= 3.5 * SECONDS
    line = r"evaluation at step 4: number 1  \([\d.]+ s; evaluations \d+% of the run\)"
    assert re.search(line, capsys.readouterr().out)
