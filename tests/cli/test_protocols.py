"""Protocols at the command line: what can't be judged is one line, before training begins or anything is written."""

from __future__ import annotations

import json

import pytest

from tests.cli.commands import ROOT, one_line, read, run_many, snapshot, train_arguments

CONFIG = """
from configs.vae import digits_conv

def get_config(arg=None):
    config = digits_conv.get_config(arg)
    config.model.ema_decay = {decay}
    config.evaluators = {{"set": {{"name": "distribution", "protocol": "{protocol}", "every": "end"}}}}
    config.total = "2 steps"
    return config
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Training with and without what the protocol wants, and evaluations of the run that has no average."""
    folder = tmp_path_factory.mktemp("protocols")
    configs = {}
    for name, decay, protocol in (
        ("plain", 0.0, "digits_2k"),
        ("strict", 0.0, "mnist_10k"),
        ("other", 0.9, "cifar10_lite0_2k"),
    ):
        configs[name] = folder / f"{name}.py"
        configs[name].write_text(CONFIG.format(decay=decay, protocol=protocol))

    def training(name: str) -> tuple[str, list[str]]:
        return "train", train_arguments(str(configs[name]), folder / "runs" / name)

    members = ("train", [*training("strict")[1], "--population=2"])
    evaluated = [("evaluate", [f"--workdir={folder}/runs/plain", f"--protocol={p}"]) for p in ("mnist_10k", "fid")]
    first, *rest = run_many([training("plain"), training("strict"), members, training("other")], cwd=ROOT)
    before = snapshot(folder / "runs" / "plain")
    later = run_many(evaluated, cwd=ROOT)
    assert snapshot(folder / "runs" / "plain") == before
    return folder / "runs", first, [*rest, *later]


def test_a_run_without_what_the_protocol_wants_is_refused_in_one_line(answers):
    runs, first, refused = answers
    assert first.status == 0, first
    wanted = "mnist_10k wants averaged weights, and this run keeps none; accepted: a run with ema_decay"
    for answer, parts in zip(
        refused,
        [
            ("evaluators.set: protocol", wanted),
            ("evaluators.set: protocol", wanted),
            ("evaluators.set: protocol cifar10_lite0_2k is for cifar10; the data of this run are digits",),
            ("protocol", wanted),
            ("protocol='fid' is unknown", "digits_2k"),
        ],
        strict=True,
    ):
        line = one_line(answer)
        assert all(part in line for part in parts), line
    assert [path.name for path in runs.iterdir()] == ["plain"]  # nothing was written for the others


def test_the_record_says_which_weights_and_how_they_were_sampled(answers):
    card = read(answers[0] / "plain" / "evaluation.json")["evaluators"]["set"]
    assert card["protocol"] == "digits_2k" and card["settings"]["ema"] is False
    assert card["model"] == {"family": "vae", "weights": "last", "sampling": {}, "dtype": "float32"}
    assert json.dumps(card)
