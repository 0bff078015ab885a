"""Several runs as one, at the command line: each member is a run like any other."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.commands import (
    VAE,
    checkpoint_arrays,
    checkpoint_steps,
    one_line,
    read,
    records,
    run,
    run_many,
    start,
    train_arguments,
)

SMALL = (
    "--config.model.network.width=8",
    "--config.total=60 steps",
    "--config.log_every=10 steps",
    "--config.checkpoint.every=20 steps",
    "--config.evaluators.eval.every=20 steps",
    "--config.evaluators.samples.every=end",
    "--config.evaluators.reconstructions.every=end",
    "--config.evaluators.interpolations.every=end",
)
GOOD = ["seed=5,learning_rate=0.003", "seed=6,learning_rate=0.003"]
BAD = ["seed=5,learning_rate=1e+20", "seed=6,learning_rate=1e+20"]


def command(folder: Path, *more: str) -> list[str]:
    return train_arguments(VAE, folder, *SMALL, *more)


def population(folder: Path, *more: str) -> list[str]:
    return command(folder, "--config.seed=5", "--population=2", "--vary=optim.learning_rate=3e-3,1e20", *more)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """Two members alone, a population in turns, and the same population together."""
    folder = tmp_path_factory.mktemp("population")
    alone = [
        command(folder / "alone" / str(seed), f"--config.seed={seed}", "--config.optim.learning_rate=3e-3")
        for seed in (5, 6)
    ]
    commands = [*alone, population(folder / "turns"), population(folder / "together", "--together")]
    answers = run_many([("train", arguments) for arguments in commands])
    for answer in answers:
        assert answer.status == 0 and answer.err == "", answer
    (folder / "out.txt").write_text(answers[2].out)
    return folder


def test_members_are_the_runs_alone(folders):
    for seed, name in zip((5, 6), GOOD, strict=True):
        alone, turns, together = (folders / p for p in (f"alone/{seed}", f"turns/{name}", f"together/{name}"))
        assert records(turns) == records(alone) and len(records(alone)) > 6
        wanted = checkpoint_arrays(alone)
        for path, array in checkpoint_arrays(turns).items():
            np.testing.assert_array_equal(array, wanted[path], err_msg=path)
        for path, array in checkpoint_arrays(together).items():
            np.testing.assert_allclose(array, wanted[path], rtol=2e-3, atol=2e-3, err_msg=path)
        assert read(turns / "config.json") == read(alone / "config.json")
        assert [record["step"] for record in records(together)] == [record["step"] for record in records(alone)]
        scalars = [read(f / "evaluation.json")["evaluators"]["eval"]["scalars"]["elbo"] for f in (alone, together)]
        assert scalars[0] == pytest.approx(scalars[1], rel=1e-3)


def test_members_that_diverge_are_marked_and_left(folders):
    for kind in ("turns", "together"):
        for name in BAD:
            mark = read(folders / kind / name / "diverged.json")
            assert 1 <= mark["step"] <= 10 and "training stopped" in mark["message"]
            assert not (folders / kind / name / "evaluation.json").exists()
            assert checkpoint_steps(folders / kind / name) == []
    out = (folders / "out.txt").read_text()
    assert all(f"diverged:    {name}: step " in out for name in BAD)
    assert "4 members in turns" in out.splitlines()[0]


def test_a_member_is_evaluated_and_sampled_like_any_run(folders):
    member = folders / "turns" / GOOD[1]
    before = read(member / "evaluation.json")["evaluators"]["eval"]["scalars"]
    evaluated, sampled, whole = run_many(
        [
            ("evaluate", [f"--workdir={member}", "--accelerator=cpu"]),
            ("sample", [f"--workdir={member}", "--accelerator=cpu", "--num=3"]),
            ("sample", [f"--workdir={folders / 'turns'}", "--accelerator=cpu", "--num=3"]),
        ]
    )
    assert evaluated.status == 0 and sampled.status == 0, (evaluated, sampled)
    assert read(member / "evaluation.json")["evaluators"]["eval"]["scalars"] == pytest.approx(before)
    assert "holds a population; name a member, such as" in one_line(whole) and GOOD[0] in whole.err


def test_a_finished_population_says_so_and_other_members_are_refused(folders):
    turns = folders / "turns"
    again, other, single, inside = run_many(
        [
            ("train", population(turns)),
            ("train", command(turns, "--population=3")),
            ("train", command(turns)),
            ("train", command(folders / "alone" / "5", "--population=2")),
        ]
    )
    assert again.status == 0 and again.out.count("this run is finished: step 60 of 60") == 2, again
    assert f"holds a population of {GOOD[0]}, {BAD[0]}" in one_line(other)
    assert "is not empty and has no config.json" in one_line(single)
    assert "holds a single run" in one_line(inside)


def test_a_population_killed_twice_ends_as_an_undisturbed_one(folders, tmp_path):
    folder = tmp_path / "killed"
    for pattern in (rf"{GOOD[0]}: evaluation at step 20", rf"{GOOD[1]}: evaluation at step 40"):
        process = start("train", *population(folder))
        for line in process.stdout:
            if re.match(pattern, line):
                break
        else:
            pytest.fail(process.stderr.read())
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    # Members stand at different steps where one was being saved; the one behind catches up.
    answer = run("train", *population(folder))
    assert answer.status == 0 and answer.err == "", answer
    for name in GOOD:
        assert records(folder / name) == records(folders / "turns" / name)
        wanted = checkpoint_arrays(folders / "turns" / name)
        for path, array in checkpoint_arrays(folder / name).items():
            np.testing.assert_array_equal(array, wanted[path], err_msg=path)


def test_members_at_different_steps_meet_and_go_on(folders, tmp_path):
    """One member is ahead because it was trained alone, as its folder allows."""
    folder = tmp_path / "uneven"
    more = ("--config.seed=5", "--config.optim.learning_rate=3e-3", "--population=2")
    process = start("train", *command(folder, *more))
    while not checkpoint_steps(folder / "seed=5"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "the same command continues from there" in out, out + err
    alone = run("train", *command(folder / "seed=5", "--config.seed=5", "--config.optim.learning_rate=3e-3"))
    assert alone.status == 0, alone
    answer = run("train", *command(folder, *more))
    assert answer.status == 0 and answer.err == "", answer
    for name, expected in zip(("seed=5", "seed=6"), GOOD, strict=True):
        assert records(folder / name) == records(folders / "turns" / expected)


def test_bad_flags_are_one_line_before_anything_is_written(tmp_path):
    cases = {
        "--vary=seed": "accepted: a setting and its values, such as seed=0,1,2",
        "--vary=seed=1,x": "'x' is no number",
        "--vary=batch_size=1,2": "--vary=batch_size: can't vary within a population; accepted: seed,",
        "--population=0": "--population",
        "--together": "--together is about the members of a population",
    }
    answers = run_many([("train", command(tmp_path / "new", flag)) for flag in cases])
    twice = run_many([("train", command(tmp_path / "new", "--population=2", "--vary=seed=1,2"))])[0]
    for answer, message in zip([*answers, twice], [*cases.values(), "seed varies already"], strict=True):
        assert message in one_line(answer), answer
        assert answer.compiled == 0
    assert not (tmp_path / "new").exists()
